/* SPDX-License-Identifier: GPL-2.0-only */
/* On a fast link, a migration ends even if the guest never stops writing to one chunk. */
#include "host.h"
#include "test.h"

static BlockDriverState *bs;

static void guest(QEMUFile *f)
{
    host_guest_write(bs, 2100, 1, (int)f->size);
}

int main(void)
{
    QEMUFile *f = host_file();

    bs = host_disk("vda", 4 * CHUNK_SECTORS);
    host_start();
    check(host_migrate(f, 200, guest));
    check(host_delivered(f));
    host_file_free(f);
    host_end();
    return 0;
}
