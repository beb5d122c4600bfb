/* SPDX-License-Identifier: GPL-2.0-only */
/* The host may query from within any callback: the module holds no lock while it is in the host. */
#include "host.h"
#include "test.h"

static int asked;

static void ask(BlockDriverState *bs, int64_t sector)
{
    BlkMigStats s = { .struct_size = sizeof(s) };
    char text[64];

    (void)bs;
    (void)sector;
    ok(blk_mig_get_stats(&s));
    same(blk_mig_active(), 1);
    same(blk_mig_bytes_total(), 4 * MIB);
    blk_mig_last_error(text, sizeof(text));
    asked++;
}

static int ask_allocated(BlockDriverState *bs, int64_t sector, int nb_sectors, int *pnum)
{
    ask(bs, sector);
    *pnum = nb_sectors;
    return 1;
}

int main(void)
{
    QEMUFile *f = host_file();
    BlockDriverState *bs = host_disk("vda", 4 * CHUNK_SECTORS);

    bs->is_allocated = ask_allocated;
    host.on_read = ask;
    host.aio = HOST_INLINE;
    host_start();
    host.set_params(1, 1, host.opaque);
    check(host_migrate(f, 100, NULL));
    check(asked >= 8);
    check(host_delivered(f));
    host_file_free(f);
    host_end();
    return 0;
}
