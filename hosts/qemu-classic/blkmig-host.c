/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Block migration by blkmig: what QEMU 0.13 to 0.15 puts in place of
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
 * 0.14 brought drive references and bdrv_set_in_use(), and, for another reason,
 * this macro.
 */
#ifdef GCC_FMT_ATTR
#define HAVE_DRIVE_REFERENCES
#endif

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
#ifdef HAVE_DRIVE_REFERENCES
static int host_ref(BlockDriverState *bs)
{
    DriveInfo *dinfo = drive_get_by_blockdev(bs);

    if (!dinfo) {
        return -ENODEV;
    }
    drive_get_ref(dinfo);
    bdrv_set_in_use(bs, 1);
    return 0;
}

static void host_unref(BlockDriverState *bs)
{
    bdrv_set_in_use(bs, 0);
    drive_put_ref(drive_get_by_blockdev(bs));
}
#endif

static int host_set_tracking(BlockDriverState *bs, int enable)
{
    bdrv_set_dirty_tracking(bs, enable);
    return 0;
}

static const BlkMigBdrvOps bdrv_ops = {
    .struct_size = sizeof(BlkMigBdrvOps),
    .iterate = bdrv_iterate,
    .find = bdrv_find,
    .get_device_name = bdrv_get_device_name,
    .getlength = bdrv_getlength,
    .is_read_only = bdrv_is_read_only,
    .is_allocated = bdrv_is_allocated,
    .read = bdrv_read,
    .write = bdrv_write,
    .aio_read = host_aio_read,
    .aio_flush = qemu_aio_flush,
#ifdef HAVE_DRIVE_REFERENCES
    .ref = host_ref,
    .unref = host_unref,
#endif
    .aio_write = host_aio_write,
    .aio_wait = host_aio_wait,
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
static int host_register_savevm_live(void *dev, const char *idstr,
                                     int instance_id, int version_id,
                                     BlkMigSetParams *set_params,
                                     BlkMigSaveLive *save_live,
                                     void *save_state, BlkMigLoad *load,
                                     void *opaque)
{
    return register_savevm_live(dev, idstr, instance_id, version_id,
                                set_params, save_live, NULL, load, opaque);
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
