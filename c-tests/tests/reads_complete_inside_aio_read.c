/* SPDX-License-Identifier: GPL-2.0-only */
/* Reads that complete before aio_read returns. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file();

    host_disk("vda", 20 * CHUNK_SECTORS + 100);
    host.aio = HOST_INLINE;
    host_start();
    check(host_migrate(f, 100, NULL));
    check(host_delivered(f));
    host_file_free(f);
    host_end();
    return 0;
}
