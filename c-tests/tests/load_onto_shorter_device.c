/* SPDX-License-Identifier: GPL-2.0-only */
/* A device that is shorter by less than a chunk: data past its end is an error that names it and both lengths, or is
 * dropped where the host accepts that. */
#include "host.h"
#include "test.h"

int main(void)
{
    BlkMigOptions options = { .struct_size = sizeof(options) };
    QEMUFile *f = host_file();
    BlockDriverState *bs = host_disk("short-disk", CHUNK_SECTORS + 5);

    host_start();
    host_put_block(f, "short-disk", CHUNK_SECTORS, 0x33);
    host_put_end(f);
    err(host_load(f), EINVAL);
    same(bs->writes, 0);
    check(host_said("short-disk"));
    check(host_said("1051136"));
    check(host_said("2097152"));

    options.accept_tail_garbage = 1;
    ok(blk_mig_set_options(&options));
    ok(host_load(f));
    same(bs->writes, 5);
    same(bs->data[CHUNK + 5 * SECTOR - 1], 0x33);
    same(host.bad_requests, 0);
    host_file_free(f);
    host_end();
    return 0;
}
