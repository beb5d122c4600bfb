/*
 * Block migration by the blkmig library: its tables, filled with QEMU 7.2
 *
 * SPDX-License-Identifier: GPL-2.0-only
 *
 * block-migration-*.c take the place of migration/block.c.  The library decides
 * what is read, sent and written, and when; these files say how.  This one has
 * the stream, the savevm handlers, and what starts and ends a migration.  The
 * blk_mig_*() are the library's own.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "io/channel-socket.h"
#include "migration/misc.h"
#include "migration/register.h"
#include "block/blockjob.h"
#include "sysemu/runstate-action.h"
#include "sysemu/runstate.h"
#include "migration.h"
#include "qemu-file.h"
#include "block-migration-host.h"

/* The last outgoing migration, which may still run, includes disks. */
static bool disks_moved;

/* /blkmig's property of this name. */
static bool accept_tail_garbage;

/* What qemu-file.c buffers at most; the install script checks it. */
#define QEMU_FILE_BUFFER 32768

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
    if (blkmig_cause) {
        error_free(err);
        err = error_copy(blkmig_cause);
    } else if (!err) {
        blk_mig_last_error(text, sizeof(text));
        error_setg(&err, "Block migration: %s", text);
    }
    migrate_set_error(s, err);
    error_free(err);
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

    error_free(blkmig_cause);
    blkmig_cause = NULL;
    disks_moved = migrate_use_block();
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

/*
 * 1 on success: after a 0, savevm would not let RAM have its turn.  0 on
 * failure: the stream has the error, and query-migrate the reason; a negative
 * value would only add a line to stderr that says less.
 */
static int block_save_iterate(QEMUFile *f, void *opaque)
{
    return report_failure(f, blk_mig_save_iterate(f, opaque)) < 0 ? 0 : 1;
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
        qemu_file_set_error(f, -EINVAL);
        ret = -EINVAL;
    } else {
        ret = blk_mig_save_complete(f, opaque);
    }
    return report_failure(f, ret);
}

/* In the main thread, when the migration has ended, whichever way. */
static void block_save_cleanup(void *opaque)
{
    MigrationState *s = migrate_get_current();

    blk_mig_save_cleanup(opaque);
    if (migrate_use_block() && migration_has_failed(s) && s->to_dst_file) {
        /* QEMU keeps a return path open: the destination would wait on it. */
        qemu_file_shutdown(s->to_dst_file);
    }
}

static void block_save_pending(QEMUFile *f, void *opaque, uint64_t max_size,
                               uint64_t *res_precopy_only,
                               uint64_t *res_compatible,
                               uint64_t *res_postcopy_only)
{
    uint64_t pending = blk_mig_save_pending_switchover(opaque, max_size);

    /* savevm goes on while the sum of all is not below max_size. */
    if ((!pending || pending < max_size) && find_block_job()) {
        pending = MAX(max_size, 1);
        qemu_file_set_error(f, -EINVAL);
        report_failure(f, -EINVAL);
    }
    *res_precopy_only += pending;
}

/* In the main thread, when the guest has arrived. */
static int block_load_cleanup(void *opaque)
{
    blkmig_remove_all_devices();
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
    .file = &file_ops,
    .system = &system_ops,
};

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
        error_setg(&err, "The migration failed after the disks were sent");
    }
    if (err) {
        migrate_set_error(s, err);
        error_free(err);
    }
}

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
    migration_cancel(NULL);
    while (!is_over(s) &&
           qemu_clock_get_ms(QEMU_CLOCK_REALTIME) < deadline) {
        /*
         * Cancelled when it was about to pause before the switchover, QEMU
         * pauses all the same, and lets it go on no more.
         */
        qemu_sem_post(&s->pause_sem);
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
    blkmig_init_devices();
    add_migration_state_change_notifier(&migration_notifier);
    qemu_register_shutdown_notifier(&shutdown_notifier);
    add_settings();
}

migration_init(block_migration_host_init)
