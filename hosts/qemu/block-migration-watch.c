/*
 * Block migration by the blkmig library: what changes under a disk
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "block/dirty-bitmap.h"
#include "block-migration-host.h"

typedef struct BlkMigWatch {
    BdrvDirtyBitmap *dirty_bitmap;
    /* The node and those under it; held, and closed to other operations. */
    GSList *nodes;
    /* The same as text: the migration fails if that changes. */
    GString *tree;
    /* The same without what QEMU has to work out. */
    GString *links;
    /* It, or its length, was seen to change, though it may have changed back. */
    bool changed;
} BlkMigWatch;

Error *blkmig_cause;
static Error *blocker;

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

/*
 * A disk under which something else was put, or that the guest or our own
 * backend has left for another node, has data that nobody tracked.
 */
bool blkmig_was_seen_to_change(BlkMigDevice *dev)
{
    if (!dev->watch->changed && blkmig_guest_backend(dev->bs) &&
        blk_bs(dev->blk) == dev->bs) {
        return false;
    }
    if (!blkmig_cause) {
        error_setg(&blkmig_cause, "Block migration: what is under device '%s' "
                   "was changed meanwhile (by a block job that ended, for "
                   "instance)", dev->name);
    }
    return true;
}

bool blkmig_has_changed(BlkMigDevice *dev)
{
    g_autoptr(GString) tree = g_string_new(NULL);

    if (!blkmig_was_seen_to_change(dev)) {
        describe_tree(dev->bs, tree);
        dev->watch->changed = !g_string_equal(tree, dev->watch->tree);
    }
    return blkmig_was_seen_to_change(dev);
}

/*
 * Whatever changes a tree drains it first: what was changed before that is
 * seen, though it may be about to be changed back.
 */
static void watch_drained_begin(void *opaque)
{
    BlkMigDevice *dev = opaque;
    g_autoptr(GString) links = NULL;

    /* An iothread that drains for a block job of its own changes nothing. */
    if (bql_locked() && !dev->watch->changed) {
        links = g_string_new(NULL);
        describe_links(dev->bs, links);
        dev->watch->changed = !g_string_equal(links, dev->watch->links);
    }
}

/* Also if it gets its old length back, what was cut off is gone. */
static void watch_resized(void *opaque)
{
    BlkMigDevice *dev = opaque;

    dev->watch->changed = true;
}

static const BlockDevOps watch_dev_ops = {
    .resize_cb = watch_resized,
    .drained_begin = watch_drained_begin,
};

/*
 * What QEMU's users can do to a disk by way of a node below it is refused as
 * what they can do to the disk itself.
 */
static void block_nodes(BlkMigWatch *watch, BlockDriverState *bs)
{
    BdrvChild *child;

    if (g_slist_find(watch->nodes, bs)) {
        return;
    }
    bdrv_ref(bs);
    bdrv_op_block_all(bs, blocker);
    watch->nodes = g_slist_prepend(watch->nodes, bs);
    QLIST_FOREACH(child, &bs->children, next) {
        block_nodes(watch, child->bs);
    }
}

static void give_back_node(BlockDriverState *bs)
{
    AioContext *ctx = bdrv_get_aio_context(bs);

    aio_context_acquire(ctx);
    bdrv_unref(bs);
    aio_context_release(ctx);
}

static void unblock_nodes(BlkMigWatch *watch)
{
    for (GSList *item = watch->nodes; item; item = item->next) {
        bdrv_op_unblock_all(item->data, blocker);
        give_back_node(item->data);
    }
    g_slist_free(watch->nodes);
}

void blkmig_watch(BlkMigDevice *dev)
{
    BlkMigWatch *watch = g_new0(BlkMigWatch, 1);

    if (!blocker) {
        error_setg(&blocker, "block device is in use by migration");
    }
    block_nodes(watch, dev->bs);
    watch->tree = g_string_new(NULL);
    describe_tree(dev->bs, watch->tree);
    watch->links = g_string_new(NULL);
    describe_links(dev->bs, watch->links);
    dev->watch = watch;
    blk_set_dev_ops(dev->blk, &watch_dev_ops, dev);
}

