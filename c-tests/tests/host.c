/* SPDX-License-Identifier: GPL-2.0-only */
/* The disks, the tables and the stages of the hypervisor in memory. */
#include "host_parts.h"
#include "test.h"
#include <stdarg.h>
#include <time.h>

struct host host;

/* ---- disks ---- */

/* Sectors that a dirty bit stands for. */
static int64_t unit(void)
{
    return host.granularity ? host.granularity / SECTOR : CHUNK_SECTORS;
}

static size_t units(const BlockDriverState *bs)
{
    return (size_t)((bs->sectors + unit() - 1) / unit());
}

BlockDriverState *host_thin_disk(const char *name, int64_t sectors)
{
    BlockDriverState *bs = calloc(1, sizeof(*bs)), **end = &host.disks;
    size_t chunks = (size_t)((sectors + CHUNK_SECTORS - 1) / CHUNK_SECTORS) + 1;

    bs->name = name;
    bs->sectors = sectors;
    bs->length = sectors * SECTOR;
    bs->dirty = calloc(1, units(bs) + 1);
    bs->reading = calloc(1, chunks);
    while (*end) {
        end = &(*end)->next;
    }
    *end = bs;
    return bs;
}

BlockDriverState *host_disk(const char *name, int64_t sectors)
{
    BlockDriverState *bs = host_thin_disk(name, sectors);
    uint64_t x = 88172645463325252u;
    size_t size = (size_t)(sectors * SECTOR);

    bs->data = malloc(size + 1);
    for (const char *p = name; *p; p++) {
        x = x * 31 + (uint8_t)*p;
    }
    for (size_t i = 0; i + 8 <= size; i += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(bs->data + i, &x, 8);
    }
    return bs;
}

void host_guest_write(BlockDriverState *bs, int64_t sector, int nb_sectors, int byte)
{
    if (bs->data) {
        memset(bs->data + sector * SECTOR, byte, (size_t)nb_sectors * SECTOR);
    }
    for (int64_t i = sector / unit(); i <= (sector + nb_sectors - 1) / unit(); i++) {
        bs->dirty[i] = bs->tracking != 0;
    }
}

uint8_t *host_take(BlockDriverState *bs)
{
    size_t size = (size_t)(bs->sectors * SECTOR);
    uint8_t *taken = bs->data;

    bs->data = malloc(size + 1);
    for (size_t i = 0; i < size; i++) {
        bs->data[i] = (uint8_t)~taken[i];
    }
    return taken;
}

static void iterate(BlkMigDeviceVisitor *it, void *opaque)
{
    for (BlockDriverState *bs = host.disks; bs; bs = bs->next) {
        if (!bs->unlisted) {
            it(opaque, bs);
        }
    }
}

static BlockDriverState *find(const char *name)
{
    BlockDriverState *bs = host.disks;

    while (bs && (bs->unlisted || strcmp(bs->name, name))) {
        bs = bs->next;
    }
    return bs;
}

static const char *get_device_name(BlockDriverState *bs)
{
    return bs->name;
}

static int64_t getlength(BlockDriverState *bs)
{
    return bs->length;
}

static int is_read_only(BlockDriverState *bs)
{
    return bs->read_only;
}

static int is_allocated(BlockDriverState *bs, int64_t sector, int nb_sectors, int *pnum)
{
    int ret = host_called(H_ALLOCATED);

    if (ret < 0) {
        *pnum = 0;
        return ret;
    }
    if (bs->is_allocated) {
        return bs->is_allocated(bs, sector, nb_sectors, pnum);
    }
    *pnum = nb_sectors;
    return 1;
}

static int take_ref(BlockDriverState *bs)
{
    if (bs->ref_result < 0) {
        return bs->ref_result;
    }
    bs->refs++;
    return 0;
}

static void drop_ref(BlockDriverState *bs)
{
    if (--bs->refs < 0) {
        fail("%s: one unref too many", bs->name);
    }
}

static int activate(BlockDriverState *bs)
{
    int ret = host_called(H_ACTIVATE);

    bs->activated += ret == 0;
    return ret;
}

