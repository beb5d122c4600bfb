/* SPDX-License-Identifier: GPL-2.0-only */
/* A bit for each chunk of a disk, and how many are set. */
#include <errno.h>
#include <stdlib.h>

#include "dirty.h"

#define WORD_BITS 64

static uint64_t mask(int64_t chunk)
{
    return UINT64_C(1) << (chunk % WORD_BITS);
}

static bool is_set(const HvDirty *d, int64_t chunk)
{
    return d->bits && chunk >= 0 && chunk < d->chunks && (d->bits[chunk / WORD_BITS] & mask(chunk));
}

void hv_dirty_init(HvDirty *d)
{
    *d = (HvDirty){ .bits = NULL };
    pthread_mutex_init(&d->lock, NULL);
}

void hv_dirty_destroy(HvDirty *d)
{
    pthread_mutex_destroy(&d->lock);
    free(d->bits);
}

int hv_dirty_set_tracking(HvDirty *d, int64_t sectors, bool enable)
{
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

bool hv_dirty_get(HvDirty *d, int64_t sector)
{
    pthread_mutex_lock(&d->lock);
    bool dirty = is_set(d, sector / HV_CHUNK_SECTORS);
    pthread_mutex_unlock(&d->lock);
    return dirty;
}

void hv_dirty_change(HvDirty *d, int64_t sector, int nb_sectors, bool set)
{
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

int64_t hv_dirty_count(HvDirty *d)
{
    pthread_mutex_lock(&d->lock);
    int64_t count = d->bits ? d->count : 0;
    pthread_mutex_unlock(&d->lock);
    return count;
}

int64_t hv_dirty_next(HvDirty *d, int64_t sector)
{
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
