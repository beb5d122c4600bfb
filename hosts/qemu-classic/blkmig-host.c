/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Block migration by blkmig: what QEMU 0.14 and 0.15 put in place of
 * block-migration.c
 *
 * This file hands QEMU's own functions to the library, which exports
 * blk_mig_init() and the rest of block-migration.h. The README.md that comes
 * with it says how to build it in. It includes blkmig.h instead of
 * block-migration.h: both declare the same functions.
 */
#include "qemu-common.h"
#include "block_int.h"
#include "hw/hw.h"
#include "qemu-timer.h"
#include "monitor.h"
#include "migration.h"
#include "blockdev.h"
#include "blkmig.h"

/*
 * Requests. QEMU wants an I/O vector that lives as long as the request does.
 */
typedef struct Request {
    QEMUIOVector qiov;
    struct iovec iov;
    BlkMigCompletion *cb;
    void *opaque;
} Request;

typedef BlockDriverAIOCB *StartFunc(BlockDriverState *bs, int64_t sector,
                                    QEMUIOVector *qiov, int nb_sectors,
                                    BlockDriverCompletionFunc *cb,
                                    void *opaque);

static unsigned requests_started, requests_done;

static void request_done(void *opaque, int ret)
{
    Request request = *(Request *)opaque;

    free(opaque);
    requests_done++;
    request.cb(request.opaque, ret);
}

static void *request_start(StartFunc *start, BlockDriverState *bs,
                           int64_t sector, const uint8_t *buf, int nb_sectors,
                           BlkMigCompletion *cb, void *opaque)
{
    Request *request = calloc(1, sizeof(*request));
    void *aiocb;

    if (!request) {
        return NULL;
    }
    request->cb = cb;
    request->opaque = opaque;
    request->iov.iov_base = (uint8_t *)buf;
    request->iov.iov_len = (size_t)nb_sectors * BDRV_SECTOR_SIZE;
    qemu_iovec_init_external(&request->qiov, &request->iov, 1);

    requests_started++;
    aiocb = start(bs, sector, &request->qiov, nb_sectors, request_done,
                  request);
    if (!aiocb) {
        requests_started--;
        free(request);
    }
    return aiocb;
}

static void *host_aio_read(BlockDriverState *bs, int64_t sector, uint8_t *buf,
                           int nb_sectors, BlkMigCompletion *cb, void *opaque)
{
    return request_start(bdrv_aio_readv, bs, sector, buf, nb_sectors, cb,
                         opaque);
}

static void *host_aio_write(BlockDriverState *bs, int64_t sector,
                            const uint8_t *buf, int nb_sectors,
                            BlkMigCompletion *cb, void *opaque)
{
    return request_start(bdrv_aio_writev, bs, sector, buf, nb_sectors, cb,
                         opaque);
}

/* qemu_aio_wait() returns after any request, also one of the guest's. */
static void host_aio_wait(void)
{
    unsigned done = requests_done;

    while (requests_done == done && requests_done != requests_started) {
        qemu_aio_wait();
    }
}

/*
 * Devices
 */
/*
 * A device that is migrated. bdrv_set_in_use() keeps drive_del and block_resize
 * away, but neither eject nor change: a locked medium does, unless they are
 * forced. A snapshot moves the guest to another file; its name tells.
 */
typedef struct Held {
    BlockDriverState *bs;
    DriveInfo *dinfo;
    int was_locked;
    BlockDriver *drv;
    char filename[sizeof(((BlockDriverState *)0)->filename)];
    struct Held *next;
} Held;

static Held *all_held;

static int host_ref(BlockDriverState *bs)
{
    DriveInfo *dinfo = drive_get_by_blockdev(bs);
    Held *held;

    if (!dinfo) {
        return -ENODEV;
    }
    if (bdrv_in_use(bs)) {
        return -EBUSY;
    }
    held = calloc(1, sizeof(*held));
    if (!held) {
        return -ENOMEM;
    }
    held->bs = bs;
    held->dinfo = dinfo;
    held->was_locked = bdrv_is_locked(bs);
    held->drv = bs->drv;
    memcpy(held->filename, bs->filename, sizeof(held->filename));
    held->next = all_held;
    all_held = held;

    drive_get_ref(dinfo);
    bdrv_set_in_use(bs, 1);
    bdrv_set_locked(bs, 1);
    return 0;
}

static void host_unref(BlockDriverState *bs)
{
    Held **link = &all_held, *held;

    while ((*link)->bs != bs) {
        link = &(*link)->next;
    }
    held = *link;
    *link = held->next;
    bdrv_set_locked(bs, held->was_locked);
    bdrv_set_in_use(bs, 0);
    drive_put_ref(held->dinfo);
    free(held);
}

/* The device's length, or an error once something else is behind it. */
static int64_t host_getlength(BlockDriverState *bs)
{
    const Held *held = all_held;

    while (held && held->bs != bs) {
        held = held->next;
    }
    if (held && (held->drv != bs->drv || strcmp(held->filename, bs->filename))) {
        return -ENOMEDIUM;
    }
    return bdrv_getlength(bs);
}

/*
 * A write sets the dirty bit when it ends, but only if there was a bitmap when
 * it began. So none may be in flight when the bitmap is made.
 */
