/* SPDX-License-Identifier: GPL-2.0-only */
/* Row 19: an empty device and one with no drive behind it are skipped, and the others migrate. */
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
