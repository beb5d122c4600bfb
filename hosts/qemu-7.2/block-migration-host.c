/*
 * Block migration by the blkmig library: its tables, filled with QEMU 7.2
 *
 * SPDX-License-Identifier: GPL-2.0-only
 *
 * This file takes the place of migration/block.c.  The library decides what
 * is read, sent and written, and when; this file says how: locks, backends,
 * the stream and savevm handlers.  The blk_mig_*() are the library's own.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "io/channel-socket.h"
#include "migration/misc.h"
#include "migration/register.h"
#include "block/blockjob.h"
#include "qapi/qmp/qdict.h"
#include "qapi/qmp/qjson.h"
#include "block/block_int.h"
#include "sysemu/block-backend.h"
#include "sysemu/runstate-action.h"
#include "sysemu/runstate.h"
#include "migration.h"
#include "qemu-file.h"
#include "blkmig.h"

#define CHUNK (1 * MiB)
#define BYTES(sectors) ((int64_t)(sectors) * BDRV_SECTOR_SIZE)

/* How long the end of a migration waits for reads that are in flight. */
#define FLUSH_WAIT_MS 100

/* What qemu-file.c buffers at most; the install script checks it. */
#define QEMU_FILE_BUFFER 32768

/*
 * A device of the running migration.  It stands for its node, which is kept so
 * that nothing else can have its address, and lives until the library and the
 * last of its requests have done with it.
 */
typedef struct BlkMigDevice {
    BlockDriverState *bs;
    /* Our own; on the destination the guest's, which stays with it. */
    BlockBackend *blk;
    unsigned references;
    char *name;
    /* On the source alone */
    BdrvDirtyBitmap *dirty_bitmap;
    /* The node and those under it; held, and closed to other operations. */
    GSList *nodes;
    /* The same as text: the migration fails if that changes. */
    GString *tree;
    /* The same without what QEMU has to work out. */
    GString *links;
    /* It, or its length, was seen to change, though it may have changed back. */
    bool changed;
} BlkMigDevice;

typedef struct BlkMigRequest {
    BlkMigDevice *dev;
    QEMUIOVector qiov;
    BlkMigCompletion *cb;
    void *opaque;
} BlkMigRequest;

/*
 * BlockDriverState to BlkMigDevice.  On the source only the migration thread
 * changes it while that runs, with the iothread lock; so it may read it
 * without.  On the destination the devices stay from the first section that
 * names them to the end of load.
 */
static GHashTable *devices;
static Error *blocker;

/* Why a device ended the migration, where an errno can't say it. */
static Error *cause;

/* The destination quits: its backends go away, and load must not go on. */
static bool closing;

/* /blkmig's property of this name. */
static bool accept_tail_garbage;

/* The requests; accessed with atomic operations. */
static unsigned in_flight;
static unsigned completed;
static Coroutine *waiting_co;

/* Where QEMU ends, load's coroutine must not touch what is torn down. */
static void stop_if_closing(void)
{
    while (closing && qemu_in_coroutine()) {
        qemu_coroutine_yield();
    }
}

/*
 * The library calls from the migration thread without the iothread lock
 * (setup, iterate, pending) and with it (complete), and from the main thread
 * (cleanup, load).  A device may live in an iothread, so that both the
 * iothread lock and its AioContext are needed.  But load's coroutine yields in
 * what it calls: with an AioContext that it held, the iothread could not go on.
 */
typedef struct DeviceLock {
    AioContext *ctx;
    bool iothread_locked;
} DeviceLock;

static DeviceLock lock_device(BlockDriverState *bs)
{
    DeviceLock lock = { .iothread_locked = !qemu_mutex_iothread_locked() };

    stop_if_closing();
    if (lock.iothread_locked) {
        qemu_mutex_lock_iothread();
    }
    if (bs && !qemu_in_coroutine()) {
        lock.ctx = bdrv_get_aio_context(bs);
        aio_context_acquire(lock.ctx);
    }
    return lock;
}

static void unlock_device(DeviceLock *lock)
{
    if (lock->ctx) {
        aio_context_release(lock->ctx);
    }
    if (lock->iothread_locked) {
        qemu_mutex_unlock_iothread();
    }
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(DeviceLock, unlock_device)

/* Until the end of the block; without a device the iothread lock alone. */
#define DEVICE_LOCK_GUARD(bs) \
    g_auto(DeviceLock) device_lock G_GNUC_UNUSED = lock_device(bs)

static BlkMigDevice *find_device(BlockDriverState *bs)
{
    return g_hash_table_lookup(devices, bs);
}

/* The guest's own, or that of a drive without a device. */
static BlockBackend *guest_backend(BlockDriverState *bs)
{
    BlockBackend *blk = NULL;

    while ((blk = blk_all_next(blk))) {
        if (blk_bs(blk) == bs &&
            (*blk_name(blk) || blk_get_attached_dev(blk))) {
            break;
        }
    }
    return blk;
}

static bool may_write(BlockBackend *blk)
{
    uint64_t perm, shared_perm;

    blk_get_perm(blk, &perm, &shared_perm);
    return perm & BLK_PERM_WRITE;
}

/*
 * On the destination the guest may lose its disk at any time, or get another
 * medium, which must not get what is meant for the first.  An external
 * snapshot only puts another node on top, and what comes goes there.
 */
static bool leads_to(BlockDriverState *top, BlockDriverState *bs)
{
    while (top && top != bs) {
        top = bdrv_filter_or_cow_bs(top);
    }
    return top;
}

/*
 * Who drains a node runs load's coroutine, and may then take the node away:
 * what came through the backend meanwhile would be lost on the way.
 */
static void wait_while_drained(BlkMigDevice *dev)
{
    while (qemu_in_coroutine() && blk_bs(dev->blk) &&
           qatomic_read(&blk_bs(dev->blk)->quiesce_counter)) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS);
        stop_if_closing();
    }
}

