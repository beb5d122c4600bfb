/* SPDX-License-Identifier: GPL-2.0-only */
/* B-07: The original aborted when it was asked for the bandwidth before a read had finished. An unknown bandwidth
 * must mean "not done yet". */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file();
    BlockDriverState *bs = host_disk("vda", 2 * CHUNK_SECTORS);

    host_start();
    host.hold = 1;
    f->rate = 3 * MIB;
    host.save_live(host.mon, f, 1, host.opaque);
    host_iterate(f, 1);
    host_guest_write(bs, 0, 2 * CHUNK_SECTORS, 0x11);
    check(!host_iterate(f, 1));

    /* Nor with a clock that stands still. */
    host.step = 0;
    host.hold = 0;
    for (int i = 0; i < 5; i++) {
        host_guest_write(bs, 0, 2 * CHUNK_SECTORS, i);
        host_iterate(f, 1);
    }
    host.step = 100 * MS;
    check(host_iterate(f, 100));
    host.save_live(host.mon, f, 3, host.opaque);
    check(host_delivered(f));
    host_file_free(f);
    host_end();
    return 0;
}
