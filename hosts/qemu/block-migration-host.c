/*
 * Block migration by the blkmig library: its tables, filled with QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-only
 *
 * block-migration-*.c take the place of migration/block.c.  The library decides
 * what is read, sent and written, and when; these files say how.  This one has
 * the savevm handlers, and what starts and ends a migration.  The blk_mig_*()
 * are the library's own.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "io/channel-socket.h"
#include "block/blockjob.h"
#include "qapi/qapi-commands-migration.h"
#include "block-migration-host.h"

/* The last outgoing migration, which may still run, includes disks. */
static bool disks_moved;

/* All has been sent: there is nothing to ask us for until cleanup. */
static bool completed;

/* Gives query-migrate the cause. */
static int report_failure(QEMUFile *f, int ret)
{
    MigrationState *s = migrate_get_current();
    Error *err;

    if (ret < 0 && s->state != MIGRATION_STATUS_CANCELLING) {
        err = blkmig_get_failure(f);
        migrate_set_error(s, err);
        error_free(err);
    }
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
static const char *find_incompatible(void)
{
    return migration_capability(MIGRATION_CAPABILITY_BACKGROUND_SNAPSHOT) ?
           "background-snapshot" :
           migration_capability(MIGRATION_CAPABILITY_X_COLO) ? "x-colo" : NULL;
}

/*
 * A snapshot's file is a channel of this type.  Up to 9.0 QEMU refuses it when
 * its own capability is set; in later ones savevm would drain the disks, and
 * wait for our reads for ever.
 */
static bool is_snapshot(QIOChannel *ioc)
{
    return ioc && object_dynamic_cast(OBJECT(ioc), "qio-channel-block");
}

/* The big lock keeps what iterate has found until ref has got it. */
static int block_save_setup(QEMUFile *f, void *opaque, Error **errp)
{
    DEVICE_LOCK_GUARD(NULL);
    QIOChannel *ioc = qemu_file_get_ioc(f);
    int ret;

    error_free(blkmig_cause);
    blkmig_cause = NULL;
    blkmig_start_stream();
    disks_moved = blkmig_is_enabled();
    if (is_snapshot(ioc)) {
        error_setg(errp, "Block migration and snapshots are incompatible");
        return -EINVAL;
    }
    if (find_incompatible()) {
        /*
         * The stream has an error already.  One of ours would keep RAM from
         * being set up, which the snapshot's thread relies on.
         */
        return 0;
    }
    log_empty_drives();
    /* With a local socket's default, both sides wake for every 200 KiB. */
    if (ioc && qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_FD_PASS)) {
        setsockopt(QIO_CHANNEL_SOCKET(ioc)->fd, SOL_SOCKET, SO_SNDBUF,
                   &(int){ 512 * KiB }, sizeof(int));
    }
    blk_mig_set_params(blkmig_is_enabled(), blkmig_shares_base(), opaque);
    blkmig_apply_options();
    ret = report_failure(f, blk_mig_save_setup(f, opaque));
    blkmig_forget_visited();
    if (ret < 0) {
        error_propagate(errp, blkmig_get_failure(f));
    }
    return ret;
}
SETUP_HANDLER(block_save_setup)

/*
 * 1 on success: after a 0, savevm would not let RAM have its turn.  0 on
 * failure: the stream has the error, and query-migrate the reason; a negative
 * value would only add a line to stderr that says less.
 */
static int block_save_iterate(QEMUFile *f, void *opaque)
{
    int ret = report_failure(f, blk_mig_save_iterate(f, opaque));

    blkmig_forget_visited();
    return ret < 0 ? 0 : 1;
}

static bool has_changed(BlkMigDevice *dev, const void *opaque)
{
    return blkmig_has_changed(dev);
}

/*
 * QEMU can't give up a disk that a block job uses, and does not say so.  If the
 * job ends while it tries, or while it stops the guest, it frees a node that
 * is in use, and aborts.
 */
static bool find_block_job(void)
{
    DEVICE_LOCK_GUARD(NULL);
    BlockJob *job;

    JOB_LOCK_GUARD();
    job = block_job_next_locked(NULL);
    /* One that has ended, but was not dismissed, uses nothing any more. */
    while (job && !job->nodes) {
        job = block_job_next_locked(job);
    }
    if (job && !blkmig_cause) {
        error_setg(&blkmig_cause, "Block migration: block job '%s' is running",
                   job->job.id ?: "(internal)");
    }
    return job;
}

static int block_save_complete(QEMUFile *f, void *opaque)
{
    int ret;

    if (blkmig_search_devices(has_changed, NULL) || find_block_job()) {
        blkmig_fail_stream(f, -EINVAL);
        ret = -EINVAL;
    } else {
        ret = blk_mig_save_complete(f, opaque);
        blkmig_forget_visited();
    }
    completed = ret == 0;
    return report_failure(f, ret);
}

/* In the main thread, when the migration has ended, whichever way. */
static void block_save_cleanup(void *opaque)
{
    MigrationState *s = migrate_get_current();
    Error *err = NULL;

    completed = false;
    blk_mig_save_cleanup(opaque);
    if (!blkmig_is_enabled()) {
        return;
    }
    if (migration_has_failed(s) && s->to_dst_file) {
        /* QEMU keeps a return path open: the destination would wait on it. */
        qemu_file_shutdown(s->to_dst_file);
    }
    if (s->state == MIGRATION_STATUS_FAILED && !s->error) {
        error_setg(&err, "The migration failed after the disks were sent");
        migrate_set_error(s, err);
        error_free(err);
    }
}

