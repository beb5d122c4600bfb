/* SPDX-License-Identifier: GPL-2.0-only */
/* B-09: On a cancel or an error the original freed its state while reads were in flight, which then wrote into
 * freed memory. Cancel must wait for them before anything is freed. */
#include "host.h"
#include "test.h"

static void start_reads(QEMUFile *f)
{
    host.hold = 1;
    host.save_live(host.mon, f, 1, host.opaque);
    host_iterate(f, 1);
    check(host.in_flight > 0);
}

int main(void)
{
    QEMUFile *cancelled = host_file(), *broken = host_file(), *f = host_file();

    host_disk("vda", 4 * CHUNK_SECTORS);
    host_start();

    start_reads(cancelled);
    host.save_live(host.mon, cancelled, -1, host.opaque);
    same(host.in_flight, 0);
    ok(blk_mig_active());

    start_reads(broken);
    broken->error = -EPIPE;
    host.save_live(host.mon, broken, 2, host.opaque);
    same(host.in_flight, 0);
    ok(blk_mig_active());
    host.save_live(host.mon, broken, -1, host.opaque);

    host.hold = 0;
    check(host_migrate(f, 100, NULL));
    check(host_delivered(f));
    host_file_free(cancelled);
    host_file_free(broken);
    host_file_free(f);
    host_end();
    return 0;
}
