/* SPDX-License-Identifier: GPL-2.0-only */
/* B-11: After a read error in its last stage the original ran in an endless loop, with the guest stopped. The
 * error must end the migration. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file(), *again = host_file();
    BlockDriverState *bs = host_disk("vda", 2 * CHUNK_SECTORS);

    host_start();
    host.save_live(host.mon, f, 1, host.opaque);
    check(host_iterate(f, 100));
    host_step(f);
    host_guest_write(bs, 5, 1, 0x55);
    host_fail(H_READ_DONE, 0, -EIO);
    host.save_live(host.mon, f, 3, host.opaque);
    check(f->error < 0);
    check(host_replay(f).differs);

    host_fail(H_READ_DONE, 0, 0);
    check(host_migrate(again, 100, NULL));
    check(host_delivered(again));
    host_file_free(f);
    host_file_free(again);
    host_end();
    return 0;
}