static int flush(BlockDriverState *bs)
{
    int ret = host_called(H_DISK_FLUSH);

    bs->flushes++;
    if (ret == 0) {
        bs->unflushed = 0;
    }
    return ret;
}

static int is_zero(BlockDriverState *bs, int64_t sector, int nb_sectors, int *pnum)
{
    (void)bs;
    (void)sector;
    *pnum = nb_sectors;
    return 0;
}

static int cluster_size(BlockDriverState *bs)
{
    return bs->cluster;
}

void host_step(QEMUFile *f)
{
    if (f) {
        f->sent = 0;
    }
    if (host.aio == HOST_THREAD) {
        host_wake_worker();
    } else if (!host.hold) {
        host_complete(host.in_flight);
    }
    host.now += host.step;
}

/* ---- dirty tracking ---- */

static int set_tracking(BlockDriverState *bs, int enable)
{
    int ret = enable ? host_called(H_TRACK) : 0;

    if (ret == 0) {
        bs->tracking = enable != 0;
        memset(bs->dirty, 0, units(bs));
    }
    return ret;
}

static int get_dirty(BlockDriverState *bs, int64_t sector)
{
    return sector >= 0 && sector < bs->sectors && bs->dirty[sector / unit()];
}

static void reset_dirty(BlockDriverState *bs, int64_t sector, int nb_sectors)
{
    for (int64_t i = sector / unit(); i <= (sector + nb_sectors - 1) / unit(); i++) {
        bs->dirty[i] = 0;
    }
}

static int64_t get_dirty_count(BlockDriverState *bs)
{
    int64_t n = 0;

    for (size_t i = 0; i < units(bs); i++) {
        n += bs->dirty[i];
    }
    return n;
}

static int64_t granularity(BlockDriverState *bs)
{
    (void)bs;
    return host.granularity;
}

/* ---- the rest of the host ---- */

static void add_text(char *to, size_t room, const char *fmt, va_list ap)
{
    size_t used = strlen(to);

    vsnprintf(to + used, room - used, fmt, ap);
}

static void monitor_printf(Monitor *mon, const char *fmt, ...)
{
    va_list ap;

    if (!mon) {
        host.monitor.stray++;
        return;
    }
    va_start(ap, fmt);
    add_text(mon->text, sizeof(mon->text), fmt, ap);
    va_end(ap);
}

static void monitor_flush(Monitor *mon)
{
    host.monitor.stray += mon == NULL;
}

static void error_report(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    add_text(host.errors, sizeof(host.errors), fmt, ap);
    va_end(ap);
}

static void log_message(int level, const char *message)
{
    size_t used = strlen(host.log);

    snprintf(host.log + used, sizeof(host.log) - used, "%d %s\n", level, message);
    if (level <= 1) {
        error_report("%s\n", message);
    }
}

int host_said(const char *text)
{
    return strstr(host.errors, text) != NULL;
}

int host_logged(const char *text)
{
    int n = 0;

    for (const char *at = host.log; (at = strstr(at, text)); at += strcspn(at, "\n")) {
        n++;
    }
    return n;
}

static int register_savevm_live(void *dev, const char *idstr, int instance_id, int version_id,
                                BlkMigSetParams *set_params, BlkMigSaveLive *save_live, void *save_state,
                                BlkMigLoad *load, void *opaque)
{
    check(!dev && !save_state && !strcmp(idstr, "block") && instance_id == 0 && version_id == 1);
    host.registered++;
    host.set_params = set_params;
    host.save_live = save_live;
    host.load = load;
    host.opaque = opaque;
    return 0;
}

