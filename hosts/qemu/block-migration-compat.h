/*
 * Block migration by the blkmig library: what differs between QEMU 6.2 and 10.2
 *
 * SPDX-License-Identifier: GPL-2.0-only
 *
 * The other files are written as for 10.0.  Here is what it takes to build them
 * in another version, in the order of the versions that changed something.
 */

#ifndef MIGRATION_BLOCK_MIGRATION_COMPAT_H
#define MIGRATION_BLOCK_MIGRATION_COMPAT_H

#include "block/block_int.h"
#include "migration/misc.h"
#include "migration/register.h"
#include "migration.h"
#include "qemu-file.h"

#define QEMU_AT_LEAST(major, minor) \
    (QEMU_VERSION_MAJOR * 100 + QEMU_VERSION_MINOR >= (major) * 100 + (minor))

/* The folder sysemu was renamed, and QObject has one of its own. */
#if QEMU_AT_LEAST(10, 0)
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "system/block-backend.h"
#include "system/runstate-action.h"
#include "system/runstate.h"
#else
#include "qapi/qmp/qdict.h"
#include "qapi/qmp/qjson.h"
#include "sysemu/block-backend.h"
#include "sysemu/runstate-action.h"
#include "sysemu/runstate.h"
#endif

#if !QEMU_AT_LEAST(7, 0)
#define bdrv_activate(bs, errp) bdrv_invalidate_cache(bs, errp)
#endif
/* The arguments have another order, and there are no flags. */
#if !QEMU_AT_LEAST(7, 1)
#define blk_pread(blk, offset, bytes, buf, flags) \
    blk_pread(blk, offset, buf, bytes)
#endif
/* What passes QEMUFile by is counted in these versions alone. */
#if !QEMU_AT_LEAST(7, 1) || QEMU_AT_LEAST(8, 2)
#define qemu_file_credit_transfer(f, size) do { } while (0)
#endif
/* Jobs are protected by the big lock alone. */
#ifndef JOB_LOCK_GUARD
#define JOB_LOCK_GUARD() do { } while (0)
#define block_job_next_locked block_job_next
#endif
/* What is pending is asked for with the threshold, and added to a sum. */
#if QEMU_AT_LEAST(8, 0)
#define PENDING_HANDLER(pending)                                             \
static void block_pending(void *opaque, uint64_t *precopy, uint64_t *post)   \
{                                                                            \
    *precopy += pending(opaque, migrate_get_current()->threshold_size);      \
}
#define PENDING_FIELDS .state_pending_estimate = block_pending, \
                       .state_pending_exact = block_pending
#else
#define PENDING_HANDLER(pending)                                             \
static void block_pending(QEMUFile *f, void *opaque, uint64_t max_size,      \
                          uint64_t *precopy, uint64_t *both, uint64_t *post) \
{                                                                            \
    *precopy += pending(opaque, max_size);                                   \
}
#define PENDING_FIELDS .save_live_pending = block_pending
/* The graph of block nodes has no lock yet: the AioContext's protects it. */
#define bdrv_graph_co_rdlock() do { } while (0)
#define bdrv_graph_co_rdunlock() do { } while (0)
#endif
#ifndef GRAPH_RDLOCK_GUARD_MAINLOOP
#define GRAPH_RDLOCK_GUARD_MAINLOOP() do { } while (0)
#endif

/* Since then "no limit" is 0, as the library has it, and was INT64_MAX. */
#if QEMU_AT_LEAST(8, 1)
#include "migration-stats.h"
#include "options.h"
#define migration_capability(c) (migrate_get_current()->capabilities[c])
#else
#define migration_capability(c) (migrate_get_current()->enabled_capabilities[c])
#define migration_rate_exceeded qemu_file_rate_limit
#define migration_rate_get() qemu_file_get_rate_limit(f)
/* A coroutine may call these as they are. */
#define bdrv_co_activate bdrv_activate
#define blk_co_new_with_bs blk_new_with_bs
#endif

/* The big lock has a long name, and an AioContext has a lock besides. */
#if QEMU_AT_LEAST(9, 0)
#define aio_context_acquire(ctx) ((void)(ctx))
#define aio_context_release(ctx) ((void)(ctx))
#else
#define bql_lock qemu_mutex_lock_iothread
#define bql_unlock qemu_mutex_unlock_iothread
#define bql_locked qemu_mutex_iothread_locked
#endif

/* Setup says why it fails. */
#if QEMU_AT_LEAST(9, 1)
#define SETUP_HANDLER(setup)
#define SETUP_HANDLER_NAME block_save_setup
#else
#define SETUP_HANDLER(setup)                          \
static int setup_silently(QEMUFile *f, void *opaque)  \
{                                                     \
    return setup(f, opaque, NULL);                    \
}
#define SETUP_HANDLER_NAME setup_silently
#endif
#if QEMU_AT_LEAST(10, 1)
#define save_live_complete_precopy save_complete
#endif

#endif
