/* SPDX-License-Identifier: GPL-2.0-only */
/* A device that was resized during its migration fails it, which names it. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file();
    BlockDriverState *bs = host_disk("vda", 2 * CHUNK_SECTORS);

    host_start();
    ok(blk_mig_save_setup(f, host.opaque));
    check(host_iterate(f, 100));
    bs->length += SECTOR;
    check(blk_mig_save_complete(f, host.opaque) < 0);
    check(f->error < 0);
    check(host_said("vda"));
    host_file_free(f);
    host_end();
    return 0;
}