static int64_t clock_ns(void)
{
    struct timespec t;

    if (host.aio != HOST_THREAD) {
        return host.now;
    }
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static uint64_t max_downtime_ns(void)
{
    return host.max_downtime;
}

static BlkMigBdrvOps bdrv_ops = {
    .struct_size = sizeof(bdrv_ops), .iterate = iterate, .find = find, .get_device_name = get_device_name,
    .getlength = getlength, .is_read_only = is_read_only, .is_allocated = is_allocated, .read = host_read,
    .write = host_write, .aio_read = host_aio_read, .aio_flush = host_aio_flush, .ref = take_ref, .unref = drop_ref,
    .activate = activate,
};

static BlkMigDirtyOps dirty_ops = {
    .struct_size = sizeof(dirty_ops), .set_tracking = set_tracking, .get = get_dirty, .reset = reset_dirty,
    .get_count = get_dirty_count,
};

static BlkMigMonitorOps monitor_ops = {
    .struct_size = sizeof(monitor_ops), .printf = monitor_printf, .flush = monitor_flush,
};

static BlkMigSystemOps system_ops = {
    .struct_size = sizeof(system_ops), .register_savevm_live = register_savevm_live, .clock_ns = clock_ns,
    .max_downtime_ns = max_downtime_ns, .error_report = error_report, .log = log_message,
};

BlkMigHost *host_tables(void)
{
    static BlkMigHost tables = {
        .struct_size = sizeof(tables), .abi_version = BLK_MIG_ABI_VERSION, .bdrv = &bdrv_ops, .dirty = &dirty_ops,
        .file = &host_file_ops, .monitor = &monitor_ops, .system = &system_ops,
    };

    tables.flags = host.flags;
    bdrv_ops.aio_write = host.async_writes ? host_aio_write : NULL;
    bdrv_ops.aio_wait = host.no_wait ? NULL : host_aio_wait;
    bdrv_ops.write_zeroes = host.zeroes ? host_write_zeroes : NULL;
    bdrv_ops.is_zero = host.zeroes ? is_zero : NULL;
    bdrv_ops.cluster_size = host.zeroes ? cluster_size : NULL;
    dirty_ops.granularity = host.granularity ? granularity : NULL;
    bdrv_ops.flush = host.disk_flush ? flush : NULL;
    host_file_ops.put_buffer_nocopy = host.nocopy ? host_put_buffer_nocopy : NULL;
    if (!host.step) {
        host.step = 100 * MS;
        host.latency = MS;
        host.max_downtime = (uint64_t)(30 * MS);
    }
    return &tables;
}

void host_start(void)
{
    ok(blk_mig_set_host(host_tables()));
    if (host.aio == HOST_THREAD) {
        host_start_worker();
    }
    blk_mig_init();
    check(host.registered && host.save_live && host.load && host.set_params);
    host.set_params(1, 0, host.opaque);
    host.mon = &host.monitor;
}

/* ---- driving a migration ---- */

int host_iterate(QEMUFile *f, int steps)
{
    int done = 0;

    while (steps-- && !done && !f->error) {
        host_step(f);
        done = host.save_live(host.mon, f, 2, host.opaque);
    }
    return done;
}

int host_migrate(QEMUFile *f, int steps, void (*between)(QEMUFile *f))
{
    int done = 0;

    host.save_live(host.mon, f, 1, host.opaque);
    while (steps-- && !done && !f->error) {
        if (between) {
            between(f);
        }
        done = host_iterate(f, 1);
    }
    if (f->error || !done) {
        return 0;
    }
    host_step(f);
    host.save_live(host.mon, f, 3, host.opaque);
    return !f->error;
}

int host_load(QEMUFile *f)
{
    int ret = 0;

    f->pos = 0;
    while (ret == 0 && f->pos < f->size) {
        ret = host.load(f, host.opaque, 1);
    }
    return ret;
}

void host_end(void)
{
    ok(blk_mig_active());
    host_stop_worker();
    same(host.in_flight, 0);
    same(host.bad_requests, 0);
    while (host.disks) {
        BlockDriverState *bs = host.disks;

        if (bs->refs || bs->tracking) {
            fail("%s: %d references and tracking %d left", bs->name, bs->refs, bs->tracking);
        }
        host.disks = bs->next;
        free(bs->data);
        free(bs->base);
        free(bs->dirty);
        free(bs->reading);
        free(bs);
    }
}
