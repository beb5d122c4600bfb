/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a step, a setup and a migration cost as the device grows: the bulk phase sends every chunk, then so many in a
 * thousand are dirty, spread evenly. Nothing is copied, so what is measured is the module's own work. A run ends after
 * `seconds`: of what it did not get to there are no figures.
 */
#include "bench.h"

#include <malloc.h>
#include <time.h>

static double cpu_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static double heap(void)
{
    struct mallinfo2 info = mallinfo2();

    return (double)(info.uordblks + info.hblkhd);
}

static int step(QEMUFile *f)
{
    advance(now);
    stream_step(f);
    return module.save_live(NULL, f, 2, module.opaque);
}

/* Nothing is dirty: what a step costs on its own. */
static void idle_steps(QEMUFile *f, double deadline)
{
    double start = cpu_ns(), end = start;
    int steps = 0;

    while (steps < 100000 && end < deadline && end - start < 1e9) {
        step(f);
        steps++;
        end = cpu_ns();
    }
    figure("idle_step_ns", (end - start) / steps);
}

static void dirty_phase(QEMUFile *f, BlockDriverState *bs, int64_t every, double deadline)
{
    for (int64_t chunk = 0; chunk < bs->chunks; chunk += every) {
        disk_set_dirty(bs, chunk);
    }
    uint64_t dirty = (uint64_t)bs->dirty_count;
    double start = cpu_ns();
    uint64_t before = f->bytes;

    max_downtime = 0;
    /* Whether a step is done does not count: the original computes a negative bandwidth from 2 GiB of reads. */
    while (cpu_ns() < deadline && (f->bytes - before) / CHUNK < dirty) {
        step(f);
    }
    double moved = (double)(f->bytes - before) / (double)CHUNK;
    figure("dirty_chunks", (double)dirty);
    figure("moved_chunks", moved);
    figure("dirty_cpu_ns_per_chunk", (cpu_ns() - start) / moved);
}

/* The bulk phase; false if the time was not enough. */
static bool bulk_phase(QEMUFile *f, BlockDriverState *bs, double deadline)
{
    double start = cpu_ns();

    while (!step(f)) {
        if (cpu_ns() >= deadline) {
            return false;
        }
    }
    figure("bulk_cpu_ns_per_chunk", (cpu_ns() - start) / (double)bs->chunks);
    return true;
}

void bench_scale(void)
{
    static QEMUFile f;
    BlockDriverState *bs = disk_new(param("gib", 16) << 30, false);
    double deadline = cpu_ns() + (double)param("seconds", 120) * 1e9;

    f.sink = SINK_VERSIONS;
    f.step_limit = param("step_mib", 64) * MIB;
    disk_track_versions(bs);
    module.set_params(1, 0, module.opaque);
    double before = heap(), start = cpu_ns();
    module.save_live(NULL, &f, 1, module.opaque);
    figure("setup_bytes_per_chunk", (heap() - before) / (double)bs->chunks);
    figure("setup_ns", cpu_ns() - start);

    if (!bulk_phase(&f, bs, deadline)) {
        return;
    }
    idle_steps(&f, deadline);
    dirty_phase(&f, bs, 1000 / param("dirty_permille", 10), deadline);
    if (cpu_ns() < deadline) {
        module.save_live(NULL, &f, 3, module.opaque);
        figure("total_cpu_s", (cpu_ns() - start) * 1e-9);
        figure("lost_chunks", (double)lost_chunks());
    }
}
