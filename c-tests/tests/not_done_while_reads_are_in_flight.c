/* SPDX-License-Identifier: GPL-2.0-only */
/* B-02: The original's stage 2 counted dirty chunks alone, so it was done with reads in flight and blocks in its
 * queue. It must not be done before those are sent. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file();

    host_disk("vda", 4 * CHUNK_SECTORS);
    host_start();
    host.save_live(host.mon, f, 1, host.opaque);
    host.hold = 1;
    check(!host_iterate(f, 5));
    check(host.in_flight > 0);

    /* All read, but the link takes nothing: not done either. */
    host.hold = 0;
    f->limit = 1;
    for (int i = 0; i < 3; i++) {
        host_step(f);
        f->sent = 1;
        check(!host.save_live(host.mon, f, 2, host.opaque));
    }
    f->limit = 0;
    check(host_iterate(f, 100));
    host.save_live(host.mon, f, 3, host.opaque);
    check(host_delivered(f));
    host_file_free(f);
    host_end();
    return 0;
}
