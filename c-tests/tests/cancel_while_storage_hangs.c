/* SPDX-License-Identifier: GPL-2.0-only */
/* A host whose storage hangs: aio_flush returns early, with requests that do not end. Cancel and cleanup return at
 * once and give the devices back; the requests' memory stays, and they may end, well or badly, at any time after
 * that. */
#include "host.h"
#include "test.h"

static BlockDriverState *bs;

/* Sets up, starts reads and gives up while they hang. */
static void give_up(int cancel)
{
    QEMUFile *f = host_file();
    int before = host.in_flight;

    host.hold = 1;
    host.save_live(host.mon, f, 1, host.opaque);
    host_iterate(f, 1);
    same(host.in_flight - before, 4);
    host.lying_flush = 1;
    if (cancel) {
        host.save_live(host.mon, f, -1, host.opaque);
    } else {
        blk_mig_save_cleanup(host.opaque);
    }
    host.lying_flush = 0;
    same(host.in_flight - before, 4);
    ok(f->error);
    ok(blk_mig_active());
    ok(bs->refs);
    ok(bs->tracking);
    host_file_free(f);
}

/* A whole migration. In each step `late` of the old reads end before its own. */
static void migrate(int late)
{
    QEMUFile *f = host_file();
    int old = host.in_flight, done = 0;

    host.save_live(host.mon, f, 1, host.opaque);
    for (int i = 0; i < 100 && !done; i++) {
        done = host.save_live(host.mon, f, 2, host.opaque);
        host.lifo = 0;
        old -= host_complete(late < old ? late : old);
        host.lifo = 1;
        host_complete(host.in_flight - old);
        host.now += host.step;
    }
    check(done);
    host.save_live(host.mon, f, 3, host.opaque);
    ok(f->error);
    check(host_delivered(f));
    same(host.in_flight, old);
    host_file_free(f);
}

static void load_gives_up(void)
{
    QEMUFile *f = host_file();
    int64_t before = bs->writes;

    for (int i = 0; i < 4; i++) {
        host_put_block(f, "vda", i * CHUNK_SECTORS, 0x40 + i);
    }
    host_put_end(f);
    host.lying_flush = 1;
    err(host_load(f), EIO);
    host.lying_flush = 0;
    same(host.in_flight, 4);
    same(bs->writes, before);
    ok(bs->refs);

    host.log[0] = 0;
    same(host_complete(4), 4);
    same(bs->writes - before, 4 * CHUNK_SECTORS);
    for (int i = 0; i < 4; i++) {
        same(bs->data[i * CHUNK], 0x40 + i);
        same(bs->data[(i + 1) * CHUNK - 1], 0x40 + i);
    }
    host_file_free(f);
}

int main(void)
{
    BlkMigStats s = { .struct_size = sizeof(s) };
    BlkMigOptions options = { .struct_size = sizeof(options), .max_reads = 4, .max_buffers = 4 };

    bs = host_disk("vda", 6 * CHUNK_SECTORS + 9);
    host.late_data = 1;
    host.async_writes = 1;
    host.no_wait = 1;
    host_start();
    ok(blk_mig_set_options(&options));

    /* They end before the next migration; while it runs; after it. */
    give_up(0);
    host_complete(4);
    give_up(1);
    migrate(2);
    same(host.in_flight, 0);
    give_up(1);
    give_up(0);
    same(host.in_flight, 8);
    migrate(0);
    same(host.in_flight, 8);
    ok(blk_mig_get_stats(&s));
    same(s.reads_in_flight, 8);
    same(s.buffers_in_use, 8);
    host_fail(H_READ_DONE, 2, -EIO);
    same(host_complete(8), 8);
    ok(blk_mig_get_stats(&s));
    same(s.reads_in_flight, 0);
    same(s.buffers_in_use, 0);
    same(s.last_error, 0);

    load_gives_up();
    migrate(0);
    ok(blk_mig_get_stats(&s));
    same(s.buffers_in_use, 0);
    host_end();
    return 0;
}
