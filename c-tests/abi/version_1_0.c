/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What version 1.0 of blkmig.h declared, for hosts that were built with it. This file never changes: if it does
 * not compile, the header has broken them. c-tests/abi/freeze has made it.
 */
#include <stddef.h>

#include "blkmig.h"

/* Fields keep their places and types, and no struct gets shorter. */
#define SAME_FIELD(type, field) \
    _Static_assert(offsetof(struct released_##type, field) == offsetof(type, field) && \
                   __builtin_types_compatible_p(__typeof__(((struct released_##type *) 0)->field), \
                                                __typeof__(((type *) 0)->field)), \
                   #type "." #field " has changed")
#define NOT_SHORTER(type) _Static_assert(sizeof(type) >= sizeof(struct released_##type), #type " is shorter")

_Static_assert(BLK_MIG_HOST_THREADED == 1u, "BLK_MIG_HOST_THREADED has another value");
_Static_assert(BLK_MIG_ABI_VERSION == 1, "BLK_MIG_ABI_VERSION has another value");

/* The types of callbacks: C11 lets the same type be named again. */
typedef void BlkMigCompletion(void *opaque, int ret);
typedef void BlkMigDeviceVisitor(void *opaque, BlockDriverState *bs);
typedef void BlkMigRelease(void *opaque);
typedef void BlkMigSetParams(int blk_enable, int shared_base, void *opaque);
typedef int BlkMigSaveLive(Monitor *mon, QEMUFile *f, int stage, void *opaque);
typedef int BlkMigLoad(QEMUFile *f, void *opaque, int version_id);

struct released_BlkMigBdrvOps {
    size_t struct_size;
    void (*iterate)(BlkMigDeviceVisitor *it, void *opaque);
    BlockDriverState *(*find)(const char *device_name);
    const char *(*get_device_name)(BlockDriverState *bs);
    int64_t (*getlength)(BlockDriverState *bs);
    int (*is_read_only)(BlockDriverState *bs);
    int (*is_allocated)(BlockDriverState *bs, int64_t sector, int nb_sectors, int *pnum);
    int (*read)(BlockDriverState *bs, int64_t sector, uint8_t *buf, int nb_sectors);
    int (*write)(BlockDriverState *bs, int64_t sector, const uint8_t *buf, int nb_sectors);
    void *(*aio_read)(BlockDriverState *bs, int64_t sector, uint8_t *buf, int nb_sectors,
        BlkMigCompletion *cb, void *opaque);
    void (*aio_flush)(void);
    int (*ref)(BlockDriverState *bs);
    void (*unref)(BlockDriverState *bs);
    void *(*aio_write)(BlockDriverState *bs, int64_t sector, const uint8_t *buf, int nb_sectors,
        BlkMigCompletion *cb, void *opaque);
    void (*aio_wait)(void);
    int (*write_zeroes)(BlockDriverState *bs, int64_t sector, int nb_sectors);
    int (*is_zero)(BlockDriverState *bs, int64_t sector, int nb_sectors, int *pnum);
    int (*cluster_size)(BlockDriverState *bs);
    int (*activate)(BlockDriverState *bs);
};
SAME_FIELD(BlkMigBdrvOps, struct_size);
SAME_FIELD(BlkMigBdrvOps, iterate);
SAME_FIELD(BlkMigBdrvOps, find);
SAME_FIELD(BlkMigBdrvOps, get_device_name);
SAME_FIELD(BlkMigBdrvOps, getlength);
SAME_FIELD(BlkMigBdrvOps, is_read_only);
SAME_FIELD(BlkMigBdrvOps, is_allocated);
SAME_FIELD(BlkMigBdrvOps, read);
SAME_FIELD(BlkMigBdrvOps, write);
SAME_FIELD(BlkMigBdrvOps, aio_read);
SAME_FIELD(BlkMigBdrvOps, aio_flush);
SAME_FIELD(BlkMigBdrvOps, ref);
SAME_FIELD(BlkMigBdrvOps, unref);
SAME_FIELD(BlkMigBdrvOps, aio_write);
SAME_FIELD(BlkMigBdrvOps, aio_wait);
SAME_FIELD(BlkMigBdrvOps, write_zeroes);
SAME_FIELD(BlkMigBdrvOps, is_zero);
SAME_FIELD(BlkMigBdrvOps, cluster_size);
SAME_FIELD(BlkMigBdrvOps, activate);
NOT_SHORTER(BlkMigBdrvOps);

struct released_BlkMigDirtyOps {
    size_t struct_size;
    int (*set_tracking)(BlockDriverState *bs, int enable);
    int (*get)(BlockDriverState *bs, int64_t sector);
    void (*reset)(BlockDriverState *bs, int64_t sector, int nb_sectors);
    int64_t (*get_count)(BlockDriverState *bs);
    int64_t (*next)(BlockDriverState *bs, int64_t sector);
};
SAME_FIELD(BlkMigDirtyOps, struct_size);
SAME_FIELD(BlkMigDirtyOps, set_tracking);
SAME_FIELD(BlkMigDirtyOps, get);
SAME_FIELD(BlkMigDirtyOps, reset);
SAME_FIELD(BlkMigDirtyOps, get_count);
SAME_FIELD(BlkMigDirtyOps, next);
NOT_SHORTER(BlkMigDirtyOps);

struct released_BlkMigFileOps {
    size_t struct_size;
    void (*put_buffer)(QEMUFile *f, const uint8_t *buf, int size);
    void (*put_byte)(QEMUFile *f, int v);
    void (*put_be64)(QEMUFile *f, uint64_t v);
    int (*get_buffer)(QEMUFile *f, uint8_t *buf, int size);
    int (*get_byte)(QEMUFile *f);
    uint64_t (*get_be64)(QEMUFile *f);
    int (*rate_limit)(QEMUFile *f);
    int64_t (*get_rate_limit)(QEMUFile *f);
    int (*has_error)(QEMUFile *f);
    void (*set_error)(QEMUFile *f, int ret);
    void (*flush)(QEMUFile *f);
    void (*put_buffer_nocopy)(QEMUFile *f, const uint8_t *buf, int size, BlkMigRelease *release,
        void *opaque);
};
SAME_FIELD(BlkMigFileOps, struct_size);
SAME_FIELD(BlkMigFileOps, put_buffer);
SAME_FIELD(BlkMigFileOps, put_byte);
SAME_FIELD(BlkMigFileOps, put_be64);
SAME_FIELD(BlkMigFileOps, get_buffer);
SAME_FIELD(BlkMigFileOps, get_byte);
SAME_FIELD(BlkMigFileOps, get_be64);
SAME_FIELD(BlkMigFileOps, rate_limit);
SAME_FIELD(BlkMigFileOps, get_rate_limit);
SAME_FIELD(BlkMigFileOps, has_error);
SAME_FIELD(BlkMigFileOps, set_error);
SAME_FIELD(BlkMigFileOps, flush);
SAME_FIELD(BlkMigFileOps, put_buffer_nocopy);
NOT_SHORTER(BlkMigFileOps);

struct released_BlkMigMonitorOps {
    size_t struct_size;
    void (*printf)(Monitor *mon, const char *fmt, ...);
    void (*flush)(Monitor *mon);
};
SAME_FIELD(BlkMigMonitorOps, struct_size);
SAME_FIELD(BlkMigMonitorOps, printf);
SAME_FIELD(BlkMigMonitorOps, flush);
NOT_SHORTER(BlkMigMonitorOps);

struct released_BlkMigSystemOps {
    size_t struct_size;
    int (*register_savevm_live)(void *dev, const char *idstr, int instance_id, int version_id,
        BlkMigSetParams *set_params, BlkMigSaveLive *save_live, void *save_state, BlkMigLoad *load,
        void *opaque);
    int64_t (*clock_ns)(void);
    uint64_t (*max_downtime_ns)(void);
    void (*error_report)(const char *fmt, ...);
    void (*log)(int level, const char *message);
};
SAME_FIELD(BlkMigSystemOps, struct_size);
SAME_FIELD(BlkMigSystemOps, register_savevm_live);
SAME_FIELD(BlkMigSystemOps, clock_ns);
SAME_FIELD(BlkMigSystemOps, max_downtime_ns);
SAME_FIELD(BlkMigSystemOps, error_report);
SAME_FIELD(BlkMigSystemOps, log);
NOT_SHORTER(BlkMigSystemOps);

struct released_BlkMigHost {
    size_t struct_size;
    uint32_t abi_version;
    uint32_t flags;
    const struct BlkMigBdrvOps *bdrv;
    const struct BlkMigDirtyOps *dirty;
    const struct BlkMigFileOps *file;
    const struct BlkMigMonitorOps *monitor;
    const struct BlkMigSystemOps *system;
};
SAME_FIELD(BlkMigHost, struct_size);
SAME_FIELD(BlkMigHost, abi_version);
SAME_FIELD(BlkMigHost, flags);
SAME_FIELD(BlkMigHost, bdrv);
SAME_FIELD(BlkMigHost, dirty);
SAME_FIELD(BlkMigHost, file);
SAME_FIELD(BlkMigHost, monitor);
SAME_FIELD(BlkMigHost, system);
NOT_SHORTER(BlkMigHost);

struct released_BlkMigOptions {
    size_t struct_size;
    uint32_t max_buffers;
    uint32_t max_reads;
    uint32_t max_writes;
    uint32_t zero_blocks;
};
SAME_FIELD(BlkMigOptions, struct_size);
SAME_FIELD(BlkMigOptions, max_buffers);
SAME_FIELD(BlkMigOptions, max_reads);
SAME_FIELD(BlkMigOptions, max_writes);
SAME_FIELD(BlkMigOptions, zero_blocks);
NOT_SHORTER(BlkMigOptions);

struct released_BlkMigStats {
    size_t struct_size;
    uint64_t bytes_total;
    uint64_t bytes_transferred;
    uint64_t bytes_remaining;
    uint64_t chunks_sent;
    uint64_t chunks_resent;
    uint64_t chunks_zero;
    uint64_t wire_bytes;
    uint64_t dirty_bytes;
    uint32_t reads_in_flight;
    uint32_t buffers_in_use;
    uint32_t buffers_peak;
    int32_t last_error;
    uint64_t bandwidth;
    uint64_t expected_downtime_ns;
    uint64_t elapsed_ns;
};
SAME_FIELD(BlkMigStats, struct_size);
SAME_FIELD(BlkMigStats, bytes_total);
SAME_FIELD(BlkMigStats, bytes_transferred);
SAME_FIELD(BlkMigStats, bytes_remaining);
SAME_FIELD(BlkMigStats, chunks_sent);
SAME_FIELD(BlkMigStats, chunks_resent);
SAME_FIELD(BlkMigStats, chunks_zero);
SAME_FIELD(BlkMigStats, wire_bytes);
SAME_FIELD(BlkMigStats, dirty_bytes);
SAME_FIELD(BlkMigStats, reads_in_flight);
SAME_FIELD(BlkMigStats, buffers_in_use);
SAME_FIELD(BlkMigStats, buffers_peak);
SAME_FIELD(BlkMigStats, last_error);
SAME_FIELD(BlkMigStats, bandwidth);
SAME_FIELD(BlkMigStats, expected_downtime_ns);
SAME_FIELD(BlkMigStats, elapsed_ns);
NOT_SHORTER(BlkMigStats);

/* A function that is declared in another way than in the header does not compile. */
int blk_mig_set_host(const struct BlkMigHost *host);
void blk_mig_init(void);
int blk_mig_active(void);
int blk_mig_bulk_active(void);
uint64_t blk_mig_bytes_transferred(void);
uint64_t blk_mig_bytes_remaining(void);
uint64_t blk_mig_bytes_total(void);
void blk_mig_set_params(int blk_enable, int shared_base, void *opaque);
int blk_mig_save_live(Monitor *mon, QEMUFile *f, int stage, void *opaque);
int blk_mig_load(QEMUFile *f, void *opaque, int version_id);
int blk_mig_save_setup(QEMUFile *f, void *opaque);
int blk_mig_save_iterate(QEMUFile *f, void *opaque);
int blk_mig_save_complete(QEMUFile *f, void *opaque);
uint64_t blk_mig_save_pending(void *opaque);
void blk_mig_save_cleanup(void *opaque);
int blk_mig_set_options(const struct BlkMigOptions *options);
int blk_mig_get_stats(struct BlkMigStats *stats);
size_t blk_mig_last_error(char *buf, size_t size);
uint32_t blk_mig_version(void);

/* The library still has them: without one, this program cannot be linked. */
static void (*const volatile functions[])(void) = {
    (void (*)(void)) blk_mig_set_host,
    (void (*)(void)) blk_mig_init,
    (void (*)(void)) blk_mig_active,
    (void (*)(void)) blk_mig_bulk_active,
    (void (*)(void)) blk_mig_bytes_transferred,
    (void (*)(void)) blk_mig_bytes_remaining,
    (void (*)(void)) blk_mig_bytes_total,
    (void (*)(void)) blk_mig_set_params,
    (void (*)(void)) blk_mig_save_live,
    (void (*)(void)) blk_mig_load,
    (void (*)(void)) blk_mig_save_setup,
    (void (*)(void)) blk_mig_save_iterate,
    (void (*)(void)) blk_mig_save_complete,
    (void (*)(void)) blk_mig_save_pending,
    (void (*)(void)) blk_mig_save_cleanup,
    (void (*)(void)) blk_mig_set_options,
    (void (*)(void)) blk_mig_get_stats,
    (void (*)(void)) blk_mig_last_error,
    (void (*)(void)) blk_mig_version,
};

int main(void)
{
    return functions[sizeof(functions) / sizeof(*functions) - 1] == NULL;
}
