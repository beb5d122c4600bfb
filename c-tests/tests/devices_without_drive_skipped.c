/* SPDX-License-Identifier: GPL-2.0-only */
/* B-19: The original followed a NULL pointer for a device with no drive behind it. Such a device, and an empty
 * one, must be skipped, and the others must migrate. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file();
    BlockDriverState *bs;

    host_disk("cd0", 0)->length = -ENOMEDIUM;
    host_disk("floppy0", 0);
    host_disk("vda", 2 * CHUNK_SECTORS);
    bs = host_disk("loose", CHUNK_SECTORS);
    bs->ref_result = -ENODEV;
    host_disk("cd1", CHUNK_SECTORS)->read_only = 1;
    host_disk("vdb", CHUNK_SECTORS + 9);
    host_start();
    check(host_migrate(f, 100, NULL));
    check(host_delivered(f));
    same(host_replay(f).blocks, 4);
    host_file_free(f);
    host_end();
    return 0;
}
