/* SPDX-License-Identifier: GPL-2.0-only */
/* Each stage writes one section; with no disks to migrate it is an empty one, and the stage is done. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file(), *none = host_file();
    int stages = 2;

    host_disk("vda", 3 * CHUNK_SECTORS);
    host_start();
    host.save_live(host.mon, f, 1, host.opaque);
    same(host_replay(f).sections, 1);
    while (!host_iterate(f, 1)) {
        same(host_replay(f).sections, stages);
        stages++;
    }
    same(host_replay(f).sections, stages);
    host_step(f);
    host.save_live(host.mon, f, 3, host.opaque);
    same(host_replay(f).sections, stages + 1);
    check(host_delivered(f));

    host.set_params(0, 0, host.opaque);
    for (int stage = 1; stage <= 3; stage++) {
        same(host.save_live(host.mon, none, stage, host.opaque), 1);
        same(none->size, 8 * stage);
    }
    ok(blk_mig_active());
    host_file_free(f);
    host_file_free(none);
    host_end();
    return 0;
}
