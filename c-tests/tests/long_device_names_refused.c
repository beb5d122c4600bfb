/* SPDX-License-Identifier: GPL-2.0-only */
/* B-23: The original cut the length of a name to one byte, so a name of over 255 bytes broke the stream. The start
 * must fail and name the device; 255 bytes must fit. */
#include "host.h"
#include "test.h"

int main(void)
{
    char name[301];
    QEMUFile *f = host_file(), *refused = host_file();
    BlockDriverState *bs;

    memset(name, 'n', sizeof(name));
    name[255] = 0;
    bs = host_disk(name, CHUNK_SECTORS);
    host_start();
    check(host_migrate(f, 100, NULL));
    check(host_delivered(f));

    name[255] = 'n';
    name[300] = 0;
    bs->name = name;
    host.save_live(host.mon, refused, 1, host.opaque);
    check(refused->error < 0);
    check(host_said("nnnnnnnn"));
    ok(blk_mig_active());
    host_file_free(f);
    host_file_free(refused);
    host_end();
    return 0;
}
