/* SPDX-License-Identifier: GPL-2.0-only */
/* What happens to the devices under a migration and would lose data ends it, and names the device. */
#include "host.h"
#include "test.h"

static BlockDriverState *a, *b;

static void grow_back(QEMUFile *f)
{
    a->length -= SECTOR;
    host_iterate(f, 1);
    a->length += SECTOR;
}

static void gone(QEMUFile *f)
{
    (void)f;
    a->length = -ENOMEDIUM;
}

static void unlist(QEMUFile *f)
{
    (void)f;
    a->unlisted = 1;
}

static void appear(QEMUFile *f)
{
    (void)f;
    b->length = b->sectors * SECTOR;
}

/* Another pointer under the same name. */
static void replace(QEMUFile *f)
{
    (void)f;
    a->unlisted = 1;
    b->name = "vda";
    b->length = b->sectors * SECTOR;
}

static void must_fail(void (*change)(QEMUFile *f), const char *name)
{
    QEMUFile *f = host_file();

    host.errors[0] = 0;
    host.save_live(host.mon, f, 1, host.opaque);
    ok(f->error);
    host_iterate(f, 100);
    change(f);
    host.save_live(host.mon, f, 3, host.opaque);
    check(f->error < 0);
    check(host_said(name));
    ok(blk_mig_active());
    host_file_free(f);
    a->unlisted = 0;
    a->length = a->sectors * SECTOR;
    b->name = "vdb";
    b->length = 0;

    f = host_file();
    check(host_migrate(f, 100, NULL));
    host_file_free(f);
}

int main(void)
{
    a = host_disk("vda", 2 * CHUNK_SECTORS);
    b = host_disk("vdb", 2 * CHUNK_SECTORS);
    b->length = 0;
    host_start();
    must_fail(grow_back, "vda");
    must_fail(gone, "vda");
    must_fail(unlist, "vda");
    must_fail(appear, "vdb");
    must_fail(replace, "vda");
    host_end();
    return 0;
}
