/* SPDX-License-Identifier: GPL-2.0-only */
/* Buffers that the stream keeps come back late, or from another thread; none is reused before, and nothing waits. */
#include "host.h"
#include "test.h"

static BlockDriverState *bs;
static int mode, steps;

static void guest(QEMUFile *f)
{
    if (steps++ < 20) {
        host_guest_write(bs, steps * 777, 1, steps);
    }
    if (mode > 0) {
        host_release(f, mode == 2);
    }
}

int main(void)
{
    BlkMigOptions o = { .struct_size = sizeof(o), .max_buffers = 6 };
    BlkMigStats s = { .struct_size = sizeof(s) };

    bs = host_disk("vda", 12 * CHUNK_SECTORS + 1);
    host.nocopy = 1;
    host_start();
    ok(blk_mig_set_options(&o));
    /* mode 0: all are kept until after the migration. */
    for (mode = 0; mode < 3; mode++) {
        QEMUFile *f = host_file();

        steps = 0;
        check(host_migrate(f, 200, guest));
        check(mode || f->held > 0);
        host_release(f, mode == 2);
        check(host_delivered(f));
        ok(blk_mig_get_stats(&s));
        same(s.buffers_in_use, 0);
        check(s.buffers_peak <= 6);
        host_file_free(f);
    }
    host_end();
    return 0;
}