/* Whom to ask; NULL if the guest has not got the device any more. */
static BlockBackend *find_backend(BlockDriverState *bs)
{
    BlkMigDevice *dev = find_device(bs);
    bool usable;

    if (dev) {
        wait_while_drained(dev);
    }
    usable = dev && leads_to(blk_bs(dev->blk), bs);

    return usable && (dev->tree || may_write(dev->blk)) ? dev->blk : NULL;
}

/* The same as a node: on the destination the present one. */
static BlockDriverState *find_node(BlockDriverState *bs)
{
    BlkMigDevice *dev = find_device(bs);

    if (!dev || dev->tree) {
        return bs;
    }
    wait_while_drained(dev);
    return leads_to(blk_bs(dev->blk), bs) ? blk_bs(dev->blk) : NULL;
}

#define CHANGED "Block migration: what is under device '%s' was changed " \
                "meanwhile (by a block job that ended, for instance)"

/* The guest, or our own backend, has left the node for another one. */
static bool has_moved(BlkMigDevice *dev, BlockDriverState *bs)
{
    return !guest_backend(bs) || blk_bs(dev->blk) != bs;
}

static void bdrv_ops_iterate(BlkMigDeviceVisitor *it, void *opaque)
{
    DEVICE_LOCK_GUARD(NULL);
    BdrvNextIterator iter;
    BlockDriverState *bs;

    for (bs = bdrv_first(&iter); bs; bs = bdrv_next(&iter)) {
        BlockBackend *blk = guest_backend(bs);

        /*
         * Nodes without a backend are parts of devices, or nobody's.  What
         * comes while the migration runs matters if the guest can write to it.
         */
        if (blk && (find_device(bs) || !g_hash_table_size(devices) ||
                    blk_get_attached_dev(blk))) {
            it(opaque, bs);
        }
    }
}

/* By its drive's name, or by that of a node down to the first that is data. */
static bool is_named(BlockBackend *blk, const char *name)
{
    BlockDriverState *bs = blk_bs(blk);

    if (!bs || guest_backend(bs) != blk) {
        return false;
    }
    if (!strcmp(blk_name(blk), name)) {
        return true;
    }
    while (bs && strcmp(bdrv_get_node_name(bs), name)) {
        bs = bdrv_filter_bs(bs);
    }
    return bs;
}

static BlkMigDevice *add_device(BlockDriverState *bs, BlockBackend *blk,
                                const char *name)
{
    BlkMigDevice *dev = g_new0(BlkMigDevice, 1);

    dev->bs = bs;
    dev->blk = blk;
    dev->references = 1;
    dev->name = g_strdup(name);
    bdrv_ref(bs);
    g_hash_table_insert(devices, bs, dev);
    return dev;
}

/* In the main thread, or with the iothread lock in that of the migration. */
static void free_device(void *opaque)
{
    BlkMigDevice *dev = opaque;
    AioContext *ctx = bdrv_get_aio_context(dev->bs);

    aio_context_acquire(ctx);
    blk_unref(dev->blk);
    bdrv_unref(dev->bs);
    aio_context_release(ctx);
    if (dev->tree) {
        g_string_free(dev->tree, true);
        g_string_free(dev->links, true);
    }
    g_free(dev->name);
    g_free(dev);
}

/* The library has done with it; what is in flight may still need it. */
static void remove_device(BlkMigDevice *dev)
{
    g_hash_table_remove(devices, dev->bs);
    if (qatomic_fetch_dec(&dev->references) > 1) {
        return;
    }
    if (qemu_in_coroutine()) {
        /* Closing it, if it comes to that, is no work for a coroutine. */
        aio_bh_schedule_oneshot(qemu_get_aio_context(), free_device, dev);
    } else {
        free_device(dev);
    }
}

/*
 * Who may write to the destination's device: the guest, or for a drive without
 * a device we.
 */
static BlockBackend *open_backend(BlockBackend *blk, Error **errp)
{
    BlockDriverState *bs = blk_bs(blk);
    BlockBackend *own;

    if (blk_get_attached_dev(blk) && !may_write(blk)) {
        error_setg(errp, "its device does not write to it");
        return NULL;
    }
    if (may_write(blk)) {
        blk_ref(blk);
        return blk;
    }
    if (bdrv_activate(bs, errp) < 0) {
        return NULL;
    }
    own = blk_new_with_bs(bs, BLK_PERM_WRITE, BLK_PERM_ALL, errp);
    if (own) {
        blk_set_allow_aio_context_change(own, true);
    }
    return own;
}

