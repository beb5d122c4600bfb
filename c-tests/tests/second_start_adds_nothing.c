/* SPDX-License-Identifier: GPL-2.0-only */
/* B-20: A second start without a cleanup added all devices to the original's list again. A start while a migration
 * runs must not add to it. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *first = host_file(), *second = host_file(), *f = host_file();
    BlockDriverState *bs = host_disk("vda", 4 * CHUNK_SECTORS);

    host_start();
    host.save_live(host.mon, first, 1, host.opaque);
    same(blk_mig_bytes_total(), 4 * MIB);
    host_iterate(first, 1);
    host.save_live(host.mon, second, 1, host.opaque);
    check(blk_mig_bytes_total() <= 4 * MIB);
    check(bs->refs <= 1);
    host_step(NULL);
    host.save_live(host.mon, second, -1, host.opaque);
    ok(blk_mig_active());

    check(host_migrate(f, 100, NULL));
    check(host_delivered(f));
    host_file_free(first);
    host_file_free(second);
    host_file_free(f);
    host_end();
    return 0;
}
