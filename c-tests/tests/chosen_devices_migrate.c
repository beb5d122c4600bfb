/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * blk_mig_set_devices: only the chosen devices migrate, the others are reported with the reason and may change as they
 * like, and a name that no device has fails the setup.
 */
#include "host.h"
#include "test.h"

static BlockDriverState *disks[3];

/* The length of all devices in the statistics: which were migrated. */
static uint64_t total(void)
{
    BlkMigStats stats = { .struct_size = sizeof(stats) };

    ok(blk_mig_get_stats(&stats));
    return stats.bytes_total;
}

/* A device that was not chosen comes to an end, and a drive without a medium gets one: no business of the migration. */
static void change_the_others(QEMUFile *f)
{
    (void)f;
    disks[0]->length = -ENOMEDIUM;
    disks[2]->length = 3 * MIB;
}

static void chosen_alone(void)
{
    char vdb[] = "vdb";
    const char *names[] = { vdb };
    QEMUFile *f = host_file();

    ok(blk_mig_set_devices(names, 1));
    vdb[0] = 'x';                                   /* it was copied */
    check(host_migrate(f, 100, change_the_others));
    same(total(), 2 * MIB);
    same(host_logged("3 device vda is not migrated: it was not chosen\n"), 1);
    same(host_logged("3 device vdc is not migrated: it was not chosen\n"), 1);
    ok(host_logged("device vdb is not"));
    same(host_replay(f).blocks, 2);
    same(disks[0]->tracking + disks[0]->refs, 0);
    host_file_free(f);
    disks[0]->length = CHUNK;
    disks[2]->length = -ENOMEDIUM;
}

static void chosen_and_empty(void)
{
    const char *names[] = { "vdc", "vda", "vda" };
    QEMUFile *f = host_file();

    ok(blk_mig_set_devices(names, 3));
    check(host_migrate(f, 100, NULL));
    same(total(), CHUNK);
    same(host_logged("3 device vdc is not migrated: it is empty\n"), 1);
    host_file_free(f);
}

static void chosen_and_not_there(void)
{
    const char *names[] = { "vda", "vd\n", NULL };
    char text[200];
    QEMUFile *f = host_file();

    err(blk_mig_set_devices(names, 3), EINVAL);
    blk_mig_last_error(text, sizeof(text));
    check(strcmp(text, "name 2 of 3 is NULL") == 0);
    ok(blk_mig_set_devices(names, 2));
    err(blk_mig_save_setup(f, NULL), ENODEV);
    blk_mig_last_error(text, sizeof(text));
    check(strcmp(text, "no device is named vd\\n, which was chosen to be migrated") == 0);
    same(disks[0]->tracking + disks[0]->refs, 0);
    ok(blk_mig_active());
    blk_mig_save_cleanup(NULL);
    host_file_free(f);
}

static void refused_while_one_runs(void)
{
    const char *names[] = { "nothing" };
    QEMUFile *f = host_file();

    ok(blk_mig_set_devices(NULL, 1));
    ok(blk_mig_save_setup(f, NULL));
    err(blk_mig_set_devices(names, 1), EBUSY);
    blk_mig_save_cleanup(NULL);
    host_file_free(f);

    /* All of them again. */
    f = host_file();
    ok(blk_mig_set_devices(names, 0));
    check(host_migrate(f, 100, NULL));
    check(host_delivered(f));
    same(total(), 3 * MIB);
    host_file_free(f);
}

int main(void)
{
    disks[0] = host_disk("vda", CHUNK_SECTORS);
    disks[1] = host_disk("vdb", 2 * CHUNK_SECTORS);
    disks[2] = host_disk("vdc", 3 * CHUNK_SECTORS);
    disks[2]->length = -ENOMEDIUM;
    host_start();
    chosen_alone();
    chosen_and_empty();
    chosen_and_not_there();
    refused_while_one_runs();
    host_end();
    return 0;
}
