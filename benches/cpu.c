/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a migration costs in CPU time and memory, the source and the destination each for itself. The memory of the
 * disks is there before; nothing waits.
 */
#include "bench.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* The section's end comes after so many chunks of the stream that a destination gets. */
#define SECTION_CHUNKS 64

static double cpu_seconds(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

/* A line of /proc/self/status, in KiB. */
static int64_t memory(const char *line)
{
    char text[256];
    int64_t kib = 0;
    FILE *status = fopen("/proc/self/status", "r");

    while (status && fgets(text, sizeof(text), status)) {
        if (strncmp(text, line, strlen(line)) == 0) {
            kib = strtoll(text + strlen(line) + 1, NULL, 10);
        }
    }
    if (status) {
        fclose(status);
    }
    return kib;
}

/* The peak counts from here. */
static void reset_peak(void)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY);

    if (fd < 0 || write(fd, "5", 1) != 1) {
        fail("can't reset the peak of the memory use");
    }
    close(fd);
}

/* Alone in a function of its own, for callgrind's --toggle-collect. */
static __attribute__((noinline)) void measured(void (*run)(QEMUFile *f), QEMUFile *f)
{
    run(f);
    __asm__ volatile("");
}

static void measure(void (*run)(QEMUFile *f), QEMUFile *f, double gib)
{
    bool peak = !param("callgrind", 0);
    int64_t before = memory("VmRSS");
    double start = cpu_seconds();

    if (peak) {
        reset_peak();
    }
    measured(run, f);
    figure("cpu_s_per_gib", (cpu_seconds() - start) / gib);
    if (peak) {
        figure("rss_growth_mib", (double)(memory("VmHWM") - before) / 1024);
    }
    if (f->error) {
        fail("the migration failed");
    }
}

static BlockDriverState *filled_disk(void)
{
    BlockDriverState *bs = disk_new(param("mib", 1024) * MIB, true);

    disk_fill(bs, (int)param("zero_percent", 0));
    if (param("holes", 0)) {
        disk_make_holes(bs);
    }
    return bs;
}

static double gib(const BlockDriverState *bs)
{
    return (double)bs->sectors * SECTOR / (double)(1 << 30);
}

/* A host with an event loop: between two calls it runs what has completed. */
static void migrate(QEMUFile *f)
{
    module.set_params(1, 0, module.opaque);
    module.save_live(NULL, f, 1, module.opaque);
    do {
        advance(now);
        stream_step(f);
    } while (!module.save_live(NULL, f, 2, module.opaque) && !f->error);
    aio_flush();
    f->step_limit = 0;
    module.save_live(NULL, f, 3, module.opaque);
}

void bench_source(void)
{
    static QEMUFile f;
    BlockDriverState *bs = filled_disk();

    f.sink = param("copy", 0) ? SINK_COPY : SINK_DISCARD;
    f.step_limit = param("step_mib", 16) * MIB;
    measure(migrate, &f, gib(bs));
    figure("wire_mib", (double)f.bytes / (double)MIB);
}

/* ---- the destination ---- */

static uint8_t *put_word(uint8_t *at, uint64_t v)
{
    for (int i = 0; i < 8; i++) {
        *at++ = (uint8_t)(v >> (56 - 8 * i));
    }
    return at;
}

/* The stream that either module would have sent. */
static void make_stream(QEMUFile *f, const BlockDriverState *from)
{
    size_t name = strlen(from->name);
    size_t size = (size_t)from->chunks * (CHUNK + 8 + 1 + name + 8);
    uint8_t *stream = memory_new(size);
    uint8_t *at = stream;

    for (int64_t chunk = 0; chunk < from->chunks; chunk++) {
        at = put_word(at, (uint64_t)chunk * CHUNK_SECTORS << 9 | 0x01);
        *at++ = (uint8_t)name;
        memcpy(at, from->name, name);
        memcpy(at + name, from->data + chunk * CHUNK, CHUNK);
        at += name + CHUNK;
        if (chunk % SECTION_CHUNKS == SECTION_CHUNKS - 1 || chunk == from->chunks - 1) {
            at = put_word(at, 0x02);
        }
    }
    f->input = stream;
    f->input_left = (size_t)(at - stream);
}

static void load(QEMUFile *f)
{
    while (f->input_left > 0 || f->at < f->fill) {
        if (module.load(f, module.opaque, 1) < 0) {
            f->error = -1;
            return;
        }
    }
}

static void check_copy(const BlockDriverState *bs, const uint8_t *expected)
{
    static const uint8_t zeroes[CLUSTER];

    for (int64_t i = 0; i < bs->sectors * SECTOR / CLUSTER; i++) {
        const uint8_t *is = bs->hole[i] ? zeroes : bs->data + i * CLUSTER;
        if (memcmp(is, expected + i * CLUSTER, CLUSTER) != 0) {
            fail("the destination differs from the source");
        }
    }
}

void bench_destination(void)
{
    static QEMUFile f;
    BlockDriverState *bs = filled_disk();
    uint8_t *source = bs->data;

    make_stream(&f, bs);
    f.buffered = param("buffered", 0);
    bs->data = memory_new((size_t)bs->sectors * SECTOR);
    disk_touch(bs);
    measure(load, &f, gib(bs));
    check_copy(bs, source);
}
