/* SPDX-License-Identifier: GPL-2.0-only */
/* The block layer of 2011. */
#ifndef BLOCK_INT_H
#define BLOCK_INT_H

#include "qemu-common.h"

#define BDRV_SECTOR_BITS 9
#define BDRV_SECTOR_SIZE (1ULL << BDRV_SECTOR_BITS)
#define BDRV_SECTOR_MASK ~(BDRV_SECTOR_SIZE - 1)
#define BDRV_SECTORS_PER_DIRTY_CHUNK 2048

typedef struct BlockDriver BlockDriver;
typedef struct BlockDriverAIOCB BlockDriverAIOCB;
typedef void BlockDriverCompletionFunc(void *opaque, int ret);

struct BlockDriverState {
    const char *device_name;
    void *host;                 /* the device of the host underneath */
    int drive_refs;
    int in_use;
    int locked;
    int tracked;                /* has a dirty bitmap */
    BlockDriver *drv;
    char filename[1024];
    BlockDriverState *next;
};

void bdrv_iterate(void (*it)(void *opaque, BlockDriverState *bs), void *opaque);
BlockDriverState *bdrv_find(const char *name);
const char *bdrv_get_device_name(BlockDriverState *bs);
int64_t bdrv_getlength(BlockDriverState *bs);
int bdrv_is_read_only(BlockDriverState *bs);
int bdrv_is_allocated(BlockDriverState *bs, int64_t sector_num, int nb_sectors, int *pnum);
int bdrv_read(BlockDriverState *bs, int64_t sector_num, uint8_t *buf, int nb_sectors);
int bdrv_write(BlockDriverState *bs, int64_t sector_num, const uint8_t *buf, int nb_sectors);
BlockDriverAIOCB *bdrv_aio_readv(BlockDriverState *bs, int64_t sector_num, QEMUIOVector *iov, int nb_sectors,
                                 BlockDriverCompletionFunc *cb, void *opaque);
BlockDriverAIOCB *bdrv_aio_writev(BlockDriverState *bs, int64_t sector_num, QEMUIOVector *iov, int nb_sectors,
                                  BlockDriverCompletionFunc *cb, void *opaque);
void bdrv_set_dirty_tracking(BlockDriverState *bs, int enable);
int bdrv_get_dirty(BlockDriverState *bs, int64_t sector);
void bdrv_reset_dirty(BlockDriverState *bs, int64_t cur_sector, int nr_sectors);
int64_t bdrv_get_dirty_count(BlockDriverState *bs);
void bdrv_set_in_use(BlockDriverState *bs, int in_use);
int bdrv_in_use(BlockDriverState *bs);
int bdrv_is_locked(BlockDriverState *bs);
void bdrv_set_locked(BlockDriverState *bs, int locked);
int bdrv_flush(BlockDriverState *bs);

#endif
