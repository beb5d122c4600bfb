/* SPDX-License-Identifier: GPL-2.0-only */
/* B-17: The original aborted when the target could not be written. It must get an error that names the device. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file();
    BlockDriverState *bs = host_disk("virtio-disk7", CHUNK_SECTORS);

    bs->read_only = 1;
    host_start();
    host_put_block(f, "virtio-disk7", 0, 0xbb);
    host_put_end(f);
    check(host_load(f) < 0);
    same(bs->writes, 0);
    check(host_said("virtio-disk7"));
    host_file_free(f);
    host_end();
    return 0;
}
