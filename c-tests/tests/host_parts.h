/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of the hypervisor in memory share. */
#ifndef HOST_PARTS_H
#define HOST_PARTS_H

#include "host.h"

/* host_aio.c: the table's functions, and the thread of HOST_THREAD. */
int host_read(BlockDriverState *bs, int64_t sector, uint8_t *buf, int nb_sectors);
int host_write(BlockDriverState *bs, int64_t sector, const uint8_t *buf, int nb_sectors);
int host_write_zeroes(BlockDriverState *bs, int64_t sector, int nb_sectors);
void *host_aio_read(BlockDriverState *bs, int64_t sector, uint8_t *buf, int nb_sectors, BlkMigCompletion *cb,
                    void *opaque);
void *host_aio_write(BlockDriverState *bs, int64_t sector, const uint8_t *buf, int nb_sectors, BlkMigCompletion *cb,
                     void *opaque);
void host_aio_flush(void);
void host_aio_wait(void);
void host_start_worker(void);
void host_wake_worker(void);    /* hold may have changed */
void host_stop_worker(void);

/* Counts the call; returns 0, or the error that host_fail has set for it. */
int host_called(enum host_call call);

/* host_file.c */
extern BlkMigFileOps host_file_ops;
void host_put_buffer_nocopy(QEMUFile *f, const uint8_t *buf, int size, void (*release)(void *opaque), void *opaque);

#endif
