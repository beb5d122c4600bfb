/* SPDX-License-Identifier: GPL-2.0-only */
/* Fifty migrations in a row, some cancelled, some broken: all is given back each time. */
#include "host.h"
#include "test.h"

int main(void)
{
    BlkMigStats s = { .struct_size = sizeof(s) };
    BlockDriverState *bs = host_disk("vda", 3 * CHUNK_SECTORS + 2);

    host_start();
    for (int i = 0; i < 50; i++) {
        QEMUFile *f = host_file();

        if (i % 5 == 1) {
            host.save_live(host.mon, f, 1, host.opaque);
            host_iterate(f, 1);
            host.save_live(host.mon, f, -1, host.opaque);
        } else {
            f->fail_after = i % 5 == 2 ? i : 0;
            same(host_migrate(f, 100, NULL), f->error == 0);
            check(f->error || host_delivered(f));
            host.save_live(host.mon, f, -1, host.opaque);
        }
        ok(bs->refs);
        ok(bs->tracking);
        ok(host.in_flight);
        ok(blk_mig_get_stats(&s));
        same(s.buffers_in_use, 0);
        host_file_free(f);
    }
    host_end();
    return 0;
}
