/* SPDX-License-Identifier: GPL-2.0-only */
/* A completion that is called twice, or for a read that could not start, does no harm: no wrong data is sent as
 * good. */
#include "host.h"
#include "test.h"

int main(void)
{
    BlockDriverState *bs = host_disk("vda", 4 * CHUNK_SECTORS);

    host.async_writes = 1;
    for (host.aio = HOST_QUEUE; host.aio <= HOST_INLINE; host.aio++) {
        QEMUFile *f = host_file(), *failed = host_file(), *again = host_file();
        uint8_t *want;

        host_start();
        host.twice = 1;
        check(host_migrate(f, 100, NULL));
        check(host_delivered(f));
        want = host_take(bs);
        ok(host_load(f));
        ok(memcmp(bs->data, want, 4 * CHUNK));
        free(want);
        host.twice = 0;

        host.null_then_cb = 1;
        host_fail(H_AIO_READ, 2, -1);
        check(!host_migrate(failed, 100, NULL) || host_delivered(failed));
        host.null_then_cb = 0;
        check(host_migrate(again, 100, NULL));
        check(host_delivered(again));
        host_file_free(f);
        host_file_free(failed);
        host_file_free(again);
    }
    host_end();
    return 0;
}
