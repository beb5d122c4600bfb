/* SPDX-License-Identifier: GPL-2.0-only */
/* A device of 16 TiB, on a host that can only say whether a chunk is dirty: one step looks at a bounded number of
 * chunks, and those that are dirty are found all the same, in the steps that follow. */
#include "host.h"
#include "test.h"

#define CHUNKS ((int64_t)1 << 24)
#define MOST_LOOKS 100000

static int64_t dirty[3] = { -1, -1, -1 };       /* chunks */
static int looks;

static int is_allocated(BlockDriverState *bs, int64_t sector, int nb_sectors, int *pnum)
{
    (void)bs;
    (void)sector;
    *pnum = nb_sectors;
    return 0;
}

static int set_tracking(BlockDriverState *bs, int enable)
{
    bs->tracking = enable;
    return 0;
}

static int get(BlockDriverState *bs, int64_t sector)
{
    int64_t chunk = sector / CHUNK_SECTORS;

    (void)bs;
    looks++;
    return chunk == dirty[0] || chunk == dirty[1] || chunk == dirty[2];
}

static void reset(BlockDriverState *bs, int64_t sector, int nb_sectors)
{
    (void)bs;
    (void)nb_sectors;
    for (int i = 0; i < 3; i++) {
        if (dirty[i] == sector / CHUNK_SECTORS) {
            dirty[i] = -1;
        }
    }
}

static int64_t get_count(BlockDriverState *bs)
{
    (void)bs;
    return (dirty[0] >= 0) + (dirty[1] >= 0) + (dirty[2] >= 0);
}

int main(void)
{
    BlkMigDirtyOps ops = {
        .struct_size = sizeof(ops), .set_tracking = set_tracking, .get = get, .reset = reset, .get_count = get_count,
    };
    BlockDriverState *bs = host_thin_disk("vda", CHUNKS * CHUNK_SECTORS);
    QEMUFile *f = host_file();
    BlkMigHost tables;
    int steps;

    bs->is_allocated = is_allocated;
    host_start();
    tables = *host_tables();
    tables.dirty = &ops;
    ok(blk_mig_set_host(&tables));
    host.set_params(1, 1, host.opaque);
    ok(blk_mig_save_setup(f, host.opaque));
    for (steps = 0; blk_mig_bulk_active(); steps++) {
        check(steps < 10000);
        looks = 0;
        check(blk_mig_save_iterate(f, host.opaque) >= 0);
        check(looks < MOST_LOOKS);
        host_step(f);
    }

    dirty[0] = 1;
    dirty[1] = CHUNKS / 2;
    dirty[2] = CHUNKS - 1;
    for (steps = 0; get_count(bs) > 0 || host.in_flight > 0; steps++) {
        check(steps < 10000);
        looks = 0;
        check(blk_mig_save_iterate(f, host.opaque) >= 0);
        check(looks < MOST_LOOKS);
        host_step(f);
    }
    check(blk_mig_save_iterate(f, host.opaque) > 0);
    same(blk_mig_save_pending(host.opaque), 0);

    /* With the guest stopped, it looks at all of them. */
    dirty[0] = CHUNKS - 2;
    ok(blk_mig_save_complete(f, host.opaque));
    same(get_count(bs), 0);
    same(host.calls[H_AIO_READ], 4);
    host_file_free(f);
    host_end();
    return 0;
}
