/* SPDX-License-Identifier: GPL-2.0-only */
/* Before load of the section that says 100 % returns, every device that any section wrote to is flushed; an error of
 * it fails the load and names the device. */
#include "host.h"
#include "test.h"

static QEMUFile *stream(void)
{
    QEMUFile *f = host_file();

    host_put_block(f, "early", 0, 0x11);
    host_put_end(f);
    host_put_block(f, "late", 0, 0x22);
    host_put_record(f, 100, 0x04);
    host_put_end(f);
    return f;
}

int main(void)
{
    BlockDriverState *early = host_disk("early", CHUNK_SECTORS), *late = host_disk("late", CHUNK_SECTORS);
    BlockDriverState *other = host_disk("other", CHUNK_SECTORS);
    QEMUFile *f = stream(), *again = stream();

    host.disk_flush = 1;
    for (host.async_writes = 0; host.async_writes < 2; host.async_writes++) {
        host_start();
        ok(host_load(f));
        check(early->flushes > 0 && late->flushes > 0);
        same(early->unflushed, 0);
        same(late->unflushed, 0);
        same(other->flushes, 0);

        for (int nth = 1; nth <= 2; nth++) {
            host.errors[0] = 0;
            host_fail(H_DISK_FLUSH, nth, -ENOSPC);
            err(host_load(again), ENOSPC);
            check(host_said(nth == 1 ? "early" : "late"));
        }
    }
    host_file_free(f);
    host_file_free(again);
    host_end();
    return 0;
}