static BlockDriverState *open_device(BlockBackend *blk, const char *name)
{
    BlockDriverState *bs = blk_bs(blk);
    Error *local_err = NULL;
    BlockBackend *opened;

    /* The library refuses one that is read-only, and says so. */
    if (bdrv_is_read_only(bs)) {
        return bs;
    }
    opened = open_backend(blk, &local_err);
    if (!opened) {
        error_prepend(&local_err, "Device '%s' can't be written to: ", name);
        error_report_err(local_err);
        return NULL;
    }
    add_device(bs, opened, name);
    return bs;
}

static BlockDriverState *bdrv_ops_find(const char *name)
{
    DEVICE_LOCK_GUARD(NULL);
    BlockBackend *blk = NULL;
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, devices);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        BlkMigDevice *dev = value;

        if (!strcmp(dev->name, name)) {
            return dev->bs;
        }
    }
    while ((blk = blk_all_next(blk))) {
        if (is_named(blk, name)) {
            return open_device(blk, name);
        }
    }
    return NULL;
}

static const char *bdrv_ops_get_device_name(BlockDriverState *bs)
{
    const char *name = bdrv_get_device_name(bs);

    if (*name) {
        return name;
    }
    /* QEMU has named it, as the filters of block jobs: the user's is below. */
    while (*bdrv_get_node_name(bs) == '#' && bdrv_filter_bs(bs)) {
        bs = bdrv_filter_bs(bs);
    }
    return bdrv_get_node_name(bs);
}

static int64_t bdrv_ops_getlength(BlockDriverState *bs)
{
    DEVICE_LOCK_GUARD(bs);
    BlkMigDevice *dev = find_device(bs);

    if (dev && dev->tree) {
        /* A filter that its block job has taken away leads to nothing. */
        if (!has_moved(dev, bs) && !dev->changed) {
            return bdrv_getlength(bs);
        }
        if (!cause) {
            error_setg(&cause, CHANGED, dev->name);
        }
        return -ENODEV;
    }
    bs = find_node(bs);
    return bs ? bdrv_getlength(bs) : -ENODEV;
}

/* A CD-ROM drive has no use for an image that could be written to. */
static int bdrv_ops_is_read_only(BlockDriverState *bs)
{
    BlockBackend *blk = guest_backend(bs);

    /* The destination has looked at it when it found it. */
    if (find_device(bs)) {
        return false;
    }
    return bdrv_is_read_only(bs) ||
           (blk && blk_get_attached_dev(blk) && !may_write(blk));
}

static int bdrv_ops_is_allocated(BlockDriverState *bs, int64_t sector, int nb,
                                 int *pnum)
{
    DEVICE_LOCK_GUARD(bs);
    int64_t count = 0;
    int ret = bdrv_is_allocated(bs, BYTES(sector), BYTES(nb), &count);

    *pnum = count >> BDRV_SECTOR_BITS;
    return ret;
}

/*
 * Something that load's coroutine asks for.  It runs in the main AioContext,
 * while what the device's own has submitted completes there: the two would
 * change the same lists at once.  So another coroutine does it over there.
 */
typedef struct BlkMigCall {
    int (*fn)(struct BlkMigCall *call);
    BlockBackend *blk;
    int64_t offset;
    int64_t bytes;
    int64_t count;
    const void *buf;
    int ret;
    Coroutine *caller;
} BlkMigCall;

static void coroutine_fn call_there(void *opaque)
{
    BlkMigCall *call = opaque;

    call->ret = call->fn(call);
    aio_co_wake(call->caller);
}

static int call_device(BlockDriverState *bs, BlkMigCall *call)
{
    DEVICE_LOCK_GUARD(bs);
    BlkMigDevice *dev;

    call->blk = find_backend(bs);
    if (!call->blk) {
        return -ENODEV;
    }
    if (!qemu_in_coroutine()) {
        return call->fn(call);
    }
    dev = find_device(bs);
    qatomic_inc(&dev->references);
    call->caller = qemu_coroutine_self();
    aio_co_enter(blk_get_aio_context(call->blk),
                 qemu_coroutine_create(call_there, call));
    qemu_coroutine_yield();
    if (qatomic_fetch_dec(&dev->references) == 1) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), free_device, dev);
    }
    return call->ret;
}

static int call_is_zero(BlkMigCall *call)
{
    BlockDriverState *bs = blk_bs(call->blk);
    int ret;

    if (!bs) {
        return -ENODEV;
    }
    blk_inc_in_flight(call->blk);
    ret = bdrv_block_status_above(bs, NULL, call->offset, call->bytes,
                                  &call->count, NULL, NULL);
    blk_dec_in_flight(call->blk);
    return ret < 0 ? ret : !!(ret & BDRV_BLOCK_ZERO);
}

static int bdrv_ops_is_zero(BlockDriverState *bs, int64_t sector, int nb,
                            int *pnum)
{
    BlkMigCall call = {
        .fn = call_is_zero,
        .offset = BYTES(sector),
        .bytes = BYTES(nb),
    };
    int ret = call_device(bs, &call);

    *pnum = call.count >> BDRV_SECTOR_BITS;
    return ret;
}