static uint64_t pending_bytes(void *opaque, uint64_t threshold)
{
    QEMUFile *f = migrate_get_current()->to_dst_file;
    uint64_t pending = blk_mig_save_pending_switchover(opaque, threshold);

    /* QEMU goes on while the sum of all is not below the threshold. */
    if ((!pending || pending < threshold) && find_block_job()) {
        pending = MAX(threshold, 1);
        blkmig_fail_stream(f, -EINVAL);
        report_failure(f, -EINVAL);
    }
    return pending;
}
PENDING_HANDLER(pending_bytes)

/*
 * When all is over: in the main thread, but after a postcopy migration in the
 * thread that has received the RAM, in 7.2 without the big lock.
 */
static int block_load_cleanup(void *opaque)
{
    blkmig_end_load();
    return 0;
}

/* A guest that has arrived owns its disks, whatever its RAM still lacks. */
static void vm_state_changed(void *opaque, bool running, RunState state)
{
    if (running) {
        blkmig_end_load();
    }
}

static int block_load(QEMUFile *f, void *opaque, int version_id)
{
    blkmig_apply_options();
    return blk_mig_load(f, opaque, version_id);
}

/* 10.2 asks once more for what is left when a postcopy guest has moved. */
static bool block_is_active(void *opaque)
{
    return blkmig_is_enabled() && !completed;
}

#if QEMU_AT_LEAST(8, 2)
/* Before anything is set up or sent. */
static int block_save_prepare(void *opaque, Error **errp)
{
    const char *what = find_incompatible();

    if (migrate_get_current()->parameters.mode != MIG_MODE_NORMAL) {
        what = "other modes than 'normal'";
    }
    if (what) {
        error_setg(errp, "Block migration and %s are incompatible", what);
        return -EINVAL;
    }
    return 0;
}
#endif

static const SaveVMHandlers savevm_block_handlers = {
#if QEMU_AT_LEAST(8, 2)
    .save_prepare = block_save_prepare,
#endif
    .save_setup = SETUP_HANDLER_NAME,
    .save_live_iterate = block_save_iterate,
    .save_live_complete_precopy = block_save_complete,
    PENDING_FIELDS,
    .load_state = block_load,
    .load_cleanup = block_load_cleanup,
    .save_cleanup = block_save_cleanup,
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
    .bdrv = &blkmig_bdrv_ops,
    .dirty = &blkmig_dirty_ops,
    .file = &blkmig_file_ops,
    .system = &system_ops,
};

#if !QEMU_AT_LEAST(8, 2)
/*
 * There is no save_prepare yet, but this comes before the migration's thread
 * starts.
 */
static void migration_changed(Notifier *notifier, void *data)
{
    MigrationState *s = data;
    const char *what = find_incompatible();
    Error *err = NULL;

    if (!blkmig_is_enabled() || !migration_in_setup(s) || !what) {
        return;
    }
    error_setg(&err, "Block migration and %s are incompatible", what);
    migrate_set_error(s, err);
    error_free(err);
    qemu_file_set_error(s->to_dst_file, -EINVAL);
    if (s->must_remove_block_options) {
        /*
         * The switch of this one migration.  QEMU would take it back when all
         * is over, but not expect that capabilities that the snapshot needs
         * can't be checked then, and abort.
         */
        migration_capability(MIGRATION_CAPABILITY_BLOCK) = false;
        s->parameters.block_incremental = false;
        s->must_remove_block_options = false;
    }
}

static Notifier migration_notifier = { .notify = migration_changed };
#endif

/*
 * QEMU does not wait for a migration's threads when it ends.  The one of the
 * return path closes its file last.
 */
static bool is_over(MigrationState *s)
{
    return !blkmig_has_devices() && !s->to_dst_file &&
           !s->rp_state.from_dst_file;
}

/* Before QEMU takes the block layer down, the migration must have ended. */
static void shutting_down(Notifier *notifier, void *data)
{
    int64_t deadline = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + 5000;
    MigrationState *s = migrate_get_current();

    if (shutdown_action == SHUTDOWN_ACTION_PAUSE) {
        return;
    }
    if (runstate_check(RUN_STATE_INMIGRATE)) {
        blkmig_stop_load();
    }
    if (!disks_moved || is_over(s)) {
        return;
    }
    qmp_migrate_cancel(NULL);
    while (!is_over(s) &&
           qemu_clock_get_ms(QEMU_CLOCK_REALTIME) < deadline) {
        /*
         * Cancelled when it was about to pause before the switchover, QEMU
         * pauses all the same, and lets it go on no more.
         */
        qmp_migrate_continue(s->state, NULL);
        bql_unlock();
        g_usleep(1000);
        bql_lock();
        aio_poll(qemu_get_aio_context(), false);
    }
}

static Notifier shutdown_notifier = { .notify = shutting_down };

/*
 * A section with the id 0 is taken for one of an entry that has not been loaded
 * yet: "block" must not be the first to be registered.
 */
static void use_section_id_0(void)
{
    static const SaveVMHandlers nothing;

    register_savevm_live("blkmig-unused", 0, 1, &nothing, NULL);
    unregister_savevm(NULL, "blkmig-unused", NULL);
}

/* Up to 9.0 blk_mig_init() is called by migration_object_init(), after this. */
void blkmig_init_host(void)
{
    int ret = blk_mig_set_host(&host);

    assert(ret == 0);
    blkmig_init_devices();
    qemu_register_shutdown_notifier(&shutdown_notifier);
    qemu_add_vm_change_state_handler(vm_state_changed, NULL);
    blkmig_add_settings();
    use_section_id_0();
#if QEMU_AT_LEAST(9, 1)
    blk_mig_init();
#endif
#if !QEMU_AT_LEAST(8, 2)
    add_migration_state_change_notifier(&migration_notifier);
#endif
}

#ifndef BLKMIG_LOADABLE
migration_init(blkmig_init_host)
#endif
