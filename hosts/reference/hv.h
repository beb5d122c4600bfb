/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The reference hypervisor, as seen by whoever migrates its disks: block devices, byte streams, a monitor and a
 * registry of savevm handlers. The signatures are those that a host puts into the tables of blkmig.h, so that
 * blkmig_host.c needs no wrappers. Nothing here knows of libblkmig.
 *
 * The functions of each section call only those of the sections above it.
 *
 * Errors are returned as -errno. Where that does not say enough, hv_failure() has a line of text.
 */
#ifndef HV_H
#define HV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/uio.h>

#define HV_SECTOR_SIZE   512
#define HV_CHUNK_SECTORS 2048              /* 1 MiB: the unit of the stream */
#define HV_CLUSTER_SIZE  65536             /* the unit of copy-on-write, and what cluster_size reports */

typedef struct BlockDriverState BlockDriverState;
typedef struct QEMUFile QEMUFile;
typedef struct Monitor Monitor;

typedef void HvCompletion(void *opaque, int ret);
typedef void HvDeviceVisitor(void *opaque, BlockDriverState *bs);
typedef void HvSetParams(int blk_enable, int shared_base, void *opaque);
typedef int  HvSaveLive(Monitor *mon, QEMUFile *f, int stage, void *opaque);
typedef int  HvLoad(QEMUFile *f, void *opaque, int version_id);

/* ---- Monitor, messages, time (monitor.c) ---- */

#define HV_CLEAR_LINE "\r\033[K"          /* of a terminal */

/* With lines_only, only whole lines are printed, not text that ends in a carriage return: that is progress, which
 * progress.c shows. Without a file, nothing is printed. */
