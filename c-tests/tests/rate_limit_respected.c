/* SPDX-License-Identifier: GPL-2.0-only */
/* In one step, the stream gets no more than its limit and the block that reaches the limit. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file();
    size_t before = 0;

    host_disk("vda", 16 * CHUNK_SECTORS);
    host_start();
    f->rate = 2 * MIB;
    f->limit = 2 * MIB;
    host.save_live(host.mon, f, 1, host.opaque);
    for (int i = 0; i < 100 && !host_iterate(f, 1); i++) {
        check(f->size - before <= 3 * MIB);
        before = f->size;
    }
    host.save_live(host.mon, f, 3, host.opaque);
    check(host_delivered(f));
    host_file_free(f);
    host_end();
    return 0;
}
