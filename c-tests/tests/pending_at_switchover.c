/* SPDX-License-Identifier: GPL-2.0-only */
/* blk_mig_save_pending_switchover, for a host that stops the guest once pending is no more than its threshold: above
 * it until every chunk was sent once, and after that until what is left takes 10 ms at most or does not shrink.
 * Otherwise the true number, as blk_mig_save_pending always. The link takes 10 MiB in each 100 ms. */
#include "host.h"
#include "test.h"

#define CHUNKS 40

static BlockDriverState *bs;

static void step(QEMUFile *f)
{
    host_step(f);
    check(blk_mig_save_iterate(f, host.opaque) >= 0);
}

static int64_t pending(void)
{
    return (int64_t)blk_mig_save_pending(host.opaque);
}

static int64_t switchover(int64_t threshold)
{
    return (int64_t)blk_mig_save_pending_switchover(host.opaque, (uint64_t)threshold);
}

/* The guest should run on, whatever the threshold is; plain pending is what it was. */
static void must_run_on(int64_t left)
{
    static const int64_t thresholds[] = { 0, 1, MIB, 10 * MIB, CHUNKS * MIB, 1000 * MIB, INT64_MAX - 1 };

    for (size_t i = 0; i < sizeof(thresholds) / sizeof(*thresholds); i++) {
        int64_t told = switchover(thresholds[i]);

        check(told > thresholds[i]);
        check(told >= left);
    }
    check(blk_mig_save_pending_switchover(host.opaque, UINT64_MAX - 1) == UINT64_MAX);
    same(pending(), left);
}

/* The threshold decides. */
static void may_stop(int64_t left)
{
    same(switchover(0), left);
    same(switchover(left), left);
    same(switchover(1000 * MIB), left);
    same(pending(), left);
}

static QEMUFile *begin(void)
{
    QEMUFile *f = host_file();

    f->rate = f->limit = 10 * MIB;
    ok(switchover(MIB));
    ok(blk_mig_save_setup(f, host.opaque));
    must_run_on(CHUNKS * MIB);
    return f;
}

static void write_chunks(int n)
{
    host_guest_write(bs, 0, n * CHUNK_SECTORS, n + (int)(host.now / MS));
}

/* The bulk phase of a guest that writes nothing, until nothing is left. */
static void bulk(QEMUFile *f)
{
    int64_t left = CHUNKS * MIB;

    for (int i = 0; i < 20 && blk_mig_bulk_active(); i++) {
        must_run_on(left);
        step(f);
        left = CHUNKS * MIB - host_replay(f).blocks * MIB;
    }
    check(!blk_mig_bulk_active());
    for (int i = 0; i < 20 && pending() > 0; i++) {
        step(f);
    }
    may_stop(0);
}

static void end(QEMUFile *f)
{
    host_step(f);
    ok(blk_mig_save_complete(f, host.opaque));
    check(host_delivered(f));
    ok(switchover(MIB));
    host_file_free(f);
}

/* The guest writes a lot during the bulk phase and nothing afterwards: what is left is sent while it runs. */
static void shrinks(void)
{
    QEMUFile *f = begin();
    int rounds = 0;

    while (blk_mig_bulk_active()) {
        write_chunks(30);
        must_run_on(pending());
        check(++rounds < 40);
        step(f);
    }
    check(pending() > 20 * MIB);
    for (rounds = 0; pending() > MIB; rounds++) {
        must_run_on(pending());
        check(rounds < 20);
        step(f);
    }
    check(rounds > 2);
    may_stop(pending());
    end(f);
}

/* What takes 10 ms at most is little enough. */
static void is_little(void)
{
    QEMUFile *f = begin();

    bulk(f);
    write_chunks(1);
    may_stop(MIB);
    write_chunks(2);
    must_run_on(2 * MIB);
    end(f);
}

/* It keeps writing to the same 6 MiB, 60 ms of the link: after a while they may take what the host's limit allows. */
static void does_not_shrink(void)
{
    QEMUFile *f = begin();
    int rounds = 0;

    bulk(f);
    for (;;) {
        write_chunks(6);
        if (switchover(1000 * MIB) <= 1000 * MIB) {
            break;
        }
        must_run_on(pending());
        check(++rounds < 20);
        step(f);
    }
    check(rounds > 1);
    check(pending() >= 6 * MIB);
    may_stop(pending());
    check(switchover(MIB) > MIB);
    end(f);
}

/* On a link that could take all of it in 10 ms, too, the bulk phase is for the guest that runs. */
static void is_fast(void)
{
    BlkMigStats s = { .struct_size = sizeof(s) };
    QEMUFile *f = begin();

    f->limit = 0;
    host.latency = MS / 100;
    step(f);
    step(f);
    ok(blk_mig_get_stats(&s));
    check(s.expected_downtime_ns > 0 && s.expected_downtime_ns < (uint64_t)(10 * MS));
    check(blk_mig_bulk_active());
    /* So are the reads that are still in flight when it ends. */
    for (int i = 0; i < 20 && pending() > 0; i++) {
        must_run_on(pending());
        step(f);
    }
    may_stop(0);
    host.latency = MS;
    end(f);
}

int main(void)
{
    bs = host_disk("vda", CHUNKS * CHUNK_SECTORS);
    host_start();
    shrinks();
    is_little();
    does_not_shrink();
    is_fast();
    host_end();
    return 0;
}
