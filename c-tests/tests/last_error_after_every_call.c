/* SPDX-License-Identifier: GPL-2.0-only */
/* blk_mig_last_error after every call: the text of a failure, "" after a success of a call that can fail; queries
 * that succeed and cleanup leave it. */
#include "host.h"
#include "test.h"
#include <stddef.h>

static char text[200];

static const char *last_error(void)
{
    same(blk_mig_last_error(text, sizeof(text)), strlen(text));
    return text;
}

static int last_errno(void)
{
    BlkMigStats s = { .struct_size = sizeof(s) };

    ok(blk_mig_get_stats(&s));
    return s.last_error;
}

/* A failure that any of the calls below must make forgotten. */
static void something_fails(void)
{
    err(blk_mig_set_host(NULL), EINVAL);
    check(!strcmp(last_error(), "BlkMigHost is NULL"));
    same(last_errno(), -EINVAL);
}

static void forgotten(void)
{
    check(!strcmp(last_error(), ""));
    same(last_errno(), 0);
}

static void kept(const char *what)
{
    check(!strcmp(last_error(), what));
    same(last_errno(), -EINVAL);
}

static void queries(void)
{
    BlkMigStats s = { .struct_size = 0 };

    err(blk_mig_get_stats(NULL), EINVAL);
    kept("BlkMigStats is NULL");
    err(blk_mig_get_stats(&s), EINVAL);
    kept("BlkMigStats.struct_size is 0");
    blk_mig_active();
    blk_mig_bulk_active();
    blk_mig_bytes_total();
    blk_mig_bytes_remaining();
    blk_mig_bytes_transferred();
    blk_mig_save_pending(NULL);
    blk_mig_save_pending_switchover(NULL, 1);
    blk_mig_version();
    blk_mig_save_cleanup(NULL);
    blk_mig_save_live(NULL, NULL, -1, NULL);
    blk_mig_set_params(1, 0, NULL);
    kept("BlkMigStats.struct_size is 0");
}

static void in_stages(QEMUFile *f)
{
    for (int stage = 1; stage <= 3; stage++) {
        host_step(f);
        something_fails();
        host.save_live(NULL, f, stage, host.opaque);
        ok(f->error);
        forgotten();
        if (stage == 2) {
            check(host_iterate(f, 100));
        }
    }
}

static void in_phases(QEMUFile *f)
{
    something_fails();
    ok(blk_mig_save_setup(f, NULL));
    forgotten();
    something_fails();
    check(blk_mig_save_iterate(f, NULL) >= 0);
    forgotten();
    for (int i = 0; i < 100 && blk_mig_save_pending(NULL); i++) {
        host_step(f);
        check(blk_mig_save_iterate(f, NULL) >= 0);
    }
    something_fails();
    ok(blk_mig_save_complete(f, NULL));
    forgotten();
}

int main(void)
{
    BlkMigOptions o = { .struct_size = sizeof(o) };
    QEMUFile *f = host_file();

    blk_mig_init();
    check(strstr(last_error(), "blk_mig_set_host"));
    ok(blk_mig_set_host(host_tables()));
    forgotten();
    host_disk("vda", 2 * CHUNK_SECTORS);
    something_fails();
    host_start();               /* its last call that can fail is blk_mig_init */
    forgotten();
    something_fails();
    blk_mig_init();
    forgotten();
    something_fails();
    ok(blk_mig_set_options(&o));
    forgotten();
    queries();

    in_stages(f);
    check(host_delivered(f));
    something_fails();
    ok(host_load(f));
    forgotten();
    host_file_free(f);
    f = host_file();
    in_phases(f);
    check(host_delivered(f));
    host_file_free(f);

    /* No disks: empty sections are a success, too. */
    f = host_file();
    blk_mig_set_params(0, 0, NULL);
    in_phases(f);
    something_fails();
    same(host.save_live(NULL, f, 1, host.opaque), 1);
    forgotten();
    host_file_free(f);
    host_end();
    return 0;
}