static int bdrv_ops_cluster_size(BlockDriverState *bs)
{
    DEVICE_LOCK_GUARD(bs);
    BlockDriverState *node = find_node(bs);
    BlockDriverInfo bdi;

    return node && bdrv_get_info(node, &bdi) >= 0 ? bdi.cluster_size : 0;
}

static void describe_tree(BlockDriverState *bs, GString *text)
{
    g_autoptr(GString) options = NULL;
    BdrvChild *child;

    bdrv_refresh_filename(bs);
    options = qobject_to_json(QOBJECT(bs->full_open_options));
    g_string_append_printf(text, "%p %s\n", bs, options->str);
    QLIST_FOREACH(child, &bs->children, next) {
        describe_tree(child->bs, text);
    }
}

/* Nodes come and go while QEMU links them anew: a child may be none. */
static void describe_links(BlockDriverState *bs, GString *text)
{
    g_autoptr(GString) options = qobject_to_json(QOBJECT(bs->options));
    BdrvChild *child;

    g_string_append_printf(text, "%p %s\n", bs, options->str);
    QLIST_FOREACH(child, &bs->children, next) {
        if (child->bs) {
            describe_links(child->bs, text);
        }
    }
}

static bool has_changed(BlkMigDevice *dev)
{
    g_autoptr(GString) tree = g_string_new(NULL);

    if (!dev->changed) {
        describe_tree(dev->bs, tree);
        dev->changed = !g_string_equal(tree, dev->tree);
    }
    return dev->changed;
}

/*
 * Whatever changes a tree drains it first: what was changed before that is
 * seen, though it may be about to be changed back.
 */
static void source_drained_begin(void *opaque)
{
    BlkMigDevice *dev = opaque;
    g_autoptr(GString) links = NULL;

    /* An iothread that drains for a block job of its own changes nothing. */
    if (qemu_mutex_iothread_locked() && !dev->changed) {
        links = g_string_new(NULL);
        describe_links(dev->bs, links);
        dev->changed = !g_string_equal(links, dev->links);
    }
}

/* Also if it gets its old length back, what was cut off is gone. */
static void source_resized(void *opaque)
{
    BlkMigDevice *dev = opaque;

    dev->changed = true;
}

static const BlockDevOps source_dev_ops = {
    .resize_cb = source_resized,
    .drained_begin = source_drained_begin,
};

/*
 * What QEMU's users can do to a disk by way of a node below it is refused as
 * what they can do to the disk itself.
 */
static void block_nodes(BlkMigDevice *dev, BlockDriverState *bs)
{
    BdrvChild *child;

    if (g_slist_find(dev->nodes, bs)) {
        return;
    }
    bdrv_ref(bs);
    bdrv_op_block_all(bs, blocker);
    dev->nodes = g_slist_prepend(dev->nodes, bs);
    QLIST_FOREACH(child, &bs->children, next) {
        block_nodes(dev, child->bs);
    }
}

static void unblock_nodes(BlkMigDevice *dev)
{
    GSList *nodes = dev->nodes;

    dev->nodes = NULL;
    for (GSList *item = nodes; item; item = item->next) {
        BlockDriverState *bs = item->data;
        AioContext *ctx = bdrv_get_aio_context(bs);

        bdrv_op_unblock_all(bs, blocker);
        aio_context_acquire(ctx);
        bdrv_unref(bs);
        aio_context_release(ctx);
    }
    g_slist_free(nodes);
}

/* On the source; the destination's devices are there since they were found. */
static int bdrv_ops_ref(BlockDriverState *bs)
{
    DEVICE_LOCK_GUARD(bs);
    Error *local_err = NULL;
    BlockBackend *blk;
    BlkMigDevice *dev;

    if (runstate_check(RUN_STATE_INMIGRATE)) {
        return 0;
    }
    blk = blk_new_with_bs(bs, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL,
                          &local_err);
    if (!blk) {
        error_report_err(local_err);
        return -EPERM;
    }
    blk_set_allow_aio_context_change(blk, true);
    dev = add_device(bs, blk, bdrv_ops_get_device_name(bs));
    block_nodes(dev, bs);
    dev->tree = g_string_new(NULL);
    describe_tree(bs, dev->tree);
    dev->links = g_string_new(NULL);
    describe_links(bs, dev->links);
    blk_set_dev_ops(blk, &source_dev_ops, dev);
    return 0;
}

static void bdrv_ops_unref(BlockDriverState *bs)
{
    DEVICE_LOCK_GUARD(NULL);
    BlkMigDevice *dev = find_device(bs);

    if (dev && dev->tree) {
        unblock_nodes(dev);
        blk_set_dev_ops(dev->blk, NULL, NULL);
        remove_device(dev);
    }
}

static int bdrv_ops_activate(BlockDriverState *bs)
{
    Error *local_err = NULL;

    stop_if_closing();
    bs = find_node(bs);
    if (!bs) {
        return -ENODEV;
    }
    if (bdrv_activate(bs, &local_err) < 0) {
        error_report_err(local_err);
        return -EIO;
    }
    return 0;
}

