/* SPDX-License-Identifier: GPL-2.0-only */
/* B-21: The original looped forever when is_allocated answered 0 sectors. That answer, like a failure, must count
 * as allocated. */
#include "host.h"
#include "test.h"

static int answer, sectors;

static int allocated(BlockDriverState *bs, int64_t sector, int nb_sectors, int *pnum)
{
    (void)bs;
    (void)sector;
    (void)nb_sectors;
    *pnum = sectors;
    return answer;
}

int main(void)
{
    static const struct { int answer, sectors; } cases[] = { { 0, 0 }, { -EIO, 0 }, { -EIO, 64 }, { 0, -5 }, { 1, 0 } };
    BlockDriverState *bs = host_disk("vda", 3 * CHUNK_SECTORS + 1);

    bs->is_allocated = allocated;
    host_start();
    host.set_params(0, 1, host.opaque);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        QEMUFile *f = host_file();

        answer = cases[i].answer;
        sectors = cases[i].sectors;
        check(host_migrate(f, 100, NULL));
        check(host_delivered(f));
        host_file_free(f);
    }
    host_end();
    return 0;
}
