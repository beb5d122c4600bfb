/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A hypervisor in memory: disks, a stream and a clock that a test controls. Nothing happens unless the test or the
 * module makes it happen, so every run is the same; HOST_THREAD is the exception.
 *
 * A test makes disks, calls host_start(), drives the module through host.save_live and host.load (or the functions of
 * blkmig.h), and ends with host_end(), which checks that the module has released everything.
 */
#ifndef HOST_H
#define HOST_H

#include "blkmig.h"

#define SECTOR 512
#define CHUNK (1 << 20)
#define CHUNK_SECTORS (CHUNK / SECTOR)
#define MIB ((int64_t)1 << 20)
#define MS ((int64_t)1000000)

struct BlockDriverState {
    const char *name;
    int64_t sectors;
    uint8_t *data;              /* NULL (a thin disk): reads do not change the buffer, writes do nothing */
    uint8_t *base;              /* what the destination has at first; NULL: other data */
    int64_t length;             /* what getlength returns: bytes, or -errno, as requests then do, too */
    int ref_result;             /* what ref returns */
    int read_only;
    int cluster;                /* what cluster_size returns */
    int (*is_allocated)(BlockDriverState *bs, int64_t sector, int nb_sectors, int *pnum);   /* NULL: all of it */
    int refs, tracking, activated, flushes;
    int unlisted;               /* iterate and find skip it */
    int64_t unflushed;          /* sectors written by the module since the last flush */
    int64_t writes;             /* sectors written by the module */
    uint8_t *dirty;             /* a byte for each chunk, or unit of host.granularity */
    uint8_t *reading;           /* reads in flight, a byte for each chunk */
    BlockDriverState *next;
};

struct QEMUFile {
    uint8_t *buf;
    size_t size, room;
    size_t pos;                 /* where get_* reads */
    int discard;                /* count what is put, but keep none of it */
    int error;
    int64_t rate;               /* what get_rate_limit returns */
    size_t limit;               /* bytes in a step after which rate_limit says stop; 0: never */
    size_t sent;                /* in this step */
    int fail_after;             /* puts until the stream breaks with -EPIPE; 0: never */
    int held;                   /* buffers of put_buffer_nocopy not released yet */
    struct held *kept;          /* those buffers */
};

struct Monitor {
    char text[1 << 16];
    int stray;                  /* output without a monitor */
};

/* The calls that can be counted and made to fail. */
enum host_call {
    H_TRACK, H_ALLOCATED, H_AIO_READ, H_READ_DONE, H_AIO_WRITE, H_WRITE_DONE, H_WRITE, H_ZEROES, H_ACTIVATE,
    H_FLUSH, H_WAIT, H_DISK_FLUSH, H_CALLS
};

enum host_aio {
    HOST_QUEUE,                 /* requests wait for host_complete, host_step, aio_wait or aio_flush */
    HOST_INLINE,                /* they complete before aio_read or aio_write returns */
    HOST_THREAD                 /* another thread completes them */
};

