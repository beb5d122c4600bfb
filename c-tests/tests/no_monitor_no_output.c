/* SPDX-License-Identifier: GPL-2.0-only */
/* B-24: The original printed to a monitor that was not there. Without a monitor, or without the monitor's table,
 * there must be no output. */
#include "host.h"
#include "test.h"

int main(void)
{
    BlkMigHost *tables = host_tables();

    host_disk("vda", 2 * CHUNK_SECTORS);
    host_start();
    for (int round = 0; round < 2; round++) {
        QEMUFile *f = host_file(), *cancelled = host_file();

        host.mon = NULL;
        if (round == 1) {
            host.mon = &host.monitor;
            tables->monitor = NULL;
            ok(blk_mig_set_host(tables));
        }
        check(host_migrate(f, 100, NULL));
        check(host_delivered(f));
        host.save_live(host.mon, cancelled, 1, host.opaque);
        host_fail(H_AIO_READ, 1, -1);
        host_iterate(cancelled, 1);
        host.save_live(host.mon, cancelled, -1, host.opaque);
        same(host.monitor.stray, 0);
        same(strlen(host.monitor.text), 0);
        host_file_free(f);
        host_file_free(cancelled);
    }
    host_end();
    return 0;
}
