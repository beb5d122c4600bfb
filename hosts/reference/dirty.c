/* SPDX-License-Identifier: GPL-2.0-only */
/* A bit for each unit of a disk, and how many are set. */
#include <errno.h>
#include <stdlib.h>

#include "dirty.h"

#define WORD_BITS 64

static uint64_t mask(int64_t unit)
{
    return UINT64_C(1) << (unit % WORD_BITS);
}

static bool is_set(const HvDirty *d, int64_t unit)
{
    return d->bits && unit >= 0 && unit < d->units && (d->bits[unit / WORD_BITS] & mask(unit));
}

void hv_dirty_init(HvDirty *d)
{
    *d = (HvDirty){ .unit_sectors = HV_CHUNK_SECTORS };
    pthread_mutex_init(&d->lock, NULL);
}

void hv_dirty_destroy(HvDirty *d)
{
    pthread_mutex_destroy(&d->lock);
    free(d->bits);
}

int hv_dirty_set_tracking(HvDirty *d, int64_t sectors, int unit_sectors, bool enable)
{
    int64_t units = (sectors + unit_sectors - 1) / unit_sectors;
    uint64_t *bits = enable ? calloc((size_t)(units / WORD_BITS + 1), sizeof(*bits)) : NULL;
    if (enable && !bits) {
        return -ENOMEM;
    }
    pthread_mutex_lock(&d->lock);
    free(d->bits);
    d->bits = bits;
    d->unit_sectors = unit_sectors;
    d->units = units;
    d->count = 0;
    pthread_mutex_unlock(&d->lock);
    return 0;
}

bool hv_dirty_get(HvDirty *d, int64_t sector)
{
    pthread_mutex_lock(&d->lock);
    bool dirty = is_set(d, sector / d->unit_sectors);
    pthread_mutex_unlock(&d->lock);
    return dirty;
}

void hv_dirty_change(HvDirty *d, int64_t sector, int nb_sectors, bool set)
{
    pthread_mutex_lock(&d->lock);
    int64_t last = (sector + nb_sectors - 1) / d->unit_sectors;
    for (int64_t unit = sector / d->unit_sectors; d->bits && unit <= last && unit < d->units; unit++) {
        if (is_set(d, unit) != set) {
            d->bits[unit / WORD_BITS] ^= mask(unit);
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
    int64_t found = -1, first = -1;
    pthread_mutex_lock(&d->lock);
    int64_t unit = sector / d->unit_sectors;
    while (d->bits && unit < d->units && found < 0) {
        uint64_t rest = d->bits[unit / WORD_BITS] >> (unit % WORD_BITS);
        if (rest) {
            found = unit + __builtin_ctzll(rest);
        } else {
            unit = (unit / WORD_BITS + 1) * WORD_BITS;
        }
    }
    if (found >= 0) {
        first = found * d->unit_sectors > sector ? found * d->unit_sectors : sector;
    }
    pthread_mutex_unlock(&d->lock);
    return first;
}
