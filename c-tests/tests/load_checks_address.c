/* SPDX-License-Identifier: GPL-2.0-only */
/* B-14: The original did not check a block's address against the device. A block that is not within the device
 * must be refused, and nothing be written. */
#include "host.h"
#include "test.h"

int main(void)
{
    BlockDriverState *bs = host_disk("vda", 3 * CHUNK_SECTORS);
    const int64_t sectors[] = {
        bs->sectors, bs->sectors + 1, bs->sectors + CHUNK_SECTORS, 1LL << 31, 1LL << 32, (1LL << 32) + 2048, 1LL << 40,
        (1LL << 54) + 2048, (1LL << 55) - 1,
    };

    host_start();
    for (unsigned i = 0; i < sizeof(sectors) / sizeof(sectors[0]); i++) {
        QEMUFile *f = host_file();

        host_put_block(f, "vda", sectors[i], 0xbb);
        host_put_end(f);
        err(host_load(f), EINVAL);
        same(bs->writes, 0);
        same(host.bad_requests, 0);
        host_file_free(f);
    }
    host_end();
    return 0;
}
