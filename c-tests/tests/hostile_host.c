/* SPDX-License-Identifier: GPL-2.0-only */
/* A host whose callbacks return invalid values gets an error, not a crash. */
#include "host.h"
#include "test.h"

static BlkMigBdrvOps bdrv;
static BlkMigDirtyOps dirty;
static const BlkMigBdrvOps *real_bdrv;
static const BlkMigDirtyOps *real_dirty;
static BlkMigHost tables;

/* A migration with the tables as they are now, and a load; returns whether the source completed. */
static int attempt(void)
{
    QEMUFile *f = host_file(), *in = host_file();
    int done;

    ok(blk_mig_set_host(&tables));
    done = host_migrate(f, 20, NULL);
    host.save_live(host.mon, f, -1, host.opaque);
    check(!done || host_delivered(f));
    host_put_zero(in, "vda", 0);
    host_put_end(in);
    host_load(in);
    ok(blk_mig_active());
    host_file_free(f);
    host_file_free(in);
    bdrv = *real_bdrv;
    dirty = *real_dirty;
    return done;
}

static const char *no_name(BlockDriverState *bs)
{
    (void)bs;
    return NULL;
}

static void visit_nothing(BlkMigDeviceVisitor *it, void *opaque)
{
    it(opaque, NULL);
}

static void visit_twice(BlkMigDeviceVisitor *it, void *opaque)
{
    it(opaque, host.disks);
    it(opaque, host.disks);
}

static int64_t endless(BlockDriverState *bs)
{
    (void)bs;
    return INT64_MAX;
}

static int64_t huge(BlockDriverState *bs)
{
    (void)bs;
    return INT64_MAX & ~511LL;
}

static int64_t minus_many(BlockDriverState *bs)
{
    (void)bs;
    return INT64_MIN;
}

static int far_too_far(BlockDriverState *bs, int64_t sector, int nb_sectors, int *pnum)
{
    (void)bs;
    (void)sector;
    (void)nb_sectors;
    *pnum = INT32_MAX;
    return 1;
}

/* It says "zero", but for 0 sectors. */
static int no_progress(BlockDriverState *bs, int64_t sector, int nb_sectors, int *pnum)
{
    static int n;

    (void)bs;
    (void)sector;
    (void)nb_sectors;
    *pnum = -(n++ % 3);
    return 1;
}

static int strange_error(BlockDriverState *bs)
{
    (void)bs;
    return INT32_MIN;
}

int main(void)
{
    host_disk("vda", 3 * CHUNK_SECTORS);
    host_start();
    tables = *host_tables();
    real_bdrv = tables.bdrv;
    real_dirty = tables.dirty;
    bdrv = *real_bdrv;
    dirty = *real_dirty;
    tables.bdrv = &bdrv;
    tables.dirty = &dirty;
    check(attempt());

    bdrv.get_device_name = no_name;
    check(!attempt());
    bdrv.iterate = visit_twice;
    check(!attempt());
    bdrv.getlength = endless;
    check(!attempt());
    bdrv.getlength = huge;
    check(!attempt());
    bdrv.getlength = minus_many;
    check(!attempt());
    bdrv.ref = strange_error;
    check(!attempt());
    bdrv.is_zero = no_progress;
    check(attempt());
    dirty.get_count = minus_many;
    check(!attempt());
    dirty.get_count = endless;
    attempt();

    host.set_params(1, 1, host.opaque);
    bdrv.is_allocated = far_too_far;
    check(attempt());

    /* It is not an error of the host to have no device at all. */
    host.disks->read_only = 1;
    bdrv.iterate = visit_nothing;
    check(attempt());
    host_end();
    return 0;
}
