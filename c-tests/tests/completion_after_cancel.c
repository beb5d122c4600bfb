/* SPDX-License-Identifier: GPL-2.0-only */
/* A completion that comes after cancel, from a host whose flush lies, touches nothing that was freed. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file(), *cancelled = host_file();
    BlkMigStats s = { .struct_size = sizeof(s) };

    host_disk("vda", 4 * CHUNK_SECTORS);
    host_start();
    host.hold = 1;
    host.late_data = 1;
    host.save_live(host.mon, cancelled, 1, host.opaque);
    host_iterate(cancelled, 1);
    check(host.in_flight > 0);
    host.lying_flush = 1;
    host.save_live(host.mon, cancelled, -1, host.opaque);
    ok(blk_mig_active());
    check(host.in_flight > 0);
    host_complete(1);

    /* The next migration is not disturbed by what comes late. */
    host.lying_flush = 0;
    host.save_live(host.mon, f, 1, host.opaque);
    host_iterate(f, 1);
    host.hold = 0;
    check(host_iterate(f, 100));
    host_step(f);
    host.save_live(host.mon, f, 3, host.opaque);
    ok(f->error);
    check(host_delivered(f));
    same(host.in_flight, 0);
    ok(blk_mig_get_stats(&s));
    same(s.buffers_in_use, 0);
    host_file_free(f);
    host_file_free(cancelled);
    host_end();
    return 0;
}
