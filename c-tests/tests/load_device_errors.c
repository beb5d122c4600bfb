/* SPDX-License-Identifier: GPL-2.0-only */
/* What a device of the destination can do wrong: the section fails with its error, which names it, and nothing
 * hangs. */
#include "host.h"
#include "test.h"

static BlockDriverState *bs;
static int64_t before;

static int load(void)
{
    QEMUFile *f = host_file();
    int ret;

    before = bs->writes;
    host.errors[0] = 0;
    for (int i = 0; i < 4; i++) {
        host_put_block(f, "bad-disk", i * CHUNK_SECTORS, 0x40 + i);
    }
    host_put_record(f, 100, 0x04);
    host_put_end(f);
    ret = host_load(f);
    same(host.in_flight, 0);
    if (ret < 0 && !host_said("bad-disk")) {
        fail("\"%s\" does not name the device", host.errors);
    }
    host_file_free(f);
    return ret;
}

int main(void)
{
    bs = host_disk("bad-disk", 4 * CHUNK_SECTORS);
    for (host.async_writes = 0; host.async_writes < 2; host.async_writes++) {
        host_start();
        ok(load());

        bs->length = -EPERM;
        err(load(), EPERM);
        bs->length = 0;
        check(load() < 0);
        bs->length = 4 * CHUNK - 1;
        check(load() < 0);
        bs->length = 4 * CHUNK;
        bs->read_only = 1;
        check(load() < 0);
        bs->read_only = 0;
        bs->ref_result = -EBUSY;
        err(load(), EBUSY);
        bs->ref_result = 0;
        host_fail(H_ACTIVATE, 0, -EPERM);
        err(load(), EPERM);
        same(bs->writes, before);
        host_fail(H_ACTIVATE, 0, 0);

        for (int nth = 1; nth <= 4; nth++) {
            host_fail(host.async_writes ? H_WRITE_DONE : H_WRITE, nth, -ENOSPC);
            err(load(), ENOSPC);
        }
        if (host.async_writes) {
            host_fail(H_AIO_WRITE, 2, -1);
            err(load(), EIO);
        }
        ok(load());
        same(bs->writes - before, 4 * CHUNK_SECTORS);
        same(bs->data[4 * CHUNK - 1], 0x43);
    }
    host_end();
    return 0;
}
