/* SPDX-License-Identifier: GPL-2.0-only */
/* What of a disk was written, in units of some sectors. It knows nothing of disks; any thread may call it. */
#ifndef HV_DIRTY_H
#define HV_DIRTY_H

#include <pthread.h>

#include "hv.h"

typedef struct HvDirty {
    pthread_mutex_t lock;
    uint64_t *bits;                        /* a bit for each unit; NULL: not tracking */
    int64_t unit_sectors;
    int64_t units, count;                  /* how many units there are, and how many bits are set */
} HvDirty;

void hv_dirty_init(HvDirty *d);
void hv_dirty_destroy(HvDirty *d);
int hv_dirty_set_tracking(HvDirty *d, int64_t sectors, int unit_sectors, bool enable);   /* sectors: the disk's */
bool hv_dirty_get(HvDirty *d, int64_t sector);
void hv_dirty_change(HvDirty *d, int64_t sector, int nb_sectors, bool set);
int64_t hv_dirty_count(HvDirty *d);
int64_t hv_dirty_next(HvDirty *d, int64_t sector);                     /* the first dirty sector from there on, or -1 */

#endif
