/* SPDX-License-Identifier: GPL-2.0-only */
/* Zero records and runs of zeroes are written by write_zeroes if the host has it, otherwise as data. */
#include "host.h"
#include "test.h"

static BlockDriverState *bs;

static int load(void)
{
    QEMUFile *f = host_file();
    int ret;

    memset(bs->data, 0xff, (size_t)(bs->sectors * SECTOR));
    host_put_block(f, "vda", 0, 0x31);
    host_put_zero(f, "vda", CHUNK_SECTORS);
    host_put_block(f, "vda", 2 * CHUNK_SECTORS, 0);
    host_put_zero(f, "vda", 3 * CHUNK_SECTORS);
    host_put_zero(f, "vda", 0);
    host_put_block(f, "vda", CHUNK_SECTORS, 0x32);
    host_put_end(f);
    ret = host_load(f);
    host_file_free(f);
    return ret;
}

static void check_disk(void)
{
    for (int64_t i = 0; i < bs->sectors * SECTOR; i++) {
        if (bs->data[i] != (i / CHUNK == 1 ? 0x32 : 0)) {
            fail("byte %lld is 0x%x", (long long)i, bs->data[i]);
        }
    }
}

int main(void)
{
    int zeroed;

    bs = host_disk("vda", 3 * CHUNK_SECTORS + 7);
    for (host.zeroes = 0; host.zeroes < 2; host.zeroes++) {
        for (host.async_writes = 0; host.async_writes < 2; host.async_writes++) {
            for (bs->cluster = 0; bs->cluster <= 65536; bs->cluster += 65536) {
                host_start();
                zeroed = host.calls[H_ZEROES];
                ok(load());
                check_disk();
                check(!host.zeroes || host.calls[H_ZEROES] > zeroed);
            }
        }
    }
    host.zeroes = 1;
    host_start();
    host_fail(H_ZEROES, 0, -ENOTSUP);
    ok(load());
    check_disk();
    host_fail(H_ZEROES, 0, -ENOSPC);
    err(load(), ENOSPC);
    host_end();
    return 0;
}
