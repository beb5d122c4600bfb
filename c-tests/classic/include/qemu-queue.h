/* SPDX-License-Identifier: GPL-2.0-only */
/* A singly linked list with a tail, under the names that 2011's users call it by. */
#ifndef QEMU_QUEUE_H
#define QEMU_QUEUE_H

#define QSIMPLEQ_HEAD(name, type)  struct name { struct type *first, **end; }
#define QSIMPLEQ_ENTRY(type)       struct { struct type *next; }

#define QSIMPLEQ_INIT(head)        ((head)->first = NULL, (head)->end = &(head)->first)
#define QSIMPLEQ_EMPTY(head)       ((head)->first == NULL)
#define QSIMPLEQ_FIRST(head)       ((head)->first)
#define QSIMPLEQ_FOREACH(var, head, field) \
    for ((var) = (head)->first; (var) != NULL; (var) = (var)->field.next)

#define QSIMPLEQ_INSERT_TAIL(head, elm, field) \
    do {                                       \
        (elm)->field.next = NULL;              \
        *(head)->end = (elm);                  \
        (head)->end = &(elm)->field.next;      \
    } while (0)

#define QSIMPLEQ_REMOVE_HEAD(head, field)               \
    do {                                                \
        (head)->first = (head)->first->field.next;      \
        if ((head)->first == NULL) {                    \
            (head)->end = &(head)->first;               \
        }                                               \
    } while (0)

#endif
