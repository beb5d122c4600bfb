/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A host that was built against the first header, whose structs were shorter, loads the library at run time: what its
 * tables lack counts as NULL. The library's path is the argument.
 */
#include "host.h"
#include "test.h"
#include <dlfcn.h>
#include <stddef.h>

static void *library;

static void *function(const char *name)
{
    void *found = dlsym(library, name);

    if (!found) {
        fail("%s: %s", name, dlerror());
    }
    return found;
}

/* The functions that host.c calls. */
int blk_mig_set_host(const BlkMigHost *tables)
{
    return ((int (*)(const BlkMigHost *))function("blk_mig_set_host"))(tables);
}

void blk_mig_init(void)
{
    ((void (*)(void))function("blk_mig_init"))();
}

int blk_mig_active(void)
{
    return ((int (*)(void))function("blk_mig_active"))();
}

/* A table up to where it ended then; behind that is nothing that could be read. */
static void *shortened(const void *table, size_t size)
{
    void *copy = malloc(size);

    memcpy(copy, table, size);
    memcpy(copy, &size, sizeof(size));
    return copy;
}

int main(int argc, char **argv)
{
    BlkMigHost *tables = host_tables();
    QEMUFile *f = host_file();

    check(argc == 2);
    library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fail("%s", dlerror());
    }
    host_disk("vda", 3 * CHUNK_SECTORS + 1);
    tables->bdrv = shortened(tables->bdrv, offsetof(BlkMigBdrvOps, ref));
    tables->dirty = shortened(tables->dirty, offsetof(BlkMigDirtyOps, next));
    tables->file = shortened(tables->file, offsetof(BlkMigFileOps, flush));
    tables->system = shortened(tables->system, offsetof(BlkMigSystemOps, error_report));
    host_start();
    /* What follows host_start would have been the whole tables' again, had the library kept pointers to them. */
    free((void *)tables->bdrv);
    free((void *)tables->dirty);
    free((void *)tables->file);
    free((void *)tables->system);
    check(host_migrate(f, 100, NULL));
    check(host_delivered(f));
    host_file_free(f);
    host_end();
    return 0;
}
