/* SPDX-License-Identifier: GPL-2.0-only */
/* A whole migration of several disks of odd sizes, with a guest that keeps writing: first the source, then the
 * destination. */
#include "host.h"
#include "test.h"

static BlockDriverState *disks[3];
static int steps;

/* Writes for a while, so that the migration can end. */
static void guest(QEMUFile *f)
{
    BlockDriverState *bs = disks[steps % 3];

    (void)f;
    if (steps++ < 40) {
        host_guest_write(bs, (int64_t)steps * 977 % (bs->sectors - 3), 3, steps);
    }
}

int main(void)
{
    QEMUFile *f = host_file();
    uint8_t *want[3];

    disks[0] = host_disk("ide0-hd0", 5 * CHUNK_SECTORS + 1);
    disks[1] = host_disk("ide0-hd1", 100);
    disks[2] = host_disk("virtio0", 9 * CHUNK_SECTORS - 1);
    host_start();
    f->rate = 2 * MIB;
    f->limit = 2 * MIB;
    check(host_migrate(f, 1000, guest));
    check(host_delivered(f));
    check(steps > 8);

    for (int i = 0; i < 3; i++) {
        want[i] = host_take(disks[i]);
    }
    ok(host_load(f));
    for (int i = 0; i < 3; i++) {
        ok(memcmp(disks[i]->data, want[i], (size_t)(disks[i]->sectors * SECTOR)));
        free(want[i]);
    }
    host_file_free(f);
    host_end();
    return 0;
}
