/*
 * Block migration by the blkmig library: what its files share
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */

#ifndef MIGRATION_BLOCK_MIGRATION_HOST_H
#define MIGRATION_BLOCK_MIGRATION_HOST_H

#include "qemu/units.h"
#include "block-migration-compat.h"
#pragma GCC diagnostic push
/* Until 9.0 migration/misc.h declares blk_mig_init() as well. */
#pragma GCC diagnostic ignored "-Wredundant-decls"
#include "blkmig.h"
#pragma GCC diagnostic pop

#define CHUNK (1 * MiB)
#define BYTES(sectors) ((int64_t)(sectors) * BDRV_SECTOR_SIZE)

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
    /* On the source alone: what block-migration-watch.c knows of it. */
    struct BlkMigWatch *watch;
} BlkMigDevice;

/*
 * The library calls from the migration thread without the big lock (iterate,
 * pending, and up to 8.1 setup) and with it (complete), and from the main
 * thread (cleanup, load).  A device may live in an iothread, so that up to 8.2
 * its AioContext is needed as well.  But load's coroutine yields in what it
 * calls: with an AioContext that it held, the iothread could not go on.
 */
typedef struct DeviceLock {
    AioContext *ctx;
    bool big_locked;
} DeviceLock;

DeviceLock blkmig_lock_device(BlockDriverState *bs);
void blkmig_unlock_device(DeviceLock *lock);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(DeviceLock, blkmig_unlock_device)

/* Until the end of the block; without a device the big lock alone. */
#define DEVICE_LOCK_GUARD(bs) \
    g_auto(DeviceLock) device_lock G_GNUC_UNUSED = blkmig_lock_device(bs)

/* block-migration-device.c: the devices of the running migration */

void blkmig_init_devices(void);
/* NULL if it does not migrate. */
BlkMigDevice *blkmig_find_device(BlockDriverState *bs);
/* The first that passes the test. */
BlkMigDevice *blkmig_search_devices(bool (*test)(BlkMigDevice *dev,
                                                 const void *opaque),
                                    const void *opaque);
bool blkmig_has_devices(void);
/* The guest's own, or that of a drive without a device. */
BlockBackend *blkmig_guest_backend(BlockDriverState *bs);
/* Whom to ask; NULL if the guest has not got the device any more. */
BlockBackend *blkmig_find_backend(BlockDriverState *bs);
/* The same as a node: on the destination the present one. */
BlockDriverState *blkmig_find_node(BlockDriverState *bs);
/* For as long as a request needs it. */
void blkmig_get_device(BlkMigDevice *dev);
void blkmig_put_device(BlkMigDevice *dev);
/* Gives all of the destination's devices back. */
void blkmig_end_load(void);
/* QEMU ends, and load must not touch what is torn down. */
void blkmig_stop_load(void);
/* Never returns then, in load's coroutine. */
void blkmig_stop_if_closing(void);

void blkmig_iterate(BlkMigDeviceVisitor *it, void *opaque);
BlockDriverState *blkmig_find(const char *name);
const char *blkmig_get_device_name(BlockDriverState *bs);
int64_t blkmig_getlength(BlockDriverState *bs);
int blkmig_is_read_only(BlockDriverState *bs);
int blkmig_ref(BlockDriverState *bs);
void blkmig_unref(BlockDriverState *bs);
int blkmig_activate(BlockDriverState *bs);

/* block-migration-watch.c: what changes under a device of the source */

/* From here on what happens to the source's device is seen, or refused. */
void blkmig_watch(BlkMigDevice *dev);
void blkmig_unwatch(BlkMigDevice *dev);
/* The guest has left its node, or it was seen to change: says so as a cause. */
bool blkmig_was_seen_to_change(BlkMigDevice *dev);
/* The same, and looks at all that is under it. */
bool blkmig_has_changed(BlkMigDevice *dev);
/* Why a device ended the migration, where an errno can't say it; or NULL. */
extern Error *blkmig_cause;

extern const BlkMigDirtyOps blkmig_dirty_ops;

/* block-migration-stream.c: the stream */

extern const BlkMigFileOps blkmig_file_ops;
void blkmig_start_stream(void);
/* As QEMU's function, unless it has failed already. */
void blkmig_fail_stream(QEMUFile *f, int ret);
/* Why the migration fails; to be freed. */
Error *blkmig_get_failure(QEMUFile *f);

/* block-migration-settings.c: what the user sets */

void blkmig_add_settings(void);
bool blkmig_is_enabled(void);
bool blkmig_shares_base(void);
/* Bytes that a bit of a dirty bitmap stands for. */
uint32_t blkmig_dirty_unit(void);
/* 0 or -errno, as the library's function. */
int blkmig_apply_options(void);

/* block-migration-host.c: the handlers, and what starts and ends a migration */

void blkmig_init_host(void);

/* block-migration-io.c: requests, and the block layer as a whole */

extern const BlkMigBdrvOps blkmig_bdrv_ops;

#endif
