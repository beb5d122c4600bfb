/* SPDX-License-Identifier: GPL-2.0-only */
/* What a hypervisor of 2011 declared here, as far as its block migration called it. */
#ifndef QEMU_COMMON_H
#define QEMU_COMMON_H

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define GCC_FMT_ATTR(n, m) __attribute__((format(printf, n, m)))

typedef struct BlockDriverState BlockDriverState;
typedef struct DeviceState DeviceState;
typedef struct DriveInfo DriveInfo;
typedef struct Monitor Monitor;
typedef struct QEMUFile QEMUFile;

typedef struct QEMUIOVector {
    struct iovec *iov;
    int niov;
    int nalloc;
    size_t size;
} QEMUIOVector;

void qemu_iovec_init_external(QEMUIOVector *qiov, struct iovec *iov, int niov);

void *qemu_malloc(size_t size);
void *qemu_mallocz(size_t size);
void qemu_free(void *ptr);

void qemu_aio_flush(void);
void qemu_aio_wait(void);

#endif
