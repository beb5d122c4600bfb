/* SPDX-License-Identifier: GPL-2.0-only */
/* The destination's device is activated before its first write. */
#include "host.h"
#include "test.h"

static int activated_first;
static void (*write_seen)(BlockDriverState *bs);
static int (*real_write)(BlockDriverState *bs, int64_t sector, const uint8_t *buf, int nb_sectors);

static void note(BlockDriverState *bs)
{
    activated_first = bs->activated > 0;
    write_seen = NULL;
}

static int spying_write(BlockDriverState *bs, int64_t sector, const uint8_t *buf, int nb_sectors)
{
    if (write_seen) {
        write_seen(bs);
    }
    return real_write(bs, sector, buf, nb_sectors);
}

int main(void)
{
    BlkMigBdrvOps bdrv = *host_tables()->bdrv;
    BlkMigHost tables = *host_tables();
    QEMUFile *f = host_file();
    BlockDriverState *bs = host_disk("vda", CHUNK_SECTORS);

    real_write = bdrv.write;
    bdrv.write = spying_write;
    tables.bdrv = &bdrv;
    write_seen = note;
    host_start();
    ok(blk_mig_set_host(&tables));
    host_put_block(f, "vda", 0, 0x11);
    host_put_end(f);
    ok(host_load(f));
    same(bs->activated, 1);
    check(activated_first);
    ok(bs->refs);
    host_file_free(f);
    host_end();
    return 0;
}
