/* SPDX-License-Identifier: GPL-2.0-only */
/* B-03: QEMU 7.2 reported almost nothing pending as soon as a bulk read was in flight, so a fast link ended the
 * migration early. Pending must be what the destination lacks, at any moment. */
#include "host.h"
#include "test.h"

static int64_t lacking(QEMUFile *f)
{
    return 8 * MIB - host_replay(f).blocks * MIB;
}

int main(void)
{
    QEMUFile *f = host_file();
    BlockDriverState *bs = host_disk("vda", 8 * CHUNK_SECTORS);

    host_start();
    ok(blk_mig_save_setup(f, host.opaque));
    same(blk_mig_save_pending(host.opaque), 8 * MIB);
    check(blk_mig_bulk_active());
    for (int i = 0; i < 100 && lacking(f) > 0; i++) {
        check(blk_mig_save_iterate(f, host.opaque) >= 0);
        same(blk_mig_save_pending(host.opaque), lacking(f));
        host_complete(1);
        same(blk_mig_save_pending(host.opaque), lacking(f));
    }
    same(lacking(f), 0);
    check(!blk_mig_bulk_active());

    /* A chunk that is dirty again, then in flight, then read, is lacking until it is sent. */
    host_guest_write(bs, 3 * CHUNK_SECTORS, 1, 0x33);
    same(blk_mig_save_pending(host.opaque), MIB);
    check(blk_mig_save_iterate(f, host.opaque) >= 0);
    same(host.in_flight, 1);
    same(blk_mig_save_pending(host.opaque), MIB);
    host_complete(1);
    same(blk_mig_save_pending(host.opaque), MIB);
    check(blk_mig_save_iterate(f, host.opaque) > 0);
    same(blk_mig_save_pending(host.opaque), 0);

    ok(blk_mig_save_complete(f, host.opaque));
    blk_mig_save_cleanup(host.opaque);
    check(host_delivered(f));
    host_file_free(f);
    host_end();
    return 0;
}
