/* SPDX-License-Identifier: GPL-2.0-only */
/* A call that the host makes from within a callback is refused, nothing hangs, and the outer call continues as if it
 * had not happened. Queries are allowed: see queries_from_callbacks_answered.c. */
#include "host.h"
#include "test.h"
#include <stdarg.h>

enum place {
    ITERATE, GET_NAME, GETLENGTH, IS_READ_ONLY, AIO_READ, AIO_FLUSH, REF, UNREF, SET_TRACKING, GET, RESET, GET_COUNT,
    PUT_BUFFER, RATE_LIMIT, HAS_ERROR, SET_ERROR, PRINTF, MONITOR_FLUSH, LOG, SAVE_PLACES,
    FIND = SAVE_PLACES, WRITE, ACTIVATE, GET_BUFFER, LOAD_LOG, PLACES
};

static BlkMigBdrvOps bdrv, real_bdrv;
static BlkMigDirtyOps dirty, real_dirty;
static BlkMigFileOps file, real_file;
static BlkMigMonitorOps monitor, real_monitor;
static BlkMigSystemOps sys, real_sys;
static BlkMigHost tables;

static QEMUFile *stream, *other;        /* of the migration or load that runs; of none */
static enum place armed;                /* where the host calls */
static int times, inside;
static int by_stages_on_its_stream;     /* it also calls stages on the stream in use, which then gets the error */

static void refused(int ret)
{
    check(ret < 0);
}

static void stage_refused(int stage)
{
    QEMUFile *f = by_stages_on_its_stream ? stream : other;

    ok(host.save_live(host.mon, f, stage, host.opaque));
    check(stage < 0 || f->error < 0);
    other->error = 0;
}

static void call_from(enum place place)
{
    BlkMigOptions options = { .struct_size = sizeof(options) };

    /* set_error may come again, after the end of the migration. */
    if (place != armed || inside || (place == SET_ERROR && times > 0)) {
        return;
    }
    inside = 1;
    times++;
    err(blk_mig_set_host(&tables), EBUSY);
    err(blk_mig_set_options(&options), EBUSY);
    if (place < SAVE_PLACES) {
        size_t size = stream->size;

        check(blk_mig_save_pending(host.opaque) >= blk_mig_bytes_total());
        check(blk_mig_save_pending_switchover(host.opaque, 1) > 1);
        err(blk_mig_save_complete(stream, host.opaque), EBUSY);
        err(blk_mig_save_iterate(stream, host.opaque), EBUSY);
        err(blk_mig_save_setup(stream, host.opaque), EBUSY);
        refused(blk_mig_save_complete(other, host.opaque));
        refused(blk_mig_save_setup(other, host.opaque));
        blk_mig_save_cleanup(host.opaque);
        for (int stage = -1; stage <= 3; stage++) {
            stage_refused(stage);
        }
        same(stream->size, size);
    } else {
        size_t pos = stream->pos;

        err(blk_mig_load(stream, host.opaque, 1), EBUSY);
        err(blk_mig_load(other, host.opaque, 1), EBUSY);
        same(stream->pos, pos);
    }
    same(other->size, 0);
    inside = 0;
}

#define FROM(place, table, type, name, params, args)                           \
    static type name params                                                    \
    {                                                                          \
        call_from(place);                                                      \
        return real_##table.name args;                                         \
    }

FROM(ITERATE, bdrv, void, iterate, (BlkMigDeviceVisitor *it, void *opaque), (it, opaque))
FROM(GET_NAME, bdrv, const char *, get_device_name, (BlockDriverState *bs), (bs))
FROM(GETLENGTH, bdrv, int64_t, getlength, (BlockDriverState *bs), (bs))
FROM(IS_READ_ONLY, bdrv, int, is_read_only, (BlockDriverState *bs), (bs))
FROM(AIO_READ, bdrv, void *, aio_read,
     (BlockDriverState *bs, int64_t sector, uint8_t *buf, int nb_sectors, BlkMigCompletion *cb, void *opaque),
     (bs, sector, buf, nb_sectors, cb, opaque))
FROM(AIO_FLUSH, bdrv, void, aio_flush, (void), ())
FROM(REF, bdrv, int, ref, (BlockDriverState *bs), (bs))
FROM(UNREF, bdrv, void, unref, (BlockDriverState *bs), (bs))
FROM(FIND, bdrv, BlockDriverState *, find, (const char *name), (name))
FROM(WRITE, bdrv, int, write, (BlockDriverState *bs, int64_t sector, const uint8_t *buf, int n), (bs, sector, buf, n))
FROM(ACTIVATE, bdrv, int, activate, (BlockDriverState *bs), (bs))
FROM(SET_TRACKING, dirty, int, set_tracking, (BlockDriverState *bs, int enable), (bs, enable))
FROM(GET, dirty, int, get, (BlockDriverState *bs, int64_t sector), (bs, sector))
FROM(RESET, dirty, void, reset, (BlockDriverState *bs, int64_t sector, int nb_sectors), (bs, sector, nb_sectors))
FROM(GET_COUNT, dirty, int64_t, get_count, (BlockDriverState *bs), (bs))
FROM(PUT_BUFFER, file, void, put_buffer, (QEMUFile *f, const uint8_t *buf, int size), (f, buf, size))
FROM(RATE_LIMIT, file, int, rate_limit, (QEMUFile *f), (f))
FROM(HAS_ERROR, file, int, has_error, (QEMUFile *f), (f))
FROM(SET_ERROR, file, void, set_error, (QEMUFile *f, int ret), (f, ret))
FROM(GET_BUFFER, file, int, get_buffer, (QEMUFile *f, uint8_t *buf, int size), (f, buf, size))
FROM(MONITOR_FLUSH, monitor, void, flush, (Monitor *mon), (mon))

