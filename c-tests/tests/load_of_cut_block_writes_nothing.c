/* SPDX-License-Identifier: GPL-2.0-only */
/* B-15: The original wrote old memory to the disk when the stream ended within a block. Nothing of such a block
 * may be written. */
#include "host.h"
#include "test.h"

int main(void)
{
    static const size_t cuts[] = { 12 + CHUNK / 2, 12 + CHUNK - 1, 13, 12, 11, 9, 8, 7, 1, 0 };
    BlockDriverState *bs = host_disk("vda", CHUNK_SECTORS);

    host_start();
    for (unsigned i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        QEMUFile *f = host_file();
        int ret;

        host_put_block(f, "vda", 0, 0xbb);
        host_put_end(f);
        f->size = cuts[i];
        ret = host.load(f, host.opaque, 1);
        same(bs->writes, 0);
        same(ret, -EIO);
        host_file_free(f);
    }
    host_end();
    return 0;
}
