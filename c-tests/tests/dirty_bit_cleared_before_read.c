/* SPDX-License-Identifier: GPL-2.0-only */
/* B-05: The original cleared the dirty bit after it had started the read, so a write in between was lost. The bit
 * must be cleared first, and such a write must be sent. */
#include "host.h"
#include "test.h"

static int writes;

static void overwrite(BlockDriverState *bs, int64_t sector)
{
    if (writes++ < 3) {
        host_guest_write(bs, sector + 7, 1, 0x70 + writes);
    }
}

int main(void)
{
    QEMUFile *f = host_file();

    host_disk("vda", 2 * CHUNK_SECTORS);
    host_start();
    host.on_read = overwrite;
    check(host_migrate(f, 100, NULL));
    check(host_delivered(f));
    host_file_free(f);
    host_end();
    return 0;
}
