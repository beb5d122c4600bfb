/* SPDX-License-Identifier: GPL-2.0-only */
/* Of the three byte counts one is the others' sum; they are 0 when nothing is migrated. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file();
    uint64_t transferred = 0;

    host_disk("vda", 5 * CHUNK_SECTORS);
    host_disk("vdb", CHUNK_SECTORS + 1);
    host_start();
    ok(blk_mig_bytes_total());
    host.save_live(host.mon, f, 1, host.opaque);
    same(blk_mig_active(), 1);
    f->rate = MIB;
    do {
        same(blk_mig_bytes_total(), 6 * MIB + SECTOR);
        same(blk_mig_bytes_remaining() + blk_mig_bytes_transferred(), 6 * MIB + SECTOR);
        check(blk_mig_bytes_transferred() >= transferred);
        transferred = blk_mig_bytes_transferred();
    } while (!host_iterate(f, 1));
    host_step(f);
    host.save_live(host.mon, f, 3, host.opaque);
    ok(f->error);
    ok(blk_mig_active());
    ok(blk_mig_bytes_total());
    ok(blk_mig_bytes_transferred());
    ok(blk_mig_bytes_remaining());
    host_file_free(f);
    host_end();
    return 0;
}
