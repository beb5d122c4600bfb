/* SPDX-License-Identifier: GPL-2.0-only */
/* B-12: The original's map of reads in flight was too short on small disks, and it read and wrote past the map's
 * end. Accesses must stay in bounds (a sanitizer or valgrind sees it). */
#include "host.h"
#include "test.h"

int main(void)
{
    static const int chunks[] = { 1, 7, 8, 9, 63, 64, 65 };

    host_start();
    for (unsigned i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
        QEMUFile *f = host_file();
        BlockDriverState *bs = host_thin_disk("vda", (int64_t)chunks[i] * CHUNK_SECTORS);

        f->discard = 1;
        host.save_live(host.mon, f, 1, host.opaque);
        check(host_iterate(f, 200));
        host_guest_write(bs, 0, chunks[i] * CHUNK_SECTORS, 1);
        host_iterate(f, 1);
        check(host_iterate(f, 200));
        host_step(f);
        host.save_live(host.mon, f, 3, host.opaque);
        ok(f->error);
        check((int64_t)f->size > chunks[i] * MIB);
        host_file_free(f);
        host_end();
    }
    return 0;
}
