/* SPDX-License-Identifier: GPL-2.0-only */
/* Zero records are sent when asked for, and are always understood. */
#include "host.h"
#include "test.h"

int main(void)
{
    BlkMigOptions o = { .struct_size = sizeof(o), .zero_blocks = 1 };
    BlkMigStats s = { .struct_size = sizeof(s) };
    QEMUFile *plain = host_file(), *f = host_file();
    BlockDriverState *bs = host_disk("vda", 5 * CHUNK_SECTORS + 3);
    uint8_t *want;

    memset(bs->data + CHUNK, 0, 3 * CHUNK);
    bs->data[3 * CHUNK - 1] = 1;
    memset(bs->data + 5 * CHUNK, 0, 3 * SECTOR);
    host_start();
    check(host_migrate(plain, 100, NULL));
    same(host_replay(plain).zero_blocks, 0);

    ok(blk_mig_set_options(&o));
    check(host_migrate(f, 100, NULL));
    check(host_delivered(f));
    same(host_replay(f).zero_blocks, 3);
    ok(blk_mig_get_stats(&s));
    same(s.chunks_zero, 3);
    want = host_take(bs);
    ok(host_load(f));
    ok(memcmp(bs->data, want, (size_t)(bs->sectors * SECTOR)));
    free(want);
    host_file_free(plain);
    host_file_free(f);
    host_end();
    return 0;
}
