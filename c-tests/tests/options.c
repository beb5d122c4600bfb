/* SPDX-License-Identifier: GPL-2.0-only */
/* max_buffers and max_reads bound what is in memory and in flight; an older options struct leaves the rest at default. */
#include "host.h"
#include "test.h"
#include <stddef.h>

static void migrate_with(const BlkMigOptions *options, int most_reads, unsigned most_buffers)
{
    BlkMigStats s = { .struct_size = sizeof(s) };
    QEMUFile *f = host_file();

    ok(blk_mig_set_options(options));
    f->rate = 1024 * MIB;
    host.most_in_flight = 0;
    check(host_migrate(f, 200, NULL));
    check(host_delivered(f));
    ok(blk_mig_get_stats(&s));
    check(s.buffers_peak <= most_buffers);
    same(host.most_in_flight, most_reads);
    host_file_free(f);
}

int main(void)
{
    BlkMigOptions o = { .struct_size = sizeof(o) };

    host_disk("vda", 40 * CHUNK_SECTORS);
    host_start();
    migrate_with(&o, 16, 64);
    o.max_reads = 3;
    migrate_with(&o, 3, 64);
    o.max_buffers = 1;
    migrate_with(&o, 1, 1);
    o.struct_size = offsetof(BlkMigOptions, max_reads);
    o.max_buffers = 20;
    migrate_with(&o, 16, 20);
    o.struct_size = 1;
    err(blk_mig_set_options(&o), EINVAL);
    host_end();
    return 0;
}