void blkmig_unwatch(BlkMigDevice *dev)
{
    BlkMigWatch *watch = dev->watch;

    blk_set_dev_ops(dev->blk, NULL, NULL);
    dev->watch = NULL;
    unblock_nodes(watch);
    g_string_free(watch->tree, true);
    g_string_free(watch->links, true);
    g_free(watch);
}

/*
 * Nodes that the library was told of and has not taken in.  What it asks of one
 * of them may poll, and so end a block job and free another.
 */
static GSList *visited;

void blkmig_forget_visited(void)
{
    if (!visited) {
        return;
    }
    DEVICE_LOCK_GUARD(NULL);
    for (GSList *item = visited; item; item = item->next) {
        give_back_node(item->data);
    }
    g_slist_free(visited);
    visited = NULL;
}

bool blkmig_is_still_there(BlockDriverState *bs)
{
    if (blkmig_guest_backend(bs)) {
        return true;
    }
    if (!blkmig_cause) {
        error_setg(&blkmig_cause, "Block migration: node '%s' was taken away "
                   "meanwhile (by a block job that ended, for instance)",
                   bdrv_get_node_name(bs));
    }
    return false;
}

void blkmig_iterate(BlkMigDeviceVisitor *it, void *opaque)
{
    DEVICE_LOCK_GUARD(NULL);
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    BdrvNextIterator iter;
    BlockDriverState *bs;

    for (bs = bdrv_first(&iter); bs; bs = bdrv_next(&iter)) {
        BlockBackend *blk = blkmig_guest_backend(bs);

        /*
         * Nodes without a backend are parts of devices, or nobody's.  What
         * comes while the migration runs matters if the guest can write to it.
         */
        if (blk && (blkmig_find_device(bs) || !blkmig_has_devices() ||
                    blk_get_attached_dev(blk))) {
            if (!blkmig_find_device(bs)) {
                bdrv_ref(bs);
                visited = g_slist_prepend(visited, bs);
            }
            it(opaque, bs);
        }
    }
}

/* The bitmaps have a lock of their own. */
static BdrvDirtyBitmap *find_bitmap(BlockDriverState *bs)
{
    return blkmig_find_device(bs)->watch->dirty_bitmap;
}

static int dirty_ops_set_tracking(BlockDriverState *bs, int enable)
{
    DEVICE_LOCK_GUARD(bs);
    BlkMigWatch *watch = blkmig_find_device(bs)->watch;

    if (watch->dirty_bitmap) {
        bdrv_release_dirty_bitmap(watch->dirty_bitmap);
        watch->dirty_bitmap = NULL;
    }
    if (enable) {
        watch->dirty_bitmap = bdrv_create_dirty_bitmap(bs, blkmig_dirty_unit(),
                                                       NULL, NULL);
    }
    return enable && !watch->dirty_bitmap ? -errno : 0;
}

static int dirty_ops_get(BlockDriverState *bs, int64_t sector)
{
    return bdrv_dirty_bitmap_get(find_bitmap(bs), BYTES(sector));
}

static void dirty_ops_reset(BlockDriverState *bs, int64_t sector, int nb)
{
    bdrv_reset_dirty_bitmap(find_bitmap(bs), BYTES(sector), BYTES(nb));
}

static int64_t dirty_ops_get_count(BlockDriverState *bs)
{
    BdrvDirtyBitmap *bitmap = find_bitmap(bs);

    return bdrv_get_dirty_count(bitmap) / bdrv_dirty_bitmap_granularity(bitmap);
}

static int64_t dirty_ops_next(BlockDriverState *bs, int64_t sector)
{
    int64_t offset = bdrv_dirty_bitmap_next_dirty(find_bitmap(bs),
                                                  BYTES(sector), INT64_MAX);

    return offset < 0 ? -1 : offset >> BDRV_SECTOR_BITS;
}

static int64_t dirty_ops_granularity(BlockDriverState *bs)
{
    return bdrv_dirty_bitmap_granularity(find_bitmap(bs));
}

const BlkMigDirtyOps blkmig_dirty_ops = {
    .struct_size = sizeof(blkmig_dirty_ops),
    .set_tracking = dirty_ops_set_tracking,
    .get = dirty_ops_get,
    .reset = dirty_ops_reset,
    .get_count = dirty_ops_get_count,
    .next = dirty_ops_next,
    .granularity = dirty_ops_granularity,
};