Monitor *hv_monitor_open(FILE *out, bool lines_only);
void hv_monitor_close(Monitor *mon);
void hv_monitor_printf(Monitor *mon, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void hv_monitor_flush(Monitor *mon);

/* Keeps the first line of text until it is cleared: later ones are mostly consequences of it. Returns ret. */
int hv_fail(int ret, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *hv_failure(void);                                /* "" if there is none */
void hv_clear_failure(void);

void hv_error_report(const char *fmt, ...) __attribute__((format(printf, 1, 2)));  /* kept like hv_fail's */
void hv_log(int level, const char *message);                 /* printed to stderr up to the level set */
void hv_set_log_level(int level);
void hv_last_info(char *buf, size_t size);                   /* the last message of level 3 */

int64_t hv_clock_ns(void);
uint64_t hv_max_downtime_ns(void);
void hv_set_max_downtime_ns(uint64_t ns);

/* ---- Byte streams (file.c). Each is used by one thread. ---- */

typedef struct HvChannel {
    ssize_t (*writev)(void *opaque, const struct iovec *iov, int count);  /* bytes, or -errno; -EAGAIN: see wait */
    ssize_t (*readv)(void *opaque, const struct iovec *iov, int count);   /* bytes, 0 at the end, or -errno */
    int (*wait)(void *opaque, bool for_write);                            /* until one can go on; 0 or -errno */
    void (*close)(void *opaque);
    void *opaque;
} HvChannel;

/* Blocking: a put returns when the channel has taken the data. Otherwise the data is queued, rate_limit says when the
 * channel takes no more, and a put waits only if several MiB are queued. */
QEMUFile *hv_file_open(const HvChannel *channel, bool blocking);
void hv_file_close(QEMUFile *f);

void hv_file_put_buffer(QEMUFile *f, const uint8_t *buf, int size);
void hv_file_put_buffer_nocopy(QEMUFile *f, const uint8_t *buf, int size, void (*release)(void *opaque), void *opaque);
void hv_file_put_byte(QEMUFile *f, int v);
void hv_file_put_be64(QEMUFile *f, uint64_t v);
int hv_file_get_buffer(QEMUFile *f, uint8_t *buf, int size);
int hv_file_get_byte(QEMUFile *f);
uint64_t hv_file_get_be64(QEMUFile *f);
bool hv_file_at_end(QEMUFile *f);                            /* waits until it is known */
int hv_file_rate_limit(QEMUFile *f);
int64_t hv_file_get_rate_limit(QEMUFile *f);                 /* bytes a step; 0: none */
void hv_file_set_rate_limit(QEMUFile *f, int64_t bytes_per_second);
int64_t hv_file_step_left_ns(QEMUFile *f);                   /* until the next step of 100 ms */
int hv_file_has_error(QEMUFile *f);
void hv_file_set_error(QEMUFile *f, int ret);
int hv_file_channel_error(QEMUFile *f);                      /* like has_error, but only what the channel reported */
void hv_file_flush(QEMUFile *f);                             /* sends what the channel takes now; blocking: all */
void hv_file_drain(QEMUFile *f);                             /* sends all of it */
bool hv_file_frozen(QEMUFile *f);
uint64_t hv_file_bytes(QEMUFile *f);                         /* put or got so far; from any thread */

/* ---- Disks (disk.c, disk_io.c). Opened, closed and listed by one thread; everything else from any thread. ---- */

typedef struct HvDiskSpec {
    char *name, *path, *base;              /* base: may be NULL */
    bool read_only;
    bool left_out;                         /* writable, but not to be migrated from here */
    bool format_raw;                       /* take the file as it is, even if it looks like a qcow2 or the like */
} HvDiskSpec;

/*
 * Opens a raw image file of any size and locks it against other processes. With `base`, the holes of the file are read
 * from there; nothing is ever written there. Disks are listed in the order in which they were opened.
 */
int hv_disk_open(const HvDiskSpec *spec);

/*
 * The same for a file that does not exist yet: it gets its length, then its data, then its name. It is removed when it
 * is closed, unless hv_disk_keep was called.
 */
int hv_disk_create(const HvDiskSpec *spec);
bool hv_disk_has_no_length(BlockDriverState *bs);            /* created, but its length is not set yet */
int hv_disk_set_length(BlockDriverState *bs, uint64_t bytes);
int hv_disk_place(BlockDriverState *bs);                     /* gives a new file its name; hv_disk_keep keeps it */
const char *hv_disk_placed(BlockDriverState *bs);            /* its name if it is not kept; NULL: not placed */
void hv_disk_keep(BlockDriverState *bs);

void hv_disk_close_all(void);                                /* flush requests first */
int64_t hv_disk_bytes(BlockDriverState *bs);                 /* exact, where getlength rounds up to sectors */
bool hv_disk_has_base(BlockDriverState *bs);
int hv_disk_clear(BlockDriverState *bs);                     /* drops what the image holds on top of its base */
void hv_disk_write_back(BlockDriverState *bs);               /* starts it, and waits for what was started before */
int hv_disk_sync(BlockDriverState *bs);                      /* all of it to stable storage */

void hv_disk_iterate(HvDeviceVisitor *it, void *opaque);
BlockDriverState *hv_disk_find(const char *name);
const char *hv_disk_name(BlockDriverState *bs);
int64_t hv_disk_getlength(BlockDriverState *bs);
int hv_disk_is_read_only(BlockDriverState *bs);
bool hv_disk_migrates(BlockDriverState *bs);
int hv_disk_is_allocated(BlockDriverState *bs, int64_t sector, int nb_sectors, int *pnum);
int hv_disk_is_zero(BlockDriverState *bs, int64_t sector, int nb_sectors, int *pnum);
int hv_disk_read(BlockDriverState *bs, int64_t sector, uint8_t *buf, int nb_sectors);
int hv_disk_write(BlockDriverState *bs, int64_t sector, const uint8_t *buf, int nb_sectors);
int hv_disk_write_zeroes(BlockDriverState *bs, int64_t sector, int nb_sectors);
int hv_disk_cluster_size(BlockDriverState *bs);
int hv_disk_activate(BlockDriverState *bs);
int hv_disk_flush(BlockDriverState *bs);
int hv_disk_ref(BlockDriverState *bs);
void hv_disk_unref(BlockDriverState *bs);

/* Dirty tracking: a write sets the bits of its units after the data has reached the disk. */
void hv_disk_set_granularity(int bytes);                     /* of a unit, for all disks; not while one is tracked */
int64_t hv_disk_granularity(BlockDriverState *bs);
int hv_disk_set_tracking(BlockDriverState *bs, int enable);
int hv_disk_get_dirty(BlockDriverState *bs, int64_t sector);
void hv_disk_reset_dirty(BlockDriverState *bs, int64_t sector, int nb_sectors);
int64_t hv_disk_dirty_count(BlockDriverState *bs);
int64_t hv_disk_next_dirty(BlockDriverState *bs, int64_t sector);

/* ---- Asynchronous requests (aio.c) ---- */

/* In the event loop style, completions run on the caller's thread, inside hv_aio_run, hv_aio_wait and hv_aio_flush;
 * in the threaded style they run on the pool's threads. */
int hv_aio_start(bool threaded);
void hv_aio_stop(void);                                      /* flushes */
void *hv_aio_read(BlockDriverState *bs, int64_t sector, uint8_t *buf, int nb_sectors, HvCompletion *cb, void *opaque);
void *hv_aio_write(BlockDriverState *bs, int64_t sector, const uint8_t *buf, int nb_sectors, HvCompletion *cb,
                   void *opaque);
void hv_aio_flush(void);
void hv_aio_wait(void);
int hv_aio_fd(void);                                         /* readable when hv_aio_run has something to do */
void hv_aio_run(void);

/* ---- The guest (guest.c): a thread that writes to the listed disks at a steady rate. ---- */

int hv_guest_start(double mb_per_second);                    /* 0: a guest that writes nothing */
void hv_guest_end(void);
void hv_vm_stop(void);                                       /* returns when no write is under way */
void hv_vm_start(void);
uint64_t hv_guest_written(void);                             /* bytes */

/* ---- The registry of savevm handlers (savevm.c): it holds one section, "block". ---- */

typedef struct HvSection {
    const char *idstr;
    int instance_id, version_id;
    HvSetParams *set_params;
    HvSaveLive *save_live;
    HvLoad *load;
    void *opaque;
} HvSection;

int hv_register_savevm_live(void *dev, const char *idstr, int instance_id, int version_id, HvSetParams *set_params,
                            HvSaveLive *save_live, void *save_state, HvLoad *load, void *opaque);
const HvSection *hv_section(void);                           /* NULL: nothing is registered */

#endif
