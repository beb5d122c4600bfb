/*
 * Block migration by the blkmig library: requests
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "block-migration-host.h"

/* How long is waited for what storage that does not hang has done by then. */
#define WAIT_MS 100

typedef struct BlkMigRequest {
    BlkMigDevice *dev;
    QEMUIOVector qiov;
    BlkMigCompletion *cb;
    void *opaque;
} BlkMigRequest;

/* The requests; accessed with atomic operations. */
static unsigned in_flight;
static unsigned completed;
static Coroutine *waiting_co;

/*
 * Something that is waited for.  It is not done by who asks.  Load's coroutine
 * runs in the main AioContext, while what the device's own has submitted
 * completes there: the two would change the same lists at once.  And the
 * source's storage may hang, or a block job may end meanwhile and drain the
 * device: then the source must not hold the big lock, nor poll.
 */
typedef struct BlkMigCall {
    /* Who asks, and the request. */
    unsigned references;
    BlkMigDevice *dev;
    BlockBackend *blk;
    int64_t offset;
    int64_t bytes;
    QEMUIOVector qiov;
    int64_t count;
    int ret;
    /* Load's coroutine, or NULL. */
    Coroutine *caller;
    bool done;
    QemuSemaphore ended;
} BlkMigCall;

static void put_call(BlkMigCall *call)
{
    if (qatomic_fetch_dec(&call->references) == 1) {
        blkmig_put_device(call->dev);
        qemu_sem_destroy(&call->ended);
        g_free(call);
    }
}

static void call_done(void *opaque, int ret)
{
    BlkMigCall *call = opaque;

    call->ret = ret;
    if (call->caller) {
        aio_co_wake(call->caller);
    } else {
        qemu_sem_post(&call->ended);
        qatomic_set(&call->done, true);
        aio_wait_kick();
    }
    put_call(call);
}

/*
 * For the start of a request: in an iothread it must not complete before QEMU
 * has set up all of it.
 */
static AioContext *acquire_context(BlockBackend *blk)
{
    AioContext *ctx = blk_get_aio_context(blk);

    aio_context_acquire(ctx);
    return ctx;
}

/*
 * Once it was started it is in flight, and whoever moves the device to another
 * AioContext waits for it.
 */
static BlkMigCall *start_call(void (*start)(BlkMigCall *call),
                              BlockDriverState *bs, int64_t sector, int nb,
                              const uint8_t *buf)
{
    DEVICE_LOCK_GUARD(bs);
    BlockBackend *blk = blkmig_find_backend(bs);
    BlkMigCall *call;
    AioContext *ctx;

    if (!blk) {
        return NULL;
    }
    call = g_new0(BlkMigCall, 1);
    call->references = 2;
    call->dev = blkmig_find_device(bs);
    blkmig_get_device(call->dev);
    call->blk = blk;
    call->offset = BYTES(sector);
    call->bytes = BYTES(nb);
    qemu_iovec_init_buf(&call->qiov, (void *)buf, BYTES(nb));
    qemu_sem_init(&call->ended, 0);
    call->caller = qemu_in_coroutine() ? qemu_coroutine_self() : NULL;
    ctx = acquire_context(blk);
    start(call);
    aio_context_release(ctx);
    if (call->caller) {
        qemu_coroutine_yield();
    } else if (!device_lock.big_locked) {
        AIO_WAIT_WHILE(device_lock.ctx, !qatomic_read(&call->done));
    }
    return call;
}

/* -EAGAIN if the source's storage takes too long to tell. */
static int call_device(void (*start)(BlkMigCall *call), BlockDriverState *bs,
                       int64_t sector, int nb, const uint8_t *buf, int *pnum)
{
    BlkMigCall *call = start_call(start, bs, sector, nb, buf);
    int ret = -EAGAIN;

    *pnum = 0;
    if (!call) {
        return -ENODEV;
    }
    if (call->caller || qemu_sem_timedwait(&call->ended, WAIT_MS) == 0) {
        ret = call->ret;
        *pnum = call->count >> BDRV_SECTOR_BITS;
    }
    put_call(call);
    return ret;
}

static void ask(BlkMigCall *call, CoroutineEntry *entry)
{
    blk_inc_in_flight(call->blk);
    aio_co_enter(blk_get_aio_context(call->blk),
                 qemu_coroutine_create(entry, call));
}

static void answer(BlkMigCall *call, int ret)
{
    blk_dec_in_flight(call->blk);
    call_done(call, ret);
}

static void coroutine_fn ask_is_allocated(void *opaque)
{
    BlkMigCall *call = opaque;
    BlockDriverState *bs;
    int ret = -ENODEV;

    bdrv_graph_co_rdlock();
    bs = blk_bs(call->blk);
    if (bs) {
        ret = bdrv_is_allocated(bs, call->offset, call->bytes, &call->count);
    }
    bdrv_graph_co_rdunlock();
    answer(call, ret);
}

static void start_is_allocated(BlkMigCall *call)
{
    ask(call, ask_is_allocated);
}

static int bdrv_ops_is_allocated(BlockDriverState *bs, int64_t sector, int nb,
                                 int *pnum)
{
    return call_device(start_is_allocated, bs, sector, nb, NULL, pnum);
}

