/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef QEMU_TIMER_H
#define QEMU_TIMER_H

#include "qemu-common.h"

typedef struct QEMUClock QEMUClock;
extern QEMUClock *rt_clock;

int64_t qemu_get_clock_ns(QEMUClock *clock);

#endif
