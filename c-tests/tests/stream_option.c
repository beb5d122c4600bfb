/* SPDX-License-Identifier: GPL-2.0-only */
/* The classic stream is the default, also for a host whose struct ends before the option. Levels of compression that
 * make no sense are refused with the name of the option. */
#include "host.h"
#include "test.h"
#include <stddef.h>

enum { EXTENDED_FLAG = 0x10 };

static void refused(uint32_t stream, int32_t compression, const char *want)
{
    BlkMigOptions o = { .struct_size = sizeof(o), .stream = stream, .compression = compression };
    char got[200];

    err(blk_mig_set_options(&o), EINVAL);
    blk_mig_last_error(got, sizeof(got));
    if (!strstr(got, want)) {
        fail("it says \"%s\", should say \"%s\"", got, want);
    }
}

static void migrates(const BlkMigOptions *options, int extended)
{
    QEMUFile *f = host_file();

    ok(blk_mig_set_options(options));
    check(host_migrate(f, 100, NULL));
    same(f->buf[7], extended ? EXTENDED_FLAG : 0x02);
    check(extended || host_delivered(f));
    host_file_free(f);
}

int main(void)
{
    BlkMigOptions o = { .struct_size = offsetof(BlkMigOptions, stream), .stream = 2, .compression = 1 };

    host_disk("vda", 2 * CHUNK_SECTORS);
    host_start();
    migrates(&o, 0);
    o.struct_size = offsetof(BlkMigOptions, compression);
    o.compression = 99;
    migrates(&o, 1);
    o.struct_size = sizeof(o);
    o.compression = 19;
    migrates(&o, 1);

    refused(3, 0, "stream is 3");
    refused(0, 1, "compression is 1");
    refused(1, -1, "compression is -1");
    refused(2, 99, "compression is 99");
    refused(2, -8, "compression is -8");
    /* What was refused has changed nothing. */
    migrates(&o, 1);
    migrates(&(BlkMigOptions){ .struct_size = sizeof(o), .stream = 1 }, 0);
    host_end();
    return 0;
}