static void coroutine_fn ask_is_zero(void *opaque)
{
    BlkMigCall *call = opaque;
    BlockDriverState *bs;
    int ret = -ENODEV;

    bdrv_graph_co_rdlock();
    bs = blk_bs(call->blk);
    if (bs) {
        ret = bdrv_block_status_above(bs, NULL, call->offset, call->bytes,
                                      &call->count, NULL, NULL);
    }
    bdrv_graph_co_rdunlock();
    answer(call, ret < 0 ? ret : !!(ret & BDRV_BLOCK_ZERO));
}

static void start_is_zero(BlkMigCall *call)
{
    ask(call, ask_is_zero);
}

static int bdrv_ops_is_zero(BlockDriverState *bs, int64_t sector, int nb,
                            int *pnum)
{
    return call_device(start_is_zero, bs, sector, nb, NULL, pnum);
}

static int bdrv_ops_cluster_size(BlockDriverState *bs)
{
    DEVICE_LOCK_GUARD(bs);
    BlockDriverState *node = blkmig_find_node(bs);
    BlockDriverInfo bdi;
    int ret = -ENODEV;

    if (node && qemu_in_coroutine()) {
        bdrv_graph_co_rdlock();
        ret = bdrv_get_info(node, &bdi);
        bdrv_graph_co_rdunlock();
    } else if (node) {
        ret = bdrv_get_info(node, &bdi);
    }
    return ret < 0 ? 0 : bdi.cluster_size;
}

/* In the device's AioContext, or whoever polls with the big lock. */
static void request_done(void *opaque, int ret)
{
    g_autofree BlkMigRequest *req = opaque;
    Coroutine *co;

    req->cb(req->opaque, MIN(ret, 0));
    /* The last reference if the migration has ended without it. */
    blkmig_put_device(req->dev);

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

/* Outside load's coroutine: with the big lock, only we can poll. */
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
 * the big lock there, and the library gives the main thread some time.
 */
static void bdrv_ops_aio_flush(void)
{
    int64_t deadline = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + WAIT_MS;

    if (qemu_in_coroutine()) {
        while (qatomic_read(&in_flight)) {
            bdrv_ops_aio_wait();
        }
    } else if (bql_locked()) {
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
    AioContext *ctx;
    void *acb;

    blkmig_stop_if_closing();
    blk = blkmig_find_backend(bs);
    if (!blk) {
        return NULL;
    }
    req = g_new0(BlkMigRequest, 1);
    req->dev = blkmig_find_device(bs);
    blkmig_get_device(req->dev);
    qemu_iovec_init_buf(&req->qiov, (void *)buf, BYTES(nb));
    req->cb = cb;
    req->opaque = opaque;
    qatomic_inc(&in_flight);
    ctx = acquire_context(blk);
    acb = fn(blk, BYTES(sector), &req->qiov, 0, request_done, req);
    aio_context_release(ctx);
    return acb;
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

    return blk_pread(blkmig_find_backend(bs), BYTES(sector), BYTES(nb), buf, 0);
}

static void start_write(BlkMigCall *call)
{
    blk_aio_pwritev(call->blk, call->offset, &call->qiov, 0, call_done, call);
}

static int bdrv_ops_write(BlockDriverState *bs, int64_t sector,
                          const uint8_t *buf, int nb)
{
    int unused;

    return call_device(start_write, bs, sector, nb, buf, &unused);
}

static void start_write_zeroes(BlkMigCall *call)
{
    blk_aio_pwrite_zeroes(call->blk, call->offset, call->bytes,
                          BDRV_REQ_MAY_UNMAP, call_done, call);
}

static int bdrv_ops_write_zeroes(BlockDriverState *bs, int64_t sector, int nb)
{
    int unused;

    return call_device(start_write_zeroes, bs, sector, nb, NULL, &unused);
}

static void start_flush(BlkMigCall *call)
{
    blk_aio_flush(call->blk, call_done, call);
}

static int bdrv_ops_flush(BlockDriverState *bs)
{
    int unused;

    return call_device(start_flush, bs, 0, 0, NULL, &unused);
}

const BlkMigBdrvOps blkmig_bdrv_ops = {
    .struct_size = sizeof(blkmig_bdrv_ops),
    .iterate = blkmig_iterate,
    .find = blkmig_find,
    .get_device_name = blkmig_get_device_name,
    .getlength = blkmig_getlength,
    .is_read_only = blkmig_is_read_only,
    .is_allocated = bdrv_ops_is_allocated,
    .read = bdrv_ops_read,
    .write = bdrv_ops_write,
    .aio_read = bdrv_ops_aio_read,
    .aio_flush = bdrv_ops_aio_flush,
    .ref = blkmig_ref,
    .unref = blkmig_unref,
    .aio_write = bdrv_ops_aio_write,
    .aio_wait = bdrv_ops_aio_wait,
    .write_zeroes = bdrv_ops_write_zeroes,
    .is_zero = bdrv_ops_is_zero,
    .cluster_size = bdrv_ops_cluster_size,
    .activate = blkmig_activate,
    .flush = bdrv_ops_flush,
};
