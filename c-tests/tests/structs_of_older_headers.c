/* SPDX-License-Identifier: GPL-2.0-only */
/* A host that was built against the header of 1.0: what its structs have no room for is not read, and counts as NULL
 * or 0. */
#include "host.h"
#include "test.h"
#include <stddef.h>

static int strange_flush(BlockDriverState *bs)
{
    fail("%s: flush was called, which this host can't know of", bs->name);
}

static QEMUFile *stream(int64_t sector)
{
    QEMUFile *f = host_file();

    host_put_block(f, "vda", sector, 0x55);
    host_put_record(f, 100, 0x04);
    host_put_end(f);
    return f;
}

int main(void)
{
    BlockDriverState *bs = host_disk("vda", CHUNK_SECTORS + 5);
    BlkMigOptions options = {
        .struct_size = offsetof(BlkMigOptions, accept_tail_garbage), .max_buffers = 8, .accept_tail_garbage = 1,
    };
    QEMUFile *f = host_file(), *whole = stream(0), *tail = stream(CHUNK_SECTORS);
    BlkMigHost tables;
    BlkMigBdrvOps bdrv;

    host_start();
    tables = *host_tables();
    bdrv = *tables.bdrv;
    bdrv.struct_size = offsetof(BlkMigBdrvOps, flush);
    bdrv.flush = strange_flush;
    tables.bdrv = &bdrv;
    ok(blk_mig_set_host(&tables));
    ok(blk_mig_set_options(&options));
    check(host_migrate(f, 100, NULL));
    check(host_delivered(f));

    ok(host_load(whole));
    same(bs->data[0], 0x55);
    same(bs->activated, 1);
    err(host_load(tail), EINVAL);
    same(bs->writes, CHUNK_SECTORS);

    /* The same host, built again. */
    options.struct_size = sizeof(options);
    ok(blk_mig_set_options(&options));
    ok(host_load(tail));
    same(bs->writes, CHUNK_SECTORS + 5);
    host.disk_flush = 1;
    ok(blk_mig_set_host(host_tables()));
    ok(host_load(whole));
    same(bs->flushes, 1);
    host_file_free(f);
    host_file_free(whole);
    host_file_free(tail);
    host_end();
    return 0;
}
