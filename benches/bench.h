/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One process, a host in memory, and a module behind the tables of blkmig.h: what the module costs, and how well it
 * uses a link. Nothing here knows which module it is.
 *
 * It is not the host of c-tests/tests: that one checks each call, keeps what is sent, and counts the dirty chunks one
 * by one whenever it is asked for their number. Here the host must cost as little as it can, up to 16 TiB, and its
 * disks and its link need a speed.
 */
#ifndef BENCH_H
#define BENCH_H

#include <blkmig.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECTOR      512
#define CHUNK       (1 << 20)
#define CHUNK_SECTORS (CHUNK / SECTOR)
#define CLUSTER     65536
#define MIB         (INT64_C(1) << 20)
#define SECOND      INT64_C(1000000000)

/* ---- the module (module-bench.c) ---- */

typedef struct Module {
    BlkMigSetParams *set_params;
    BlkMigSaveLive *save_live;
    BlkMigLoad *load;
    void *opaque;
    int (*set_options)(const BlkMigOptions *options);
    int (*get_stats)(BlkMigStats *stats);
} Module;

extern Module module;

int64_t param(const char *name, int64_t otherwise);   /* name=value of the command line */
void figure(const char *name, double value);          /* one of the results */
_Noreturn void fail(const char *what);

/* ---- disks (disk.c) ---- */

struct BlockDriverState {
    char name[8];
    int64_t sectors;
    int64_t chunks;
    uint8_t *data;               /* NULL: a disk that holds nothing; its reads copy nothing */
    bool *hole;                  /* of each cluster of data: whether it is a hole, which reads as zeroes */
    uint64_t *dirty;             /* a bit for each chunk */
    int64_t dirty_count;
    bool tracking;
    int64_t service_ns;          /* a read takes the disk for so long, */
    int64_t latency_ns;          /* and arrives so much later */
    int64_t free_at;
    int64_t busy_ns;
    uint32_t *version;           /* of each chunk: how often the guest has written to it */
    uint32_t *arrived;           /* of each chunk: the version that was put into the stream last; from 1 */
};

uint8_t *memory_new(size_t bytes);
BlockDriverState *disk_new(int64_t bytes, bool with_data);
BlockDriverState *disk_at(int index);                 /* NULL: no more */
void disk_fill(BlockDriverState *bs, int zero_percent);
void disk_touch(BlockDriverState *bs);                /* takes its memory from the system */
void disk_make_holes(BlockDriverState *bs);           /* of its zero clusters */
void disk_set_dirty(BlockDriverState *bs, int64_t chunk);
void disk_track_versions(BlockDriverState *bs);
int64_t lost_chunks(void);                            /* of all disks: whose last version was not put into a stream */
extern const BlkMigBdrvOps bdrv_ops;
extern const BlkMigDirtyOps dirty_ops;

/* ---- time, requests, the guest (clock.c) ---- */

extern bool virtual_time;
extern int64_t now;                                   /* virtual */
extern uint64_t max_downtime;

typedef struct Guest {
    bool running;
    BlockDriverState *disk;
    int64_t first, chunks;       /* writes to so many, from this one */
    int64_t period_ns;           /* one write each */
    int order;                   /* 0: one after the other; 1: at random; 2: at random, some far more often than others */
    int64_t elsewhere_percent;   /* of the writes go to any chunk of the disk */
    int64_t next_ns;
    int64_t next_chunk;
} Guest;

extern Guest guest;

int64_t clock_ns(void);
void advance(int64_t until);                          /* lets the guest and the disks get on */
bool advance_to_completion(int64_t until);            /* stops earlier, after one; whether there was one */
void *aio_read(BlockDriverState *bs, int64_t sector, uint8_t *buf, int count, BlkMigCompletion *cb, void *opaque);
void *aio_write(BlockDriverState *bs, int64_t sector, const uint8_t *buf, int count, BlkMigCompletion *cb,
                void *opaque);
void aio_wait(void);
void aio_flush(void);
uint64_t random64(void);

/* ---- streams (stream.c) ---- */

typedef enum Sink { SINK_DISCARD, SINK_COPY, SINK_VERSIONS } Sink;

struct QEMUFile {
    Sink sink;
    uint64_t bytes;              /* put so far */
    int64_t step_limit;          /* bytes; 0: none */
    int64_t step_bytes;
    int64_t link_rate;           /* bytes a second; 0: no link */
    int64_t link_free_at;
    int error;
    size_t fill;
    uint8_t buffer[32768];       /* what QEMUFile has */
    uint8_t prefix[64];          /* SINK_VERSIONS: the last bytes in front of a chunk's data */
    size_t prefix_fill;
    const uint8_t *input;        /* what is to be got */
    size_t input_left;
    size_t at;
    bool buffered;               /* large pieces go through the buffer, too */
};

void stream_step(QEMUFile *f);                        /* a new step of the rate limit begins */
extern const BlkMigFileOps file_ops;

/* ---- workloads ---- */

void bench_source(void);         /* cpu.c */
void bench_destination(void);
void bench_scale(void);          /* scale.c */
void bench_policy(void);         /* link.c */
void bench_disks(void);

#endif
