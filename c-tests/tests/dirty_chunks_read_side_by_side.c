/* SPDX-License-Identifier: GPL-2.0-only */
/* B-22: The original waited for all I/O before it read the next dirty chunk. Dirty chunks must be read side by
 * side, and none may wait for another's I/O. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file();
    BlockDriverState *bs = host_disk("vda", 4 * CHUNK_SECTORS);
    int flushes, waits;

    host_start();
    host.save_live(host.mon, f, 1, host.opaque);
    check(host_iterate(f, 100));
    host_step(f);
    same(host.in_flight, 0);

    host.hold = 1;
    host_guest_write(bs, 0, 4 * CHUNK_SECTORS, 0x44);
    flushes = host.calls[H_FLUSH];
    waits = host.calls[H_WAIT];
    host_iterate(f, 1);
    host_iterate(f, 1);
    same(host.in_flight, 4);
    same(host.calls[H_FLUSH], flushes);
    same(host.calls[H_WAIT], waits);

    host.hold = 0;
    check(host_iterate(f, 100));
    host_step(f);
    host.save_live(host.mon, f, 3, host.opaque);
    check(host_delivered(f));
    host_file_free(f);
    host_end();
    return 0;
}
