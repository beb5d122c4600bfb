/*
 * Block migration by the blkmig library: its devices
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "hw/qdev-core.h"
#include "block-migration-host.h"

/*
 * BlockDriverState to BlkMigDevice.  On the source only the migration thread
 * changes it while that runs, with the big lock; so it may read it without.  On
 * the destination the devices stay from the first section that names them to
 * the end of load.
 */
static GHashTable *devices;

/* The destination quits: its backends go away, and load must not go on. */
static bool closing;

void blkmig_init_devices(void)
{
    devices = g_hash_table_new(NULL, NULL);
}

void blkmig_stop_if_closing(void)
{
    while (closing && qemu_in_coroutine()) {
        qemu_coroutine_yield();
    }
}

DeviceLock blkmig_lock_device(BlockDriverState *bs)
{
    DeviceLock lock = { .big_locked = !bql_locked() };

    blkmig_stop_if_closing();
    if (lock.big_locked) {
        bql_lock();
    }
    if (bs && !qemu_in_coroutine()) {
        lock.ctx = bdrv_get_aio_context(bs);
        aio_context_acquire(lock.ctx);
    }
    return lock;
}

void blkmig_unlock_device(DeviceLock *lock)
{
    if (lock->ctx) {
        aio_context_release(lock->ctx);
    }
    if (lock->big_locked) {
        bql_unlock();
    }
}

BlkMigDevice *blkmig_find_device(BlockDriverState *bs)
{
    return g_hash_table_lookup(devices, bs);
}

BlockBackend *blkmig_guest_backend(BlockDriverState *bs)
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
 * A device that is unplugged drains its backend, and gives up the permission to
 * write later, without draining.  What began in between would find it gone.
 */
static bool is_unplugged(BlockBackend *blk)
{
    DeviceState *dev = blk_get_attached_dev(blk);

    return dev && !qatomic_read(&dev->realized);
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
        blkmig_stop_if_closing();
    }
}

BlockBackend *blkmig_find_backend(BlockDriverState *bs)
{
    BlkMigDevice *dev = blkmig_find_device(bs);
    bool usable;

    if (dev) {
        wait_while_drained(dev);
    }
    usable = dev && leads_to(blk_bs(dev->blk), bs) && !is_unplugged(dev->blk);

    return usable && (dev->watch || may_write(dev->blk)) ? dev->blk : NULL;
}

BlockDriverState *blkmig_find_node(BlockDriverState *bs)
{
    BlkMigDevice *dev = blkmig_find_device(bs);

    if (!dev || dev->watch) {
        return bs;
    }
    wait_while_drained(dev);
    return leads_to(blk_bs(dev->blk), bs) ? blk_bs(dev->blk) : NULL;
}

BlkMigDevice *blkmig_search_devices(bool (*test)(BlkMigDevice *dev,
                                                 const void *opaque),
                                    const void *opaque)
{
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, devices);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        if (test(value, opaque)) {
            return value;
        }
    }
    return NULL;
}

bool blkmig_has_devices(void)
{
    return g_hash_table_size(devices);
}

static bool has_name(BlkMigDevice *dev, const void *name)
{
    return !strcmp(dev->name, name);
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

/* In the main thread, or with the big lock in that of the migration. */
static void free_device(void *opaque)
{
    BlkMigDevice *dev = opaque;
    AioContext *ctx = bdrv_get_aio_context(dev->bs);

    aio_context_acquire(ctx);
    blk_set_disable_request_queuing(dev->blk, false);
    blk_unref(dev->blk);
    bdrv_unref(dev->bs);
    aio_context_release(ctx);
    g_free(dev->name);
    g_free(dev);
}

void blkmig_get_device(BlkMigDevice *dev)
{
    qatomic_inc(&dev->references);
}

/* Closing it, if it comes to that, is no work for a request's coroutine. */
void blkmig_put_device(BlkMigDevice *dev)
{
    if (qatomic_fetch_dec(&dev->references) == 1) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), free_device, dev);
    }
}

/* The library has done with it; what is in flight may still need it. */
static void remove_device(BlkMigDevice *dev)
{
    g_hash_table_remove(devices, dev->bs);
    if (qemu_in_coroutine()) {
        blkmig_put_device(dev);
    } else if (qatomic_fetch_dec(&dev->references) == 1) {
        free_device(dev);
    }
}

