/* SPDX-License-Identifier: GPL-2.0-only */
/* Asynchronous writes that another thread completes, with aio_wait and with aio_flush alone. */
#include "host.h"
#include "test.h"

int main(void)
{
    BlockDriverState *bs = host_disk("vda", 7 * CHUNK_SECTORS + 13);
    uint8_t *want;

    host.aio = HOST_THREAD;
    host.flags = BLK_MIG_HOST_THREADED;
    host.async_writes = 1;
    host_start();
    for (int round = 0; round < 4; round++) {
        QEMUFile *f = host_file();

        host.no_wait = round % 2;
        ok(blk_mig_set_host(host_tables()));
        check(host_migrate(f, 500, NULL));
        check(host_delivered(f));
        want = host_take(bs);
        ok(host_load(f));
        ok(memcmp(bs->data, want, (size_t)(bs->sectors * SECTOR)));
        free(want);

        host_fail(H_WRITE_DONE, 3, -ENOSPC);
        f->error = 0;
        err(host_load(f), ENOSPC);
        host_file_free(f);
    }
    host_end();
    return 0;
}
