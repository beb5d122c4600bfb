/* SPDX-License-Identifier: GPL-2.0-only */
/* Cancel and failure while the stream keeps buffers: they stay until it releases them, and the next migration has
 * room. */
#include "host.h"
#include "test.h"

static void keep_some(QEMUFile *f)
{
    host.save_live(host.mon, f, 1, host.opaque);
    for (int i = 0; i < 20 && f->held == 0; i++) {
        host_iterate(f, 1);
    }
    check(f->held > 0);
}

int main(void)
{
    BlkMigOptions o = { .struct_size = sizeof(o), .max_buffers = 4 };
    BlkMigStats s = { .struct_size = sizeof(s) };
    QEMUFile *kept = host_file(), *f = host_file();

    host_disk("vda", 12 * CHUNK_SECTORS);
    host.nocopy = 1;
    host_start();
    ok(blk_mig_set_options(&o));
    for (int failure = 0; failure < 2; failure++) {
        keep_some(kept);
        if (failure) {
            kept->error = -EPIPE;
            host.save_live(host.mon, kept, 2, host.opaque);
        }
        host.save_live(host.mon, kept, -1, host.opaque);
        ok(blk_mig_active());
        kept->error = 0;
    }
    /* Released in the midst of the next migration. */
    host.save_live(host.mon, f, 1, host.opaque);
    host_iterate(f, 2);
    host_release(kept, 1);
    check(host_iterate(f, 200));
    host_step(f);
    host.save_live(host.mon, f, 3, host.opaque);
    ok(f->error);
    host_release(f, 0);
    check(host_delivered(f));
    ok(blk_mig_get_stats(&s));
    same(s.buffers_in_use, 0);
    host_file_free(kept);
    host_file_free(f);
    host_end();
    return 0;
}