/* In the device's AioContext, or whoever polls with the iothread lock. */
static void request_done(void *opaque, int ret)
{
    g_autofree BlkMigRequest *req = opaque;
    Coroutine *co;

    req->cb(req->opaque, MIN(ret, 0));
    if (qatomic_fetch_dec(&req->dev->references) == 1) {
        /* The migration has ended without it. */
        aio_bh_schedule_oneshot(qemu_get_aio_context(), free_device, req->dev);
    }

    qatomic_dec(&in_flight);
    qatomic_inc(&completed);
    co = qatomic_xchg(&waiting_co, NULL);
    if (co) {
        aio_co_wake(co);
    }
    aio_wait_kick();
}

static bool nothing_completed(unsigned seen)
{
    return qatomic_read(&in_flight) && qatomic_read(&completed) == seen;
}

/* Outside load's coroutine: with the iothread lock, only we can poll. */
static void bdrv_ops_aio_wait(void)
{
    unsigned seen = qatomic_read(&completed);

    if (qemu_in_coroutine()) {
        qatomic_xchg(&waiting_co, qemu_coroutine_self());
        /* A completion that has taken waiting_co will wake us. */
        if (nothing_completed(seen) || !qatomic_xchg(&waiting_co, NULL)) {
            qemu_coroutine_yield();
        }
    } else {
        DEVICE_LOCK_GUARD(NULL);

        AIO_WAIT_WHILE(NULL, nothing_completed(seen));
    }
}

/*
 * Storage that hangs must not hold up the monitor where a migration ends: the
 * source waits no longer than its reads should take, and what is in flight
 * then keeps its device until it completes.  The migration thread has not got
 * the iothread lock there, and the library gives the main thread some time.
 */
static void bdrv_ops_aio_flush(void)
{
    int64_t deadline = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + FLUSH_WAIT_MS;

    if (qemu_in_coroutine()) {
        while (qatomic_read(&in_flight)) {
            bdrv_ops_aio_wait();
        }
    } else if (qemu_mutex_iothread_locked()) {
        while (qatomic_read(&in_flight) &&
               qemu_clock_get_ms(QEMU_CLOCK_REALTIME) < deadline) {
            if (!aio_poll(qemu_get_aio_context(), false)) {
                g_usleep(100);
            }
        }
    }
}

static void *submit(typeof(&blk_aio_preadv) fn, BlockDriverState *bs,
                    int64_t sector, const uint8_t *buf, int nb,
                    BlkMigCompletion *cb, void *opaque)
{
    DEVICE_LOCK_GUARD(bs);
    BlockBackend *blk;
    BlkMigRequest *req;

    stop_if_closing();
    blk = find_backend(bs);
    if (!blk) {
        return NULL;
    }
    req = g_new0(BlkMigRequest, 1);
    req->dev = find_device(bs);
    qatomic_inc(&req->dev->references);
    qemu_iovec_init_buf(&req->qiov, (void *)buf, BYTES(nb));
    req->cb = cb;
    req->opaque = opaque;
    qatomic_inc(&in_flight);
    return fn(blk, BYTES(sector), &req->qiov, 0, request_done, req);
}

static void *bdrv_ops_aio_read(BlockDriverState *bs, int64_t sector,
                               uint8_t *buf, int nb, BlkMigCompletion *cb,
                               void *opaque)
{
    return submit(blk_aio_preadv, bs, sector, buf, nb, cb, opaque);
}

static void *bdrv_ops_aio_write(BlockDriverState *bs, int64_t sector,
                                const uint8_t *buf, int nb,
                                BlkMigCompletion *cb, void *opaque)
{
    return submit(blk_aio_pwritev, bs, sector, buf, nb, cb, opaque);
}

static int bdrv_ops_read(BlockDriverState *bs, int64_t sector, uint8_t *buf,
                         int nb)
{
    DEVICE_LOCK_GUARD(bs);

    return blk_pread(find_backend(bs), BYTES(sector), BYTES(nb), buf, 0);
}

static int call_write(BlkMigCall *call)
{
    return blk_pwrite(call->blk, call->offset, call->bytes, call->buf, 0);
}

static int bdrv_ops_write(BlockDriverState *bs, int64_t sector,
                          const uint8_t *buf, int nb)
{
    BlkMigCall call = {
        .fn = call_write,
        .offset = BYTES(sector),
        .bytes = BYTES(nb),
        .buf = buf,
    };

    return call_device(bs, &call);
}

static int call_write_zeroes(BlkMigCall *call)
{
    return blk_pwrite_zeroes(call->blk, call->offset, call->bytes,
                             BDRV_REQ_MAY_UNMAP);
}

static int bdrv_ops_write_zeroes(BlockDriverState *bs, int64_t sector, int nb)
{
    BlkMigCall call = {
        .fn = call_write_zeroes,
        .offset = BYTES(sector),
        .bytes = BYTES(nb),
    };

    return call_device(bs, &call);
}

static int call_flush(BlkMigCall *call)
{
    return blk_flush(call->blk);
}

static int bdrv_ops_flush(BlockDriverState *bs)
{
    BlkMigCall call = { .fn = call_flush };

    return call_device(bs, &call);
}