static void log_message(int level, const char *message)
{
    real_sys.log(level, message);
    call_from(LOG);
    call_from(LOAD_LOG);
}

static void print(Monitor *mon, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    real_monitor.printf(mon, "%s", text);
    call_from(PRINTF);
}

static void make_tables(void)
{
    tables = *host_tables();
    bdrv = real_bdrv = *tables.bdrv;
    dirty = real_dirty = *tables.dirty;
    file = real_file = *tables.file;
    monitor = real_monitor = *tables.monitor;
    sys = real_sys = *tables.system;
    bdrv.iterate = iterate, bdrv.get_device_name = get_device_name, bdrv.getlength = getlength;
    bdrv.is_read_only = is_read_only, bdrv.aio_read = aio_read, bdrv.aio_flush = aio_flush, bdrv.ref = ref;
    bdrv.unref = unref, bdrv.find = find, bdrv.write = write, bdrv.activate = activate;
    dirty.set_tracking = set_tracking, dirty.get = get, dirty.reset = reset, dirty.get_count = get_count;
    file.put_buffer = put_buffer, file.rate_limit = rate_limit, file.has_error = has_error, file.set_error = set_error;
    file.get_buffer = get_buffer;
    monitor.printf = print, monitor.flush = flush;
    sys.log = log_message;
    tables.bdrv = &bdrv, tables.dirty = &dirty, tables.file = &file, tables.monitor = &monitor, tables.system = &sys;
}

static void arm(enum place place)
{
    stream = host_file();
    armed = place;
    times = 0;
    host.log[0] = 0;
    host.errors[0] = 0;
    host.monitor.text[0] = 0;
}

static void disarm(void)
{
    armed = PLACES;
    ok(blk_mig_active());
    host_file_free(stream);
}

/* A migration that succeeds: by stages, or by separate functions. */
static int migration(enum place place, int stages)
{
    arm(place);
    if (stages) {
        check(host_migrate(stream, 100, NULL));
    } else {
        ok(blk_mig_save_setup(stream, host.opaque));
        for (int i = 0; i < 8; i++) {
            check(blk_mig_save_iterate(stream, host.opaque) >= 0);
            host_step(stream);
        }
        ok(blk_mig_save_complete(stream, host.opaque));
    }
    ok(stream->error);
    check(host_delivered(stream));
    disarm();
    return times;
}

/* A migration that fails in stage 2, or is canceled there. */
static int broken(enum place place, int cancel)
{
    arm(place);
    host.save_live(host.mon, stream, 1, host.opaque);
    host_iterate(stream, 1);
    if (!cancel) {
        char text[256];

        host_fail(H_READ_DONE, 2, -EBADF);
        host_iterate(stream, 2);
        err(stream->error, EBADF);
        check(host_said("device vda"));
        blk_mig_last_error(text, sizeof(text));
        check(strstr(text, "device vda"));
        ok(host.save_live(host.mon, stream, 3, host.opaque));
        armed = PLACES;
    }
    host.save_live(host.mon, stream, -1, host.opaque);
    same(host.in_flight, 0);
    disarm();
    return times;
}

/* Stages that are called on the stream in use give it the error, so it is not completed. */
static void spoiled(enum place place)
{
    arm(place);
    by_stages_on_its_stream = 1;
    check(!host_migrate(stream, 100, NULL));
    check(times > 0);
    check(stream->error < 0);
    by_stages_on_its_stream = 0;
    armed = PLACES;
    host.save_live(host.mon, stream, -1, host.opaque);
    disarm();
}

static int load(enum place place, int good)
{
    arm(place);
    host_put_block(stream, "vda", 0, 0x77);
    if (good) {
        host_put_record(stream, 100, 0x04);
        host_put_end(stream);
        ok(host_load(stream));
    } else {
        err(host_load(stream), EIO);
    }
    disarm();
    return times;
}

int main(void)
{
    make_tables();
    host_disk("vda", 4 * CHUNK_SECTORS + 1);
    host_disk("ro0", CHUNK_SECTORS)->read_only = 1;
    host_start();
    ok(blk_mig_set_host(&tables));
    other = host_file();
    for (enum place place = 0; place < SAVE_PLACES; place++) {
        int n = migration(place, 1) + broken(place, 0) + broken(place, 1);

        check(n > 0);
        migration(place, 0);
    }
    for (enum place place = SAVE_PLACES; place < PLACES; place++) {
        check(load(place, 1) + load(place, 0) > 0);
    }
    spoiled(PRINTF);
    spoiled(AIO_READ);
    spoiled(PUT_BUFFER);
    check(migration(PLACES, 1) == 0);
    host_file_free(other);
    host_end();
    return 0;
}
