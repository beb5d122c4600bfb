/* SPDX-License-Identifier: GPL-2.0-only */
/* While a migration runs, neither the host nor the options can be changed; afterwards they can. */
#include "host.h"
#include "test.h"

int main(void)
{
    BlkMigOptions options = { .struct_size = sizeof(options), .max_buffers = 8 };
    QEMUFile *f = host_file(), *second = host_file();

    host_disk("vda", 2 * CHUNK_SECTORS);
    host_start();
    ok(blk_mig_set_options(&options));
    ok(blk_mig_save_setup(f, host.opaque));
    err(blk_mig_set_host(host_tables()), EBUSY);
    err(blk_mig_set_options(&options), EBUSY);

    /* A second setup is refused and the first goes on. */
    err(blk_mig_save_setup(second, host.opaque), EBUSY);
    same(blk_mig_bytes_total(), 2 * MIB);
    check(host_iterate(f, 100));
    ok(blk_mig_save_complete(f, host.opaque));
    check(host_delivered(f));
    ok(blk_mig_set_options(&options));
    ok(blk_mig_set_host(host_tables()));
    blk_mig_save_cleanup(host.opaque);
    blk_mig_save_cleanup(host.opaque);
    host_file_free(f);
    host_file_free(second);
    host_end();
    return 0;
}
