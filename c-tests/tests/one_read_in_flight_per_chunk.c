/* SPDX-License-Identifier: GPL-2.0-only */
/* B-04: The original could read a chunk again while its bulk read was in flight, and the older data won. The
 * second read must wait for the first, and the newer data must win. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file();
    BlockDriverState *bs = host_disk("vda", 2 * CHUNK_SECTORS);

    host_start();
    host.hold = 1;
    host.lifo = 1;
    host.save_live(host.mon, f, 1, host.opaque);
    host_iterate(f, 1);
    check(host.in_flight > 0);
    host_guest_write(bs, 0, CHUNK_SECTORS, 0x5a);
    host_iterate(f, 1);
    host_iterate(f, 1);
    same(host.overlaps, 0);

    host.hold = 0;
    check(host_iterate(f, 100));
    host_step(f);
    host.save_live(host.mon, f, 3, host.opaque);
    check(host_delivered(f));
    same(host.overlaps, 0);
    host_file_free(f);
    host_end();
    return 0;
}
