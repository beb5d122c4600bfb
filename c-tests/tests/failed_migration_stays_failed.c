/* SPDX-License-Identifier: GPL-2.0-only */
/* A migration that has failed stays failed, also if set_params says then that no disks are wanted. Cleanup ends that,
 * and so does another setup. */
#include "host.h"
#include "test.h"

static QEMUFile *fail_one(void)
{
    QEMUFile *f = host_file();

    host.set_params(1, 0, host.opaque);
    ok(blk_mig_save_setup(f, host.opaque));
    check(blk_mig_save_iterate(f, host.opaque) >= 0);
    host_fail(H_READ_DONE, 1, -EBADF);
    host_step(f);
    err(blk_mig_save_iterate(f, host.opaque), EBADF);
    err(f->error, EBADF);
    f->error = 0;
    return f;
}

/* However often, and on whatever stream it is asked. */
static void must_be_failed(QEMUFile *f)
{
    QEMUFile *other = host_file();
    size_t size = f->size;

    for (int i = 0; i < 3; i++) {
        err(blk_mig_save_complete(f, host.opaque), EBADF);
        err(f->error, EBADF);
        err(blk_mig_save_iterate(f, host.opaque), EBADF);
        err(blk_mig_save_complete(other, host.opaque), EBADF);
        f->error = 0;
    }
    same(f->size, size);
    same(other->size, 0);
    host_file_free(other);
}

static void must_be_failed_by_stages(QEMUFile *f)
{
    size_t size = f->size;

    for (int stage = 2; stage <= 3; stage++) {
        f->error = 0;
        ok(host.save_live(host.mon, f, stage, host.opaque));
        err(f->error, EBADF);
    }
    same(f->size, size);
    f->error = 0;
}

/* The section of a migration without disks. */
static void must_be_empty(QEMUFile *f, int ret)
{
    ok(ret);
    ok(f->error);
    same(f->size, 8);
    f->size = 0;
}

int main(void)
{
    QEMUFile *f, *empty = host_file();

    host_disk("vda", 2 * CHUNK_SECTORS);
    host_start();
    f = fail_one();
    must_be_failed(f);
    host.set_params(0, 0, host.opaque);
    must_be_failed(f);
    must_be_failed_by_stages(f);
    host.set_params(1, 1, host.opaque);
    must_be_failed(f);
    host.set_params(0, 0, host.opaque);
    blk_mig_save_cleanup(host.opaque);
    must_be_empty(empty, blk_mig_save_complete(empty, host.opaque));
    host_file_free(f);

    f = fail_one();
    host.set_params(0, 0, host.opaque);
    must_be_failed(f);
    must_be_empty(empty, blk_mig_save_setup(empty, host.opaque));
    must_be_empty(empty, blk_mig_save_complete(empty, host.opaque));
    host_file_free(f);

    f = fail_one();
    must_be_failed(f);
    host_file_free(f);
    f = host_file();
    check(host_migrate(f, 100, NULL));
    check(host_delivered(f));
    host_file_free(f);
    host_file_free(empty);
    host_end();
    return 0;
}
