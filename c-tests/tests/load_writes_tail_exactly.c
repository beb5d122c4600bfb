/* SPDX-License-Identifier: GPL-2.0-only */
/* B-16: QEMU 2.10 to 9.0 wrote whole clusters past the end of a device whose size is no multiple of them. Of the
 * last block exactly the device's sectors must be written. */
#include "host.h"
#include "test.h"

int main(void)
{
    const BlkMigOptions options = { .struct_size = sizeof(options), .accept_tail_garbage = 1 };
    QEMUFile *f = host_file();
    BlockDriverState *bs = host_disk("vda", CHUNK_SECTORS + 5);
    uint8_t *want;

    bs->cluster = 65536;
    host.zeroes = 1;
    host_start();
    /* The blocks of this test are full up to the end of the chunk, as those of old sources may be. */
    blk_mig_set_options(&options);
    host_put_block(f, "vda", 0, 0x22);
    host_put_block(f, "vda", CHUNK_SECTORS, 0);
    host_put_block(f, "vda", CHUNK_SECTORS, 0x33);
    host_put_zero(f, "vda", CHUNK_SECTORS);
    host_put_end(f);
    ok(host_load(f));
    same(bs->writes, CHUNK_SECTORS + 3 * 5);
    same(host.bad_requests, 0);
    want = calloc(1, CHUNK + 5 * SECTOR);
    memset(want, 0x22, CHUNK);
    ok(memcmp(bs->data, want, CHUNK + 5 * SECTOR));
    free(want);
    host_file_free(f);
    host_end();
    return 0;
}
