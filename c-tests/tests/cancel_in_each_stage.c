/* SPDX-License-Identifier: GPL-2.0-only */
/* A cancel at any moment, with reads in flight or without, frees everything; the next migration succeeds. */
#include "host.h"
#include "test.h"

static void cancel_after(BlockDriverState *bs, int steps, int hold)
{
    QEMUFile *f = host_file();

    host.save_live(host.mon, f, 1, host.opaque);
    for (int i = 0; i < steps; i++) {
        host_iterate(f, 1);
        if (i > 4) {
            host_guest_write(bs, i * 100, 1, i);
        }
    }
    host.hold = hold;
    host_iterate(f, 1);
    host.save_live(host.mon, f, -1, host.opaque);
    host.save_live(host.mon, f, -1, host.opaque);
    host.hold = 0;
    same(host.in_flight, 0);
    ok(blk_mig_active());
    ok(bs->refs);
    ok(bs->tracking);
    host_file_free(f);
}

int main(void)
{
    QEMUFile *f = host_file();
    BlockDriverState *bs = host_disk("vda", 8 * CHUNK_SECTORS);

    host_start();
    host.save_live(host.mon, f, -1, host.opaque);
    for (int steps = 0; steps < 12; steps++) {
        cancel_after(bs, steps, 0);
        cancel_after(bs, steps, 1);
    }
    check(host_migrate(f, 100, NULL));
    check(host_delivered(f));
    host_file_free(f);
    host_end();
    return 0;
}