static int host_set_tracking(BlockDriverState *bs, int enable)
{
    if (enable) {
        qemu_aio_flush();
    }
    bdrv_set_dirty_tracking(bs, enable);
    return 0;
}

static const BlkMigBdrvOps bdrv_ops = {
    .struct_size = sizeof(BlkMigBdrvOps),
    .iterate = bdrv_iterate,
    .find = bdrv_find,
    .get_device_name = bdrv_get_device_name,
    .getlength = host_getlength,
    .is_read_only = bdrv_is_read_only,
    .is_allocated = bdrv_is_allocated,
    .read = bdrv_read,
    .write = bdrv_write,
    .aio_read = host_aio_read,
    .aio_flush = qemu_aio_flush,
    .ref = host_ref,
    .unref = host_unref,
    .aio_write = host_aio_write,
    .aio_wait = host_aio_wait,
    .flush = bdrv_flush,
};

static const BlkMigDirtyOps dirty_ops = {
    .struct_size = sizeof(BlkMigDirtyOps),
    .set_tracking = host_set_tracking,
    .get = bdrv_get_dirty,
    .reset = bdrv_reset_dirty,
    .get_count = bdrv_get_dirty_count,
};

/*
 * The stream
 */
static int64_t host_get_rate_limit(QEMUFile *f)
{
    return qemu_file_get_rate_limit(f);
}

/* These versions keep no more than that there was an error. */
static void host_set_error(QEMUFile *f, int ret)
{
    qemu_file_set_error(f);
}

static const BlkMigFileOps file_ops = {
    .struct_size = sizeof(BlkMigFileOps),
    .put_buffer = qemu_put_buffer,
    .put_byte = qemu_put_byte,
    .put_be64 = qemu_put_be64,
    .get_buffer = qemu_get_buffer,
    .get_byte = qemu_get_byte,
    .get_be64 = qemu_get_be64,
    .rate_limit = qemu_file_rate_limit,
    .get_rate_limit = host_get_rate_limit,
    .has_error = qemu_file_has_error,
    .set_error = host_set_error,
};

/*
 * The rest of QEMU
 */
static BlkMigSaveLive *module_save_live;
static QEMUFile *stream;        /* of the last stage 1 */

/*
 * QEMU goes on with stage 2 for ever when a migration's stream has an error,
 * unless it says that it is done: the last stage then finds the error, the guest
 * runs on, and the migration has failed. The module is asked no more by then, so
 * that it does not tell the same each time.
 *
 * A savevm takes a migration that runs over, with no disks in it. That must not
 * pass for a migration that has none.
 */
static int host_save_live(Monitor *mon, QEMUFile *f, int stage, void *opaque)
{
    int ret;

    if (stage == 1) {
        stream = f;
    }
    if (stage > 1 && f != stream && !qemu_file_has_error(f)) {
        error_report("block migration: another migration or a savevm came in "
                     "between");
        qemu_file_set_error(f);
        return stage == 2;
    }
    if (stage > 1 && qemu_file_has_error(f)) {
        if (f == stream) {
            module_save_live(mon, f, -1, opaque);
        }
        return stage == 2;
    }
    ret = module_save_live(mon, f, stage, opaque);
    return ret || (stage == 2 && qemu_file_has_error(f));
}

static int host_register_savevm_live(void *dev, const char *idstr,
                                     int instance_id, int version_id,
                                     BlkMigSetParams *set_params,
                                     BlkMigSaveLive *save_live,
                                     void *save_state, BlkMigLoad *load,
                                     void *opaque)
{
    module_save_live = save_live;
    return register_savevm_live(dev, idstr, instance_id, version_id,
                                set_params, host_save_live, NULL, load, opaque);
}

static int64_t host_clock_ns(void)
{
    return qemu_get_clock_ns(rt_clock);
}

/*
 * What a destination has to say. Errors are not shown here: the user gets them
 * through error_report() as well.
 */
static void host_log(int level, const char *message)
{
    if (level == 2) {
        error_report("%s", message);
    } else if (level == 3) {
        printf("%s\n", message);
        fflush(stdout);
    }
}

static const BlkMigMonitorOps monitor_ops = {
    .struct_size = sizeof(BlkMigMonitorOps),
    .printf = monitor_printf,
    .flush = monitor_flush,
};

static const BlkMigSystemOps system_ops = {
    .struct_size = sizeof(BlkMigSystemOps),
    .register_savevm_live = host_register_savevm_live,
    .clock_ns = host_clock_ns,
    .max_downtime_ns = migrate_max_downtime,
    .error_report = error_report,
    .log = host_log,
};

/*
 * Before main(), which calls blk_mig_init(). The library only copies the tables
 * here and calls nothing in them.
 */
static void __attribute__((constructor)) host_give_tables(void)
{
    const BlkMigHost host = {
        .struct_size = sizeof(BlkMigHost),
        .abi_version = BLK_MIG_ABI_VERSION,
        .bdrv = &bdrv_ops,
        .dirty = &dirty_ops,
        .file = &file_ops,
        .monitor = &monitor_ops,
        .system = &system_ops,
    };

    if (blk_mig_set_host(&host) < 0) {
        char why[256];

        blk_mig_last_error(why, sizeof(why));
        fprintf(stderr, "block migration: %s\n", why);
    }
}
