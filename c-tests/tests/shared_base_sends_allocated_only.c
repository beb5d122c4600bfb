/* SPDX-License-Identifier: GPL-2.0-only */
/* With a shared base, what is allocated is sent, and nothing else. */
#include "host.h"
#include "test.h"

/* Sectors 3000 to 3009 and the last one are in the image itself. */
static int allocated(BlockDriverState *bs, int64_t sector, int nb_sectors, int *pnum)
{
    const int64_t bounds[] = { 3000, 3010, bs->sectors - 1, bs->sectors };

    for (int i = 0; i < 4; i++) {
        if (sector < bounds[i]) {
            *pnum = bounds[i] - sector < nb_sectors ? (int)(bounds[i] - sector) : nb_sectors;
            return i % 2;
        }
    }
    *pnum = 0;
    return 0;
}

int main(void)
{
    QEMUFile *f = host_file();
    BlockDriverState *bs = host_disk("vda", 200 * CHUNK_SECTORS + 3);

    bs->is_allocated = allocated;
    bs->base = malloc((size_t)(bs->sectors * SECTOR));
    memcpy(bs->base, bs->data, (size_t)(bs->sectors * SECTOR));
    memset(bs->base + 3000 * SECTOR, 0, 10 * SECTOR);
    memset(bs->base + (bs->sectors - 1) * SECTOR, 0, SECTOR);
    host_start();
    host.set_params(0, 1, host.opaque);
    check(host_migrate(f, 100, NULL));
    check(host_delivered(f));
    same(host_replay(f).blocks, 2);
    host_file_free(f);
    host_end();
    return 0;
}
