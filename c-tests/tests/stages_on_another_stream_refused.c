/* SPDX-License-Identifier: GPL-2.0-only */
/* iterate and complete on another stream than setup's: refused, and the migration goes on and completes on the right
 * one. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file(), *other = host_file();

    host_disk("vda", 4 * CHUNK_SECTORS);
    host_start();
    ok(blk_mig_save_setup(f, host.opaque));
    err(blk_mig_save_iterate(other, host.opaque), EINVAL);
    err(blk_mig_save_complete(other, host.opaque), EINVAL);
    check(blk_mig_active());
    host_step(f);
    check(blk_mig_save_iterate(f, host.opaque) >= 0);
    host_step(f);
    ok(blk_mig_save_complete(f, host.opaque));
    blk_mig_save_cleanup(host.opaque);
    ok(f->error);
    check(host_delivered(f));
    host_file_free(f);
    host_file_free(other);
    host_end();
    return 0;
}