static const BlkMigBdrvOps bdrv_ops = {
    .struct_size = sizeof(bdrv_ops),
    .iterate = bdrv_ops_iterate,
    .find = bdrv_ops_find,
    .get_device_name = bdrv_ops_get_device_name,
    .getlength = bdrv_ops_getlength,
    .is_read_only = bdrv_ops_is_read_only,
    .is_allocated = bdrv_ops_is_allocated,
    .read = bdrv_ops_read,
    .write = bdrv_ops_write,
    .aio_read = bdrv_ops_aio_read,
    .aio_flush = bdrv_ops_aio_flush,
    .ref = bdrv_ops_ref,
    .unref = bdrv_ops_unref,
    .aio_write = bdrv_ops_aio_write,
    .aio_wait = bdrv_ops_aio_wait,
    .write_zeroes = bdrv_ops_write_zeroes,
    .is_zero = bdrv_ops_is_zero,
    .cluster_size = bdrv_ops_cluster_size,
    .activate = bdrv_ops_activate,
    .flush = bdrv_ops_flush,
};

/* The bitmaps have a lock of their own. */
static int dirty_ops_set_tracking(BlockDriverState *bs, int enable)
{
    DEVICE_LOCK_GUARD(bs);
    BlkMigDevice *dev = find_device(bs);

    if (dev->dirty_bitmap) {
        bdrv_release_dirty_bitmap(dev->dirty_bitmap);
        dev->dirty_bitmap = NULL;
    }
    if (enable) {
        dev->dirty_bitmap = bdrv_create_dirty_bitmap(bs, CHUNK, NULL, NULL);
    }
    return enable && !dev->dirty_bitmap ? -errno : 0;
}

static int dirty_ops_get(BlockDriverState *bs, int64_t sector)
{
    return bdrv_dirty_bitmap_get(find_device(bs)->dirty_bitmap, BYTES(sector));
}

static void dirty_ops_reset(BlockDriverState *bs, int64_t sector, int nb)
{
    bdrv_reset_dirty_bitmap(find_device(bs)->dirty_bitmap, BYTES(sector),
                            BYTES(nb));
}

static int64_t dirty_ops_get_count(BlockDriverState *bs)
{
    return bdrv_get_dirty_count(find_device(bs)->dirty_bitmap) / CHUNK;
}

static int64_t dirty_ops_next(BlockDriverState *bs, int64_t sector)
{
    int64_t offset = bdrv_dirty_bitmap_next_dirty(find_device(bs)->dirty_bitmap,
                                                  BYTES(sector), INT64_MAX);

    return offset < 0 ? -1 : offset >> BDRV_SECTOR_BITS;
}

static const BlkMigDirtyOps dirty_ops = {
    .struct_size = sizeof(dirty_ops),
    .set_tracking = dirty_ops_set_tracking,
    .get = dirty_ops_get,
    .reset = dirty_ops_reset,
    .get_count = dirty_ops_get_count,
    .next = dirty_ops_next,
};

static void file_ops_put_buffer(QEMUFile *f, const uint8_t *buf, int size)
{
    qemu_put_buffer(f, buf, size);
}

/* Once flushed, the buffer is the kernel's or the TLS session's, or lost. */
static void file_ops_put_buffer_nocopy(QEMUFile *f, const uint8_t *buf,
                                       int size, void (*release)(void *opaque),
                                       void *opaque)
{
    qemu_put_buffer_async(f, buf, size, false);
    qemu_fflush(f);
    release(opaque);
}

/* A stream's buffer that was full and has been taken whole is bypassed. */
static int file_ops_get_buffer(QEMUFile *f, uint8_t *buf, int size)
{
    QIOChannel *ioc = qemu_file_get_ioc(f);
    Error *local_err = NULL;
    int done = qemu_get_buffer(f, buf, MIN(size, QEMU_FILE_BUFFER));
    int buffered = done;

    while (done < size && buffered == QEMU_FILE_BUFFER) {
        ssize_t len = qio_channel_read(ioc, (char *)buf + done, size - done,
                                       &local_err);

        if (len > 0) {
            done += len;
        } else if (len != QIO_CHANNEL_ERR_BLOCK) {
            qemu_file_set_error_obj(f, -EIO, local_err);
            break;
        } else if (qemu_in_coroutine()) {
            qio_channel_yield(ioc, G_IO_IN);
        } else {
            qio_channel_wait(ioc, G_IO_IN);
        }
    }
    qemu_file_credit_transfer(f, done - buffered);
    return done;
}

static const BlkMigFileOps file_ops = {
    .struct_size = sizeof(file_ops),
    .put_buffer = file_ops_put_buffer,
    .put_byte = qemu_put_byte,
    .put_be64 = qemu_put_be64,
    .get_buffer = file_ops_get_buffer,
    .get_byte = qemu_get_byte,
    .get_be64 = qemu_get_be64,
    .rate_limit = qemu_file_rate_limit,
    .get_rate_limit = qemu_file_get_rate_limit,
    .has_error = qemu_file_get_error,
    .set_error = qemu_file_set_error,
    .flush = qemu_fflush,
    .put_buffer_nocopy = file_ops_put_buffer_nocopy,
};