struct host {
    /* what the test chooses, before host_start where it says so */
    enum host_aio aio;          /* before */
    uint32_t flags;             /* before: BLK_MIG_HOST_THREADED or 0 */
    int nocopy;                 /* before: the stream has put_buffer_nocopy */
    int async_writes;           /* before: the disks have aio_write */
    int zeroes;                 /* before: the disks have write_zeroes, is_zero and cluster_size */
    int no_wait;                /* before: there is no aio_wait */
    int disk_flush;             /* before: the disks have flush */
    int granularity;            /* before the first disk: bytes that a dirty bit stands for; 0: a chunk, and there is
                                 * no such function */
    int hold;                   /* host_step completes nothing */
    int lifo;                   /* the last request completes first */
    int late_data;              /* a read takes its data when it completes, not when it starts */
    int lying_flush;            /* aio_flush returns with requests in flight */
    int twice;                  /* completions are called twice */
    int null_then_cb;           /* a read that could not start calls its completion, too */
    int64_t latency;            /* ns that pass before each completion; 1 ms at first */
    int64_t step;               /* ns that pass at each host_step; 100 ms at first */
    uint64_t max_downtime;      /* ns; 30 ms at first */
    void (*on_read)(BlockDriverState *bs, int64_t sector);   /* in aio_read, once the data is taken */
    void (*on_write)(BlockDriverState *bs, int64_t sector);  /* in aio_write */
    /* what the module did */
    int calls[H_CALLS];
    int in_flight, most_in_flight;
    int overlaps;               /* reads of a chunk that already had one in flight */
    int misaligned;             /* buffers not aligned to 4096 */
    int bad_requests;           /* of no sectors, or outside the device */
    int unheld;                 /* requests that ended when their device had no reference any more */
    int registered;
    char errors[1 << 16];       /* error_report, and what log said of level 1 */
    char log[1 << 16];          /* log: a line for each message, after its level */
    Monitor monitor;
    Monitor *mon;               /* what the stages get: &monitor at first */
    int64_t now;
    BlockDriverState *disks;
    BlkMigSetParams *set_params;
    BlkMigSaveLive *save_live;
    BlkMigLoad *load;
    void *opaque;
};

extern struct host host;

/* A disk with random content (seeded by its name), or a thin one. Added at the end of the list. */
BlockDriverState *host_disk(const char *name, int64_t sectors);
BlockDriverState *host_thin_disk(const char *name, int64_t sectors);

/* The tables that host_start passes to the module; a test may change them before. */
BlkMigHost *host_tables(void);

/* Gives the module its host, calls blk_mig_init and takes the handlers that it registers. */
void host_start(void);

/* Checks that nothing is active and that no reference, buffer, request or tracking is left; frees everything. */
void host_end(void);

QEMUFile *host_file(void);
void host_file_free(QEMUFile *f);

/* The nth call from now on fails with ret (aio calls: cannot start); nth 0: all calls from now on. */
void host_fail(enum host_call call, int nth, int ret);

/* Completes up to max requests in flight; returns how many. */
int host_complete(int max);

/* A step of the host's main loop: a new budget for the stream, completions unless held, then a step of the clock. f
 * may be NULL. */
void host_step(QEMUFile *f);

/* The guest writes `byte` all over these sectors. */
void host_guest_write(BlockDriverState *bs, int64_t sector, int nb_sectors, int byte);

/* Stage 1, stage 2 up to `steps` times, stage 3. between (may be NULL) is called before each stage 2. 1: completed
 * without an error; 0: the stream has an error, or stage 2 never said that it is done. */
int host_migrate(QEMUFile *f, int steps, void (*between)(QEMUFile *f));

/* Calls host_step and stage 2 up to `steps` times; returns what the last stage 2 did. */
int host_iterate(QEMUFile *f, int steps);

/* Reads the whole stream with host.load: 0 or its error. */
int host_load(QEMUFile *f);

/* 1 when error_report or log said this. */
int host_said(const char *text);

/* How many messages of log hold this. */
int host_logged(const char *text);

/* Returns the disk's content, which the caller frees, and inverts each byte on the disk. */
uint8_t *host_take(BlockDriverState *bs);

/* Gives the stream all buffers that put_buffer_nocopy kept, and releases them, on a thread of its own if so asked. */
void host_release(QEMUFile *f, int on_thread);

/* What an independent reader finds in a stream. */
struct replay {
    int complete;               /* ends with progress 100 and the end of a section */
    int sections, blocks, zero_blocks;
    int padding;                /* blocks whose padding has a byte other than zero */
    int differs;                /* writable disks that it does not rebuild */
};
struct replay host_replay(const QEMUFile *f);

/* 1 when the stream is complete and rebuilds every disk. */
int host_delivered(const QEMUFile *f);

/* Writing streams by hand. */
void host_put_record(QEMUFile *f, int64_t sector, int flags);
void host_put_block(QEMUFile *f, const char *name, int64_t sector, int byte);
void host_put_zero(QEMUFile *f, const char *name, int64_t sector);
void host_put_end(QEMUFile *f);

#endif
