/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How well the module uses a link and several disks, in virtual time: every run is the same. The host is one of 2011:
 * an event loop, a step each 100 ms in which so many bytes may be put; it calls the module when a step begins and
 * when reads have completed, for as long as the step takes more.
 */
#include "bench.h"

#define MS (SECOND / 1000)

static int64_t step_ns(void)
{
    return param("step_ms", 100) * MS;
}

/* Runs the migration up to its last stage. Whether it came to that before the limit. */
static bool converge(QEMUFile *f, int64_t limit)
{
    bool notify = param("notify", 1);

    module.set_params(1, 0, module.opaque);
    module.save_live(NULL, f, 1, module.opaque);
    for (int64_t step_end = step_ns(); now < limit && !f->error; step_end += step_ns()) {
        stream_step(f);
        do {
            if (module.save_live(NULL, f, 2, module.opaque)) {
                return true;
            }
        } while (notify && !file_ops.rate_limit(f) && advance_to_completion(step_end) && !f->error);
        advance(step_end);
    }
    return false;
}

/* The guest has stopped. How long it stands still: until the last byte has gone over the link. */
static int64_t finish(QEMUFile *f)
{
    int64_t stopped = now;

    guest.running = false;
    aio_flush();                 /* as stopping a guest does */
    f->step_limit = 0;           /* with one, the original would leave out what it has queued: B-01 of docs/behaviour.md */
    module.save_live(NULL, f, 3, module.opaque);
    if (f->error) {
        fail("the last stage failed");
    }
    return (f->link_free_at > now ? f->link_free_at : now) - stopped;
}

static void report(QEMUFile *f, bool converged)
{
    uint64_t before = f->bytes;

    figure("converged", converged);
    if (converged) {
        figure("seconds", (double)now / (double)SECOND);
        figure("downtime_ms", (double)finish(f) / (double)MS);
        figure("last_stage_mib", (double)(f->bytes - before) / (double)MIB);
        figure("lost_chunks", (double)lost_chunks());
    } else {
        module.save_live(NULL, f, -1, module.opaque);
    }
    figure("sent_mib", (double)f->bytes / (double)MIB);
}

/* A guest that rewrites the same part of its disk over and over. */
void bench_policy(void)
{
    static QEMUFile f;
    int64_t rate = param("link_mib", 100) * MIB;
    BlockDriverState *bs = disk_new(param("mib", 1024) * MIB, false);

    virtual_time = true;
    max_downtime = (uint64_t)(param("downtime_ms", 30) * MS);
    disk_track_versions(bs);
    bs->service_ns = param("service_us", 0) * 1000;
    bs->latency_ns = param("latency_us", 10000) * 1000;
    f.sink = SINK_VERSIONS;
    f.link_rate = rate;
    f.step_limit = rate * step_ns() / SECOND;
    guest = (Guest) { .running = true, .disk = bs, .first = param("hot_first", 512), .chunks = param("hot_mib", 64),
                      .order = (int)param("order", 1),
                      .elsewhere_percent = param("elsewhere_percent", 0),
                      .period_ns = param("write_kib", 1024) * 1024 * SECOND / (rate * param("load_percent", 50) / 100) };
    report(&f, converge(&f, param("seconds", 120) * SECOND));
}

/* Several disks, the first of which is slow. */
void bench_disks(void)
{
    static QEMUFile f;
    int64_t count = param("disks", 4);

    virtual_time = true;
    max_downtime = (uint64_t)(param("downtime_ms", 30) * MS);
    for (int64_t i = 0; i < count; i++) {
        BlockDriverState *bs = disk_new(param("mib", 256) * MIB, false);
        disk_track_versions(bs);
        bs->service_ns = param("service_us", 1000) * 1000 * (i == param("slow", 0) ? 10 : 1);
        bs->latency_ns = param("latency_us", 0) * 1000;
    }
    f.sink = SINK_VERSIONS;
    f.step_limit = param("step_mib", 1024) * MIB;
    report(&f, converge(&f, 600 * SECOND));
    double total = (double)now / (double)SECOND, busy = 0, longest = 0;
    for (int64_t i = 0; i < count; i++) {
        double disk = (double)disk_at((int)i)->busy_ns / (double)SECOND;
        busy += disk;
        longest = disk > longest ? disk : longest;
    }
    figure("total_seconds", total);
    figure("disks_at_work", busy / total);
    figure("slowest_disk_seconds", longest);
}
