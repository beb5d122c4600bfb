/* SPDX-License-Identifier: GPL-2.0-only */
/* Reads that complete last in, first out, and take their data when they complete. */
#include "host.h"
#include "test.h"

static BlockDriverState *bs;
static int steps;

static void guest(QEMUFile *f)
{
    (void)f;
    if (steps++ < 30) {
        host_guest_write(bs, steps * 1500 % bs->sectors, 1, steps);
    }
    host_complete(steps % 3);
}

int main(void)
{
    bs = host_disk("vda", 20 * CHUNK_SECTORS + 100);
    host_start();
    host.lifo = 1;
    for (host.late_data = 0; host.late_data < 2; host.late_data++) {
        QEMUFile *f = host_file();

        steps = 0;
        check(host_migrate(f, 200, guest));
        check(host_delivered(f));
        same(host.overlaps, 0);
        host_file_free(f);
    }
    host_end();
    return 0;
}