/* By its drive's name, or by that of a node down to the first that is data. */
static bool is_named(BlockBackend *blk, const char *name)
{
    BlockDriverState *bs = blk_bs(blk);

    if (!bs || blkmig_guest_backend(bs) != blk) {
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

/* Load runs in a coroutine, but for a snapshot. */
static int activate(BlockDriverState *bs, Error **errp)
{
    return qemu_in_coroutine() ? bdrv_co_activate(bs, errp) :
                                 bdrv_activate(bs, errp);
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
    if (activate(bs, errp) < 0) {
        return NULL;
    }
    own = qemu_in_coroutine() ?
          blk_co_new_with_bs(bs, BLK_PERM_WRITE, BLK_PERM_ALL, errp) :
          blk_new_with_bs(bs, BLK_PERM_WRITE, BLK_PERM_ALL, errp);
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
    /*
     * Nothing new comes while it is drained (wait_while_drained).  What was to
     * begin must end before, not later: it would go on in the AioContext that
     * the device had, as QEMU 7.2 does not see that it has another.
     */
    blk_set_disable_request_queuing(opened, true);
    add_device(bs, opened, name);
    return bs;
}

BlockDriverState *blkmig_find(const char *name)
{
    DEVICE_LOCK_GUARD(NULL);
    BlockBackend *blk = NULL;
    BlkMigDevice *dev = blkmig_search_devices(has_name, name);

    if (dev) {
        return dev->bs;
    }
    while ((blk = blk_all_next(blk))) {
        if (is_named(blk, name)) {
            return open_device(blk, name);
        }
    }
    return NULL;
}

const char *blkmig_get_device_name(BlockDriverState *bs)
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

/* A coroutine has to keep the nodes from being linked anew. */
static int64_t node_length(BlockDriverState *bs)
{
    int64_t length;

    if (!qemu_in_coroutine()) {
        return bdrv_getlength(bs);
    }
    bdrv_graph_co_rdlock();
    length = bdrv_getlength(bs);
    bdrv_graph_co_rdunlock();
    return length;
}

int64_t blkmig_getlength(BlockDriverState *bs)
{
    DEVICE_LOCK_GUARD(bs);
    BlkMigDevice *dev = blkmig_find_device(bs);

    if (dev && dev->watch) {
        /* A filter that its block job has taken away leads to nothing. */
        return blkmig_was_seen_to_change(dev) ? -ENODEV : node_length(bs);
    }
    if (!dev && !blkmig_is_still_there(bs)) {
        return -EAGAIN;
    }
    bs = blkmig_find_node(bs);
    return bs ? node_length(bs) : -ENODEV;
}

/* A CD-ROM drive has no use for an image that could be written to. */
int blkmig_is_read_only(BlockDriverState *bs)
{
    BlockBackend *blk = blkmig_guest_backend(bs);

    /* The destination has looked at it when it found it. */
    if (blkmig_find_device(bs)) {
        return false;
    }
    return bdrv_is_read_only(bs) ||
           (blk && blk_get_attached_dev(blk) && !may_write(blk));
}

/* On the source; the destination's devices are there since they were found. */
int blkmig_ref(BlockDriverState *bs)
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
    if (!blkmig_is_still_there(bs)) {
        blk_unref(blk);
        return -EAGAIN;
    }
    dev = add_device(bs, blk, blkmig_get_device_name(bs));
    blkmig_watch(dev);
    return 0;
}

void blkmig_unref(BlockDriverState *bs)
{
    DEVICE_LOCK_GUARD(NULL);
    BlkMigDevice *dev = blkmig_find_device(bs);

    if (dev && dev->watch) {
        blkmig_unwatch(dev);
        remove_device(dev);
    }
}

int blkmig_activate(BlockDriverState *bs)
{
    Error *local_err = NULL;

    blkmig_stop_if_closing();
    bs = blkmig_find_node(bs);
    if (!bs) {
        return -ENODEV;
    }
    if (activate(bs, &local_err) < 0) {
        error_report_err(local_err);
        return -EIO;
    }
    return 0;
}

void blkmig_end_load(void)
{
    DEVICE_LOCK_GUARD(NULL);
    g_autoptr(GList) all = g_hash_table_get_values(devices);

    for (GList *item = all; item; item = item->next) {
        BlkMigDevice *dev = item->data;

        if (!dev->watch) {
            remove_device(dev);
        }
    }
}

void blkmig_stop_load(void)
{
    closing = true;
    /* Load's coroutine will not come back to do it. */
    blkmig_end_load();
}
