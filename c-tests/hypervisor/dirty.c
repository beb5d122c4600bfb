/* SPDX-License-Identifier: GPL-2.0-only */
/* A bit for each chunk of a disk, and how many are set. */
#include <errno.h>
#include <stdlib.h>

#include "disk.h"

#define WORD_BITS 64

static uint64_t mask(int64_t chunk)
{
    return UINT64_C(1) << (chunk % WORD_BITS);
}

static bool is_set(const HvDirty *d, int64_t chunk)
{
    return d->bits && chunk >= 0 && chunk < d->chunks && (d->bits[chunk / WORD_BITS] & mask(chunk));
}

int hv_dirty_set_tracking(BlockDriverState *bs, int enable)
{
    HvDirty *d = &bs->dirty;
    int64_t sectors = hv_disk_getlength(bs) / HV_SECTOR_SIZE;
    int64_t chunks = (sectors + HV_CHUNK_SECTORS - 1) / HV_CHUNK_SECTORS;
    uint64_t *bits = enable ? calloc((size_t)(chunks / WORD_BITS + 1), sizeof(*bits)) : NULL;
    if (enable && !bits) {
        return -ENOMEM;
    }
    pthread_mutex_lock(&d->lock);
    free(d->bits);
    d->bits = bits;
    d->chunks = chunks;
    d->count = 0;
    pthread_mutex_unlock(&d->lock);
    return 0;
}

bool hv_dirty_tracking(BlockDriverState *bs)
{
    pthread_mutex_lock(&bs->dirty.lock);
    bool tracking = bs->dirty.bits != NULL;
    pthread_mutex_unlock(&bs->dirty.lock);
    return tracking;
}

int hv_dirty_get(BlockDriverState *bs, int64_t sector)
{
    pthread_mutex_lock(&bs->dirty.lock);
    bool dirty = is_set(&bs->dirty, sector / HV_CHUNK_SECTORS);
    pthread_mutex_unlock(&bs->dirty.lock);
    return dirty;
}

static void change(BlockDriverState *bs, int64_t sector, int nb_sectors, bool set)
{
    HvDirty *d = &bs->dirty;
    int64_t last = (sector + nb_sectors - 1) / HV_CHUNK_SECTORS;
    pthread_mutex_lock(&d->lock);
    for (int64_t chunk = sector / HV_CHUNK_SECTORS; d->bits && chunk <= last && chunk < d->chunks; chunk++) {
        if (is_set(d, chunk) != set) {
            d->bits[chunk / WORD_BITS] ^= mask(chunk);
            d->count += set ? 1 : -1;
        }
    }
    pthread_mutex_unlock(&d->lock);
}

void hv_dirty_mark(BlockDriverState *bs, int64_t sector, int nb_sectors)
{
    change(bs, sector, nb_sectors, true);
}

void hv_dirty_reset(BlockDriverState *bs, int64_t sector, int nb_sectors)
{
    change(bs, sector, nb_sectors, false);
}

int64_t hv_dirty_get_count(BlockDriverState *bs)
{
    pthread_mutex_lock(&bs->dirty.lock);
    int64_t count = bs->dirty.bits ? bs->dirty.count : 0;
    pthread_mutex_unlock(&bs->dirty.lock);
    return count;
}

int64_t hv_dirty_next(BlockDriverState *bs, int64_t sector)
{
    HvDirty *d = &bs->dirty;
    int64_t found = -1;
    pthread_mutex_lock(&d->lock);
    int64_t chunk = sector / HV_CHUNK_SECTORS;
    while (d->bits && chunk < d->chunks && found < 0) {
        uint64_t rest = d->bits[chunk / WORD_BITS] >> (chunk % WORD_BITS);
        if (rest) {
            found = chunk + __builtin_ctzll(rest);
        } else {
            chunk = (chunk / WORD_BITS + 1) * WORD_BITS;
        }
    }
    pthread_mutex_unlock(&d->lock);
    if (found < 0) {
        return -1;
    }
    int64_t first = found * HV_CHUNK_SECTORS;
    return first > sector ? first : sector;
}
