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

/* 10.0: the folder sysemu has another name, and QObject a folder of its own. */
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
/* 7.0: it has another name. */
#if !QEMU_AT_LEAST(7, 0)
#define bdrv_activate(bs, errp) bdrv_invalidate_cache(bs, errp)
#endif
/* 7.1: the arguments have another order, and there are flags. */
#if !QEMU_AT_LEAST(7, 1)
#define blk_pread(blk, offset, bytes, buf, flags) \
    blk_pread(blk, offset, buf, bytes)
#endif
/* 7.1 to 8.1: what passes QEMUFile by has to be counted. */
#if !QEMU_AT_LEAST(7, 1) || QEMU_AT_LEAST(8, 2)
#define qemu_file_credit_transfer(f, size) do { } while (0)
#endif
/* 7.2: jobs have a lock of their own, beside the big one. */
#ifndef JOB_LOCK_GUARD
#define JOB_LOCK_GUARD() do { } while (0)
#define block_job_next_locked block_job_next
#endif
/* 8.0: two handlers tell what is pending, and are not given the threshold. */
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
/* 8.0: the graph of block nodes has a lock; the AioContext's was enough. */
#define bdrv_graph_co_rdlock() do { } while (0)
#define bdrv_graph_co_rdunlock() do { } while (0)
#endif
/* 8.2: those who walk over it outside of coroutines take that lock, too. */
#ifndef GRAPH_RDLOCK_GUARD_MAINLOOP
#define GRAPH_RDLOCK_GUARD_MAINLOOP() do { } while (0)
#endif
/* 8.1: other names; and no rate limit is 0, as in the library: no INT64_MAX. */
#if QEMU_AT_LEAST(8, 1)
#include "migration-stats.h"
#include "options.h"
#define migration_capability(c) (migrate_get_current()->capabilities[c])
#else
#define migration_capability(c) (migrate_get_current()->enabled_capabilities[c])
#define migration_rate_exceeded qemu_file_rate_limit
#define migration_rate_get() qemu_file_get_rate_limit(f)
/* 8.1: coroutines need functions of their own; until then these do for all. */
#define bdrv_co_activate bdrv_activate
#define blk_co_new_with_bs blk_new_with_bs
#endif
/* 9.0: AioContexts have no lock any more, and the big one has a short name. */
#if QEMU_AT_LEAST(9, 0)
#define aio_context_acquire(ctx) ((void)(ctx))
#define aio_context_release(ctx) ((void)(ctx))
#else
#define bql_lock qemu_mutex_lock_iothread
#define bql_unlock qemu_mutex_unlock_iothread
#define bql_locked qemu_mutex_iothread_locked
#endif
/* 9.1: setup has to say why it fails. */
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
/* 10.1: it has another name, since it ends what postcopy has left as well. */
#if QEMU_AT_LEAST(10, 1)
#define save_live_complete_precopy save_complete
#endif

#endif
