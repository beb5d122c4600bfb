/* SPDX-License-Identifier: GPL-2.0-only */
/* B-10: The original aborted if reads were in flight when the last stage began. The last stage must wait for them. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file();

    host_disk("vda", 4 * CHUNK_SECTORS);
    host_start();
    host.hold = 1;
    host.save_live(host.mon, f, 1, host.opaque);
    host_iterate(f, 1);
    check(host.in_flight > 0);
    host.save_live(host.mon, f, 3, host.opaque);
    ok(f->error);
    check(host_delivered(f));
    host_file_free(f);
    host_end();
    return 0;
}
