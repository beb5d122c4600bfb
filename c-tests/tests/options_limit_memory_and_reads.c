/* SPDX-License-Identifier: GPL-2.0-only */
/* max_buffers and max_reads limit the chunks in memory and in flight. A shorter struct of an older header leaves the
 * other options at their defaults. An absurd value is refused with the name of the option, and changes nothing. */
#include "host.h"
#include "test.h"
#include <stddef.h>

/* options NULL: keep those that were set before. */
static void migrate_with(const BlkMigOptions *options, int most_reads, unsigned most_buffers)
{
    BlkMigStats s = { .struct_size = sizeof(s) };
    QEMUFile *f = host_file();

    if (options) {
        ok(blk_mig_set_options(options));
    }
    f->rate = 1024 * MIB;
    host.most_in_flight = 0;
    check(host_migrate(f, 200, NULL));
    check(host_delivered(f));
    ok(blk_mig_get_stats(&s));
    check(s.buffers_peak <= most_buffers);
    same(host.most_in_flight, most_reads);
    host_file_free(f);
}

static void refused(const char *field, size_t offset, uint32_t value, uint32_t most)
{
    BlkMigOptions o = { .struct_size = sizeof(o), .max_buffers = 7, .max_reads = 2 };
    char want[100], got[100];

    memcpy((char *)&o + offset, &value, sizeof(value));
    snprintf(want, sizeof(want), "%s is %u; it may be 0 to %u", field, value, most);
    err(blk_mig_set_options(&o), EINVAL);
    blk_mig_last_error(got, sizeof(got));
    if (strcmp(got, want)) {
        fail("it says \"%s\", should say \"%s\"", got, want);
    }
}

#define refuse(field, value, most) refused(#field, offsetof(BlkMigOptions, field), value, most)

static void absurd_ones(void)
{
    const uint32_t most = 1 << 20;
    const BlkMigOptions largest = { sizeof(largest), most, most, most, 1, 1, 2, 19 };

    ok(blk_mig_set_options(&largest));
    migrate_with(&(BlkMigOptions){ .struct_size = sizeof(largest), .max_buffers = 5, .max_reads = 4 }, 4, 5);
    refuse(max_buffers, 0xffffffff, most);
    refuse(max_buffers, most + 1, most);
    refuse(max_reads, 0xffffffff, most);
    refuse(max_reads, most + 1, most);
    refuse(max_writes, 0xffffffff, most);
    refuse(max_writes, most + 1, most);
    refuse(zero_blocks, 7, 1);
    refuse(zero_blocks, 2, 1);
    refuse(accept_tail_garbage, 0xffffffff, 1);
    refuse(stream, 3, 2);
    refuse(stream, 0xffffffff, 2);
    migrate_with(NULL, 4, 5);
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
    absurd_ones();
    host_end();
    return 0;
}