/* Gives query-migrate the cause: the channel's, or else the library's. */
static int report_failure(QEMUFile *f, int ret)
{
    MigrationState *s = migrate_get_current();
    Error *err = NULL;
    char text[512];

    if (ret >= 0 || s->state == MIGRATION_STATUS_CANCELLING) {
        return ret;
    }
    qemu_file_get_error_obj(f, &err);
    if (cause) {
        error_free(err);
        err = error_copy(cause);
    } else if (!err) {
        blk_mig_last_error(text, sizeof(text));
        error_setg(&err, "Block migration: %s", text);
    }
    migrate_set_error(s, err);
    error_free(err);
    /* With a return path, a destination would wait for the rest for ever. */
    qemu_file_shutdown(f);
    return ret;
}

/* As block.c did it: the destination's progress goes to stdout. */
static void system_ops_log(int level, const char *message)
{
    if (level == 2) {
        warn_report("%s", message);
    } else if (level == 3) {
        printf("%s\n", message);
        fflush(stdout);
    }
}

/* The library does not see what has no node at all. */
static void log_empty_drives(void)
{
    BlockBackend *blk = NULL;

    while ((blk = blk_next(blk))) {
        if (!blk_bs(blk)) {
            g_autofree char *text = g_strdup_printf(
                "device %s is not migrated: it is empty", blk_name(blk));

            system_ops_log(3, text);
        }
    }
}

/* RAM of one time and disks of another make no guest. */
static const char *incompatible_capability(void)
{
    if (!migrate_use_block()) {
        return NULL;
    }
    return migrate_background_snapshot() ? "background-snapshot" :
           migrate_colo_enabled() ? "x-colo" : NULL;
}

/* The iothread lock keeps what iterate has found until ref has got it. */
static int block_save_setup(QEMUFile *f, void *opaque)
{
    DEVICE_LOCK_GUARD(NULL);
    QIOChannel *ioc = qemu_file_get_ioc(f);
    BlkMigOptions options = {
        .struct_size = sizeof(options),
        /* What few reads bring stays in the CPU's cache on its way. */
        .max_reads = 4,
        .zero_blocks = migrate_zero_blocks(),
        .accept_tail_garbage = accept_tail_garbage,
    };

    error_free(cause);
    cause = NULL;
    if (incompatible_capability()) {
        /*
         * The stream has an error already.  One of ours would keep RAM from
         * being set up, which the snapshot's thread relies on.
         */
        return 0;
    }
    if (migrate_use_block()) {
        log_empty_drives();
    }
    /* With a local socket's default, both sides wake for every 200 KiB. */
    if (qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_FD_PASS)) {
        setsockopt(QIO_CHANNEL_SOCKET(ioc)->fd, SOL_SOCKET, SO_SNDBUF,
                   &(int){ 512 * KiB }, sizeof(int));
    }
    blk_mig_set_params(migrate_use_block(), migrate_use_block_incremental(),
                       opaque);
    blk_mig_set_options(&options);
    return report_failure(f, blk_mig_save_setup(f, opaque));
}

/* 1 on success: after a 0, savevm would not let RAM have its turn. */
static int block_save_iterate(QEMUFile *f, void *opaque)
{
    int ret = blk_mig_save_iterate(f, opaque);

    return ret < 0 ? report_failure(f, ret) : 1;
}

/*
 * A disk under which something else was put, or that the guest has left for
 * another node, has data that nobody tracked.
 */
static BlkMigDevice *find_changed(void)
{
    GHashTableIter iter;
    gpointer bs, value;

    g_hash_table_iter_init(&iter, devices);
    while (g_hash_table_iter_next(&iter, &bs, &value)) {
        BlkMigDevice *dev = value;

        if (has_moved(dev, bs) || has_changed(dev)) {
            return dev;
        }
    }
    return NULL;
}

static int block_save_complete(QEMUFile *f, void *opaque)
{
    BlkMigDevice *changed = find_changed();
    Error *err = NULL;

    if (changed) {
        error_setg(&err, CHANGED, changed->name);
        migrate_set_error(migrate_get_current(), err);
        error_free(err);
        qemu_file_set_error(f, -EINVAL);
        qemu_file_shutdown(f);
        return -EINVAL;
    }
    return report_failure(f, blk_mig_save_complete(f, opaque));
}

static void block_save_pending(QEMUFile *f, void *opaque, uint64_t max_size,
                               uint64_t *res_precopy_only,
                               uint64_t *res_compatible,
                               uint64_t *res_postcopy_only)
{
    /* savevm goes on while the sum of all is not below max_size. */
    *res_precopy_only += blk_mig_save_pending_switchover(opaque, max_size);
}

static void remove_all_devices(void)
{
    g_autoptr(GList) all = g_hash_table_get_values(devices);

    for (GList *item = all; item; item = item->next) {
        remove_device(item->data);
    }
}

/* In the main thread, when the guest has arrived. */
static int block_load_cleanup(void *opaque)
{
    remove_all_devices();
    return 0;
}

static int block_load(QEMUFile *f, void *opaque, int version_id)
{
    BlkMigOptions options = {
        .struct_size = sizeof(options),
        .accept_tail_garbage = accept_tail_garbage,
    };

    blk_mig_set_options(&options);
    return blk_mig_load(f, opaque, version_id);
}

static bool block_is_active(void *opaque)
{
    return migrate_use_block();
}

static const SaveVMHandlers savevm_block_handlers = {
    .save_setup = block_save_setup,
    .save_live_iterate = block_save_iterate,
    .save_live_complete_precopy = block_save_complete,
    .save_live_pending = block_save_pending,
    .load_state = block_load,
    .load_cleanup = block_load_cleanup,
    .save_cleanup = blk_mig_save_cleanup,
    .is_active = block_is_active,
};

