/* SPDX-License-Identifier: GPL-2.0-only */
/* NULL where a pointer is needed is an error, never a crash; with a host and without. */
#include "host.h"
#include "test.h"

static void try_all(int code)
{
    char text[64];

    err(blk_mig_save_live(NULL, NULL, 1, NULL), EINVAL);
    err(blk_mig_save_live(NULL, NULL, 2, NULL), EINVAL);
    err(blk_mig_save_live(NULL, NULL, 3, NULL), EINVAL);
    blk_mig_save_live(NULL, NULL, -1, NULL);
    err(blk_mig_load(NULL, NULL, 1), EINVAL);
    err(blk_mig_save_setup(NULL, NULL), EINVAL);
    err(blk_mig_save_iterate(NULL, NULL), EINVAL);
    err(blk_mig_save_complete(NULL, NULL), EINVAL);
    ok(blk_mig_save_pending(NULL));
    blk_mig_save_cleanup(NULL);
    blk_mig_set_params(1, 0, NULL);
    err(blk_mig_set_host(NULL), EINVAL);
    err(blk_mig_set_options(NULL), EINVAL);
    err(blk_mig_get_stats(NULL), EINVAL);
    check(blk_mig_last_error(NULL, 0) > 0);
    check(blk_mig_last_error(NULL, 100) > 0);
    check(blk_mig_last_error(text, 0) > 0);
    ok(blk_mig_active());
    ok(blk_mig_bulk_active());
    same(code, -EINVAL);
}

int main(void)
{
    QEMUFile *f = host_file();

    try_all(blk_mig_save_setup(f, NULL));
    host_disk("vda", CHUNK_SECTORS);
    host_start();
    try_all(blk_mig_load(NULL, NULL, 1));
    check(host_migrate(f, 100, NULL));
    check(host_delivered(f));
    host_file_free(f);
    host_end();
    return 0;
}
