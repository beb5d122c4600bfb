/* SPDX-License-Identifier: GPL-2.0-only */
/* B-13: The original filled the last block past the device's end with whatever was in its memory. Those bytes must
 * be zeroes. */
#include "host.h"
#include "test.h"

#include <malloc.h>

int main(void)
{
    QEMUFile *f = host_file();
    struct replay replay;

    mallopt(M_PERTURB, 0xa5);   /* what malloc hands out is not zero by chance */
    host_disk("vda", 9 * CHUNK_SECTORS + 3);
    host_disk("vdb", 1);
    host_start();
    check(host_migrate(f, 100, NULL));
    check(host_delivered(f));
    replay = host_replay(f);
    same(replay.blocks, 11);
    same(replay.padding, 0);
    host_file_free(f);
    host_end();
    return 0;
}
