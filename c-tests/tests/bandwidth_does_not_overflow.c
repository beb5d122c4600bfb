/* SPDX-License-Identifier: GPL-2.0-only */
/* B-06: The original counted the bytes read in an int, which overflows at 2 GiB, and then any downtime seemed to
 * fit. The count must not overflow. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file();
    BlockDriverState *bs = host_thin_disk("vda", 64 * CHUNK_SECTORS);

    host_start();
    f->discard = 1;
    host.latency = 10 * MS;
    host.save_live(host.mon, f, 1, host.opaque);
    for (int i = 0; i < 400; i++) {
        /* 64 MiB are dirty and 100 MiB/s are read: that never fits into 30 ms. */
        host_guest_write(bs, 0, 64 * CHUNK_SECTORS, 1);
        if (host_iterate(f, 1)) {
            fail("done, it says, after %d MiB read", host.calls[H_READ_DONE]);
        }
        ok(f->error);
    }
    check(host.calls[H_READ_DONE] > 2500);
    host_complete(1000);
    host.save_live(host.mon, f, -1, host.opaque);
    host_file_free(f);
    host_end();
    return 0;
}
