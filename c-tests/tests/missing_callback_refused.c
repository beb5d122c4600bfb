/* SPDX-License-Identifier: GPL-2.0-only */
/* A host that lacks a required function is refused, and told which. */
#include "host.h"
#include "test.h"
#include <stddef.h>

struct field {
    const char *name;
    size_t at;
};

#define F(table, name) { #name, offsetof(table, name) }

static const struct field bdrv[] = {
    F(BlkMigBdrvOps, iterate), F(BlkMigBdrvOps, find), F(BlkMigBdrvOps, get_device_name), F(BlkMigBdrvOps, getlength),
    F(BlkMigBdrvOps, is_read_only), F(BlkMigBdrvOps, is_allocated), F(BlkMigBdrvOps, read), F(BlkMigBdrvOps, write),
    F(BlkMigBdrvOps, aio_read), F(BlkMigBdrvOps, aio_flush), { NULL, 0 },
};
static const struct field dirty[] = {
    F(BlkMigDirtyOps, set_tracking), F(BlkMigDirtyOps, get), F(BlkMigDirtyOps, reset), F(BlkMigDirtyOps, get_count),
    { NULL, 0 },
};
static const struct field file[] = {
    F(BlkMigFileOps, put_buffer), F(BlkMigFileOps, put_byte), F(BlkMigFileOps, put_be64), F(BlkMigFileOps, get_buffer),
    F(BlkMigFileOps, get_byte), F(BlkMigFileOps, get_be64), F(BlkMigFileOps, rate_limit),
    F(BlkMigFileOps, get_rate_limit), F(BlkMigFileOps, has_error), F(BlkMigFileOps, set_error), { NULL, 0 },
};
static const struct field monitor[] = { F(BlkMigMonitorOps, printf), F(BlkMigMonitorOps, flush), { NULL, 0 } };
static const struct field rest[] = {
    F(BlkMigSystemOps, register_savevm_live), F(BlkMigSystemOps, clock_ns), F(BlkMigSystemOps, max_downtime_ns),
    { NULL, 0 },
};

static void refused(const BlkMigHost *host, const char *name)
{
    char text[256];

    if (blk_mig_set_host(host) != -EINVAL) {
        fail("a host without %s was not refused", name);
    }
    blk_mig_last_error(text, sizeof(text));
    if (!strstr(text, name)) {
        fail("a host without %s was refused with \"%s\"", name, text);
    }
}

/* Takes one function after the other out of the table that *slot points to. */
static void try_each(const BlkMigHost *host, const void **slot, size_t size, const struct field *fields)
{
    const void *whole = *slot;
    char *copy = malloc(size);

    *slot = copy;
    for (; fields->name; fields++) {
        memcpy(copy, whole, size);
        memset(copy + fields->at, 0, sizeof(void *));
        refused(host, fields->name);
    }
    *slot = whole;
    free(copy);
}

int main(void)
{
    BlkMigHost host = *host_tables();

    try_each(&host, (const void **)&host.bdrv, sizeof(*host.bdrv), bdrv);
    try_each(&host, (const void **)&host.dirty, sizeof(*host.dirty), dirty);
    try_each(&host, (const void **)&host.file, sizeof(*host.file), file);
    try_each(&host, (const void **)&host.monitor, sizeof(*host.monitor), monitor);
    try_each(&host, (const void **)&host.system, sizeof(*host.system), rest);

    host.bdrv = NULL;
    refused(&host, "bdrv");
    host = *host_tables();
    host.dirty = NULL;
    refused(&host, "dirty");
    host = *host_tables();
    host.file = NULL;
    refused(&host, "file");
    host = *host_tables();
    host.system = NULL;
    refused(&host, "system");
    host = *host_tables();
    host.abi_version = 2;
    refused(&host, "abi_version");
    host = *host_tables();
    host.flags = 0x80;
    refused(&host, "flags");
    host = *host_tables();
    host.struct_size = 3;
    refused(&host, "struct_size");
    err(blk_mig_set_host(NULL), EINVAL);
    host = *host_tables();
    ok(blk_mig_set_host(&host));
    return 0;
}
