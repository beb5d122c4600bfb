/* SPDX-License-Identifier: GPL-2.0-only */
/* The buffers of reads are aligned to 4096 bytes. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file();

    host_disk("vda", 70 * CHUNK_SECTORS + 1);
    host_start();
    f->rate = 1024 * MIB;
    check(host_migrate(f, 200, NULL));
    same(host.misaligned, 0);
    host_file_free(f);
    host_end();
    return 0;
}
