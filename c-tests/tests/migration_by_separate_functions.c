/* SPDX-License-Identifier: GPL-2.0-only */
/* The same engine by separate functions: setup, iterate, pending, complete, cleanup; each error is returned. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file(), *broken = host_file(), *early = host_file();
    BlockDriverState *bs = host_disk("vda", 6 * CHUNK_SECTORS + 77);

    host_start();
    /* Out of order: an error, not a crash. */
    check(blk_mig_save_iterate(early, host.opaque) < 0);
    check(blk_mig_save_complete(early, host.opaque) < 0);
    ok(blk_mig_save_pending(host.opaque));

    ok(blk_mig_save_setup(f, host.opaque));
    for (int i = 0; i < 100 && blk_mig_save_pending(host.opaque) > 0; i++) {
        check(blk_mig_save_iterate(f, host.opaque) >= 0);
        host_step(f);
        if (i == 3) {
            host_guest_write(bs, 10, 1, 0x10);
        }
    }
    ok(blk_mig_save_pending(host.opaque));
    same(blk_mig_save_iterate(f, host.opaque), 0);
    host_guest_write(bs, 11, 1, 0x11);
    same(blk_mig_save_pending(host.opaque), MIB);
    ok(blk_mig_save_complete(f, host.opaque));
    check(host_delivered(f));
    ok(blk_mig_active());
    blk_mig_save_cleanup(host.opaque);

    ok(blk_mig_save_setup(broken, host.opaque));
    check(blk_mig_save_iterate(broken, host.opaque) >= 0);
    host_fail(H_READ_DONE, 1, -EBADF);
    host_step(broken);
    err(blk_mig_save_iterate(broken, host.opaque), EBADF);
    same(broken->error, -EBADF);
    ok(bs->refs);
    blk_mig_save_cleanup(host.opaque);

    host_fail(H_TRACK, 1, -ENOSPC);
    broken->error = 0;
    err(blk_mig_save_setup(broken, host.opaque), ENOSPC);
    ok(bs->refs);
    blk_mig_save_cleanup(host.opaque);
    host_file_free(f);
    host_file_free(broken);
    host_file_free(early);
    host_end();
    return 0;
}
