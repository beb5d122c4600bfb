/* SPDX-License-Identifier: GPL-2.0-only */
/* On a link that takes 1 MiB every 100 ms, stage 2 is done only when what is left fits into the allowed downtime. */
#include "host.h"
#include "test.h"

static BlockDriverState *bs;
static int hot;

static void guest(QEMUFile *f)
{
    (void)f;
    for (int i = 0; i < hot; i++) {
        host_guest_write(bs, i * CHUNK_SECTORS, 1, 1);
    }
}

/* Whether stage 2 ends while the guest writes to `hot_chunks` in each step. */
static int ends(int hot_chunks, int64_t downtime)
{
    QEMUFile *f = host_file();
    int done = 0;

    hot = hot_chunks;
    host.max_downtime = (uint64_t)downtime;
    f->rate = MIB;
    f->limit = MIB;
    host.save_live(host.mon, f, 1, host.opaque);
    for (int i = 0; i < 60 && !done; i++) {
        guest(f);
        done = host_iterate(f, 1);
    }
    if (done) {
        int64_t left = (int64_t)blk_mig_save_pending(host.opaque);

        if (left * 100 * MS > (downtime + 100 * MS) * MIB) {
            fail("done with %lld MiB left, at 10 MiB/s and %lld ms", (long long)left / MIB, (long long)(downtime / MS));
        }
    }
    host.save_live(host.mon, f, -1, host.opaque);
    host_file_free(f);
    return done;
}

int main(void)
{
    bs = host_disk("vda", 12 * CHUNK_SECTORS);
    host_start();
    check(ends(0, 30 * MS));
    check(!ends(6, 30 * MS));
    check(!ends(6, 200 * MS));
    check(ends(6, 2000 * MS));
    host_end();
    return 0;
}
