/* SPDX-License-Identifier: GPL-2.0-only */
/* Stage 1 takes over what a host has left that forgot to cancel a migration, as when its stream broke. From then on
 * stages 2 and 3 belong to the new stream; on any other they are refused, and the migration goes on. */
#include "host.h"
#include "test.h"

static BlockDriverState *bs;

static void must_refuse(QEMUFile *f, int stage)
{
    size_t size = f->size;

    f->error = 0;
    ok(host.save_live(host.mon, f, stage, host.opaque));
    err(f->error, EINVAL);
    same(f->size, size);
}

/* After `steps` of a migration whose stream breaks at the put of that number (0: it is only forgotten). */
static void take_over(int steps, int broken_put)
{
    QEMUFile *old = host_file(), *f = host_file(), *never = host_file();
    int done = 0;

    old->fail_after = broken_put;
    host.save_live(host.mon, old, 1, host.opaque);
    host.hold = 1;
    host_iterate(old, steps);
    same(old->error, broken_put ? -EPIPE : 0);
    host.hold = 0;
    host_guest_write(bs, 0, CHUNK_SECTORS, 0x30 + steps);

    host.save_live(host.mon, f, 1, host.opaque);
    ok(f->error);
    check(blk_mig_active());
    same(blk_mig_bytes_total(), bs->sectors * SECTOR);
    same(blk_mig_bytes_transferred(), 0);
    same(bs->refs, 1);
    for (int i = 0; i < 100 && !done; i++) {
        must_refuse(old, 2);
        must_refuse(never, 3);
        done = host_iterate(f, 1);
    }
    must_refuse(old, 3);
    host_step(f);
    host.save_live(host.mon, f, 3, host.opaque);
    ok(f->error);
    check(host_delivered(f));
    must_refuse(f, 3);
    host_file_free(old);
    host_file_free(f);
    host_file_free(never);
}

/* A snapshot, without disks, by a host that has forgotten its migration: stage 1 ends that, too. */
static void snapshot(void)
{
    QEMUFile *old = host_file(), *f = host_file();

    host.save_live(host.mon, old, 1, host.opaque);
    host_iterate(old, 2);
    host.set_params(0, 0, host.opaque);
    for (int stage = 1; stage <= 3; stage++) {
        same(host.save_live(host.mon, f, stage, host.opaque), 1);
        must_refuse(old, 2);
        must_refuse(old, 3);
    }
    ok(f->error);
    same(f->size, 3 * 8);
    ok(bs->refs);
    ok(blk_mig_active());
    host.set_params(1, 0, host.opaque);
    host_file_free(old);
    host_file_free(f);
}

int main(void)
{
    bs = host_disk("vda", 4 * CHUNK_SECTORS + 1);
    host_start();
    for (int steps = 0; steps < 4; steps++) {
        take_over(steps, 0);
    }
    take_over(0, 1);
    take_over(1, 2);
    take_over(3, 3);
    snapshot();
    take_over(2, 0);
    host_end();
    return 0;
}