/* The migration stages of 2011 are handlers of their own here. */
static int system_ops_register(void *dev, const char *idstr, int instance_id,
                               int version_id, BlkMigSetParams *set_params,
                               BlkMigSaveLive *save_live, void *save_state,
                               BlkMigLoad *load, void *opaque)
{
    return register_savevm_live(idstr, instance_id, version_id,
                                &savevm_block_handlers, opaque);
}

static int64_t system_ops_clock_ns(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

static uint64_t system_ops_max_downtime_ns(void)
{
    return migrate_get_current()->parameters.downtime_limit * SCALE_MS;
}

static const BlkMigSystemOps system_ops = {
    .struct_size = sizeof(system_ops),
    .register_savevm_live = system_ops_register,
    .clock_ns = system_ops_clock_ns,
    .max_downtime_ns = system_ops_max_downtime_ns,
    .error_report = error_report,
    .log = system_ops_log,
};

static const BlkMigHost host = {
    .struct_size = sizeof(host),
    .abi_version = BLK_MIG_ABI_VERSION,
    .flags = BLK_MIG_HOST_THREADED,
    .bdrv = &bdrv_ops,
    .dirty = &dirty_ops,
    .file = &file_ops,
    .system = &system_ops,
};

/* QEMU does not say why it could not give up the disks: a job that uses one. */
static void name_jobs(GString *text)
{
    BlockJob *job;

    JOB_LOCK_GUARD();
    for (job = block_job_next_locked(NULL); job;
         job = block_job_next_locked(job)) {
        g_string_append_printf(text, "; block job '%s' is running",
                               job->job.id ?: "(internal)");
    }
}

/* Before the migration's thread starts, and after it has ended. */
static void migration_changed(Notifier *notifier, void *data)
{
    MigrationState *s = data;
    const char *capability = incompatible_capability();
    Error *err = NULL;

    if (!migrate_use_block()) {
        return;
    }
    if (migration_in_setup(s) && capability) {
        error_setg(&err, "Block migration and %s are incompatible", capability);
        qemu_file_set_error(s->to_dst_file, -EINVAL);
        if (s->must_remove_block_options) {
            /*
             * The switch of this one migration.  QEMU would take it back when
             * all is over, but not expect that capabilities that the snapshot
             * needs can't be checked then, and abort.
             */
            s->enabled_capabilities[MIGRATION_CAPABILITY_BLOCK] = false;
            s->parameters.block_incremental = false;
            s->must_remove_block_options = false;
        }
    } else if (migration_has_failed(s) && !s->error) {
        g_autoptr(GString) jobs = g_string_new(NULL);

        name_jobs(jobs);
        error_setg(&err, "The migration failed after the disks were sent%s",
                   jobs->str);
    }
    if (err) {
        migrate_set_error(s, err);
        error_free(err);
    }
}

/* Until its thread has ended, which is the last thing that QEMU waits for. */
static bool is_migrating(void)
{
    return g_hash_table_size(devices) ||
           (migrate_use_block() && migrate_get_current()->to_dst_file);
}

/* Before QEMU takes the block layer down, the migration must have ended. */
static void shutting_down(Notifier *notifier, void *data)
{
    int64_t deadline = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + 5000;

    if (shutdown_action == SHUTDOWN_ACTION_PAUSE) {
        return;
    }
    closing = runstate_check(RUN_STATE_INMIGRATE);
    if (closing) {
        /* Load's coroutine will not come back to do it. */
        remove_all_devices();
    }
    if (is_migrating()) {
        migration_cancel(NULL);
    }
    while (is_migrating() &&
           qemu_clock_get_ms(QEMU_CLOCK_REALTIME) < deadline) {
        qemu_mutex_unlock_iothread();
        g_usleep(1000);
        qemu_mutex_lock_iothread();
        aio_poll(qemu_get_aio_context(), false);
    }
}

static Notifier migration_notifier = { .notify = migration_changed };
static Notifier shutdown_notifier = { .notify = shutting_down };

static bool get_accept_tail_garbage(Object *obj, Error **errp)
{
    return accept_tail_garbage;
}

static void set_accept_tail_garbage(Object *obj, bool value, Error **errp)
{
    accept_tail_garbage = value;
}

/* What the user can set: qom-set path=/blkmig property=... value=... */
static void add_settings(void)
{
    Object *settings = object_new("container");

    object_property_add_bool(settings, "accept-tail-garbage",
                             get_accept_tail_garbage,
                             set_accept_tail_garbage);
    object_property_add_child(object_get_root(), "blkmig", settings);
    object_unref(settings);
}

/* Before blk_mig_init(), which migration_object_init() calls. */
static void block_migration_host_init(void)
{
    int ret = blk_mig_set_host(&host);

    assert(ret == 0);
    devices = g_hash_table_new(NULL, NULL);
    error_setg(&blocker, "block device is in use by migration");
    add_migration_state_change_notifier(&migration_notifier);
    qemu_register_shutdown_notifier(&shutdown_notifier);
    add_settings();
}

migration_init(block_migration_host_init)
