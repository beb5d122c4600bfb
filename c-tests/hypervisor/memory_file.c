/* SPDX-License-Identifier: GPL-2.0-only */
/* Streams that go nowhere: into memory, to be read again, or into the void. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv.h"

typedef struct Memory {
    uint8_t *data;
    size_t at, end, room;
} Memory;

static ssize_t memory_writev(void *opaque, const struct iovec *iov, int count)
{
    Memory *m = opaque;
    size_t total = 0;
    for (int i = 0; i < count; i++) {
        total += iov[i].iov_len;
    }
    if (m->room - m->end < total) {
        size_t room = (m->end + total) * 2;
        uint8_t *data = realloc(m->data, room);
        if (!data) {
            return -ENOMEM;
        }
        m->data = data;
        m->room = room;
    }
    for (int i = 0; i < count; i++) {
        memcpy(m->data + m->end, iov[i].iov_base, iov[i].iov_len);
        m->end += iov[i].iov_len;
    }
    return (ssize_t)total;
}

static ssize_t memory_readv(void *opaque, const struct iovec *iov, int count)
{
    Memory *m = opaque;
    size_t total = 0;
    for (int i = 0; i < count && m->at < m->end; i++) {
        size_t size = iov[i].iov_len < m->end - m->at ? iov[i].iov_len : m->end - m->at;
        if (size > 0) {
            memcpy(iov[i].iov_base, m->data + m->at, size);
        }
        m->at += size;
        total += size;
    }
    return (ssize_t)total;
}

static void memory_close(void *opaque)
{
    Memory *m = opaque;
    free(m->data);
    free(m);
}

QEMUFile *hv_file_open_memory(void)
{
    Memory *m = calloc(1, sizeof(*m));
    HvChannel channel = { .writev = memory_writev, .readv = memory_readv, .close = memory_close, .opaque = m };
    QEMUFile *f = m ? hv_file_open(&channel, true) : NULL;
    if (!f) {
        free(m);
    }
    return f;
}

static ssize_t null_writev(void *opaque, const struct iovec *iov, int count)
{
    (void)opaque;
    size_t total = 0;
    for (int i = 0; i < count; i++) {
        total += iov[i].iov_len;
    }
    return (ssize_t)total;
}

static ssize_t null_readv(void *opaque, const struct iovec *iov, int count)
{
    (void)opaque;
    (void)iov;
    (void)count;
    return 0;
}

QEMUFile *hv_file_open_null(void)
{
    HvChannel channel = { .writev = null_writev, .readv = null_readv };
    return hv_file_open(&channel, true);
}
