/* SPDX-License-Identifier: GPL-2.0-only */
/* B-08: With a high rate limit the original read the whole disk into memory. At most 64 chunks may be in memory,
 * whatever the limit. */
#include "host.h"
#include "test.h"

#define CHUNKS 300

int main(void)
{
    QEMUFile *f = host_file();
    int64_t held;

    host_thin_disk("vda", CHUNKS * CHUNK_SECTORS);
    host_start();
    f->discard = 1;
    f->rate = 10240 * MIB;
    f->limit = MIB;
    host.save_live(host.mon, f, 1, host.opaque);
    for (int i = 0, done = 0; i < 2 * CHUNKS && !done; i++) {
        host.hold = i < 10;
        done = host_iterate(f, 1);
        held = host.calls[H_AIO_READ] - (int64_t)f->size / MIB;
        if (held > 64) {
            fail("%lld chunks are in memory", (long long)held);
        }
    }
    same(host.calls[H_AIO_READ], CHUNKS);
    host.save_live(host.mon, f, 3, host.opaque);
    ok(f->error);
    check((int64_t)f->size > CHUNKS * MIB);
    host_file_free(f);
    host_end();
    return 0;
}
