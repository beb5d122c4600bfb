/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The functions of a hypervisor of 2011, done by the host whose tables classic_set_host got. The original block-
 * migration.c and the table file of hosts/qemu-classic compile against include/ and link with this, so they run in
 * every host that the library runs in.
 *
 * Mind the two meanings of a name: here struct BlockDriverState is 2011's; the host's devices are void pointers.
 */
#include "classic.h"
#include "block_int.h"
#include "blockdev.h"
#include "hw/hw.h"
#include "migration.h"
#include "monitor.h"
#include "qemu-timer.h"
#include <assert.h>
#include <blkmig.h>

static const BlkMigHost *host;
static BlockDriverState *known;
QEMUClock *rt_clock;

int classic_set_host(const BlkMigHost *tables)
{
    host = tables;
    return 0;
}

/* ---- devices ---- */

static BlockDriverState *classic_device(BlockDriverState *host_bs)
{
    BlockDriverState *bs = known;

    while (bs && bs->host != host_bs) {
        bs = bs->next;
    }
    if (!bs) {
        bs = calloc(1, sizeof(*bs));
        bs->device_name = host->bdrv->get_device_name(host_bs);
        bs->host = host_bs;
        bs->next = known;
        known = bs;
    }
    return bs;
}

struct visit {
    void (*it)(void *opaque, BlockDriverState *bs);
    void *opaque;
};

static void visit_device(void *opaque, BlockDriverState *host_bs)
{
    struct visit *visit = opaque;

    visit->it(visit->opaque, classic_device(host_bs));
}

void bdrv_iterate(void (*it)(void *opaque, BlockDriverState *bs), void *opaque)
{
    struct visit visit = { it, opaque };

    host->bdrv->iterate(visit_device, &visit);
}

BlockDriverState *bdrv_find(const char *name)
{
    BlockDriverState *found = host->bdrv->find(name);

    return found ? classic_device(found) : NULL;
}

const char *bdrv_get_device_name(BlockDriverState *bs)
{
    return bs->device_name;
}

int64_t bdrv_getlength(BlockDriverState *bs)
{
    return host->bdrv->getlength(bs->host);
}

int bdrv_is_read_only(BlockDriverState *bs)
{
    return host->bdrv->is_read_only(bs->host);
}

int bdrv_is_allocated(BlockDriverState *bs, int64_t sector_num, int nb_sectors, int *pnum)
{
    return host->bdrv->is_allocated(bs->host, sector_num, nb_sectors, pnum);
}

/* 2011's drives count their users. One that the host refuses to hold is a device without a drive. */
DriveInfo *drive_get_by_blockdev(BlockDriverState *bs)
{
    if (bs->drive_refs == 0 && host->bdrv->ref && host->bdrv->ref(bs->host) < 0) {
        return NULL;
    }
    return (DriveInfo *)bs;
}

void drive_get_ref(DriveInfo *dinfo)
{
    ((BlockDriverState *)dinfo)->drive_refs++;
}

void drive_put_ref(DriveInfo *dinfo)
{
    BlockDriverState *bs = (BlockDriverState *)dinfo;

    if (--bs->drive_refs == 0 && host->bdrv->unref) {
        host->bdrv->unref(bs->host);
    }
}

void bdrv_set_in_use(BlockDriverState *bs, int in_use)
{
    assert(bs->in_use != in_use);
    bs->in_use = in_use;
}

int bdrv_in_use(BlockDriverState *bs)
{
    return bs->in_use;
}

int bdrv_is_locked(BlockDriverState *bs)
{
    return bs->locked;
}

void bdrv_set_locked(BlockDriverState *bs, int locked)
{
    bs->locked = locked;
}

int bdrv_flush(BlockDriverState *bs)
{
    return host->bdrv->flush ? host->bdrv->flush(bs->host) : 0;
}

void classic_snapshot(BlockDriverState *host_bs, const char *filename)
{
    BlockDriverState *bs = classic_device(host_bs);

    snprintf(bs->filename, sizeof(bs->filename), "%s", filename);
}

int classic_eject(BlockDriverState *host_bs)
{
    return classic_device(host_bs)->locked ? -EBUSY : 0;
}

/* ---- the guest's writes ---- */

struct guest_write {
    BlockDriverState *bs;
    int64_t sector;
    int nb_sectors, byte, tracked;
    ClassicWriteEnds *ends;
    struct guest_write *next;
};

static struct guest_write *guest_writes;

void classic_guest_begins(BlockDriverState *host_bs, int64_t sector, int nb_sectors, int byte, ClassicWriteEnds *ends)
{
    struct guest_write *w = calloc(1, sizeof(*w));

    w->bs = classic_device(host_bs);
    w->sector = sector;
    w->nb_sectors = nb_sectors;
    w->byte = byte;
    w->tracked = w->bs->tracked;
    w->ends = ends;
    w->next = guest_writes;
    guest_writes = w;
}

void classic_guest_ends(void)
{
    while (guest_writes) {
        struct guest_write *w = guest_writes;

        guest_writes = w->next;
        w->ends(w->bs->host, w->sector, w->nb_sectors, w->byte, w->tracked && w->bs->tracked);
        free(w);
    }
}

/* ---- requests ---- */

void qemu_iovec_init_external(QEMUIOVector *qiov, struct iovec *iov, int niov)
{
    qiov->iov = iov;
    qiov->niov = niov;
    qiov->nalloc = -1;
    qiov->size = 0;
    for (int i = 0; i < niov; i++) {
        qiov->size += iov[i].iov_len;
    }
}

int bdrv_read(BlockDriverState *bs, int64_t sector_num, uint8_t *buf, int nb_sectors)
{
    return host->bdrv->read(bs->host, sector_num, buf, nb_sectors);
}

int bdrv_write(BlockDriverState *bs, int64_t sector_num, const uint8_t *buf, int nb_sectors)
{
    return host->bdrv->write(bs->host, sector_num, buf, nb_sectors);
}

BlockDriverAIOCB *bdrv_aio_readv(BlockDriverState *bs, int64_t sector_num, QEMUIOVector *iov, int nb_sectors,
                                 BlockDriverCompletionFunc *cb, void *opaque)
{
    return host->bdrv->aio_read(bs->host, sector_num, iov->iov[0].iov_base, nb_sectors, cb, opaque);
}

/* A host without asynchronous writes does them at once. */
BlockDriverAIOCB *bdrv_aio_writev(BlockDriverState *bs, int64_t sector_num, QEMUIOVector *iov, int nb_sectors,
                                  BlockDriverCompletionFunc *cb, void *opaque)
{
    const uint8_t *buf = iov->iov[0].iov_base;

    if (host->bdrv->aio_write) {
        return host->bdrv->aio_write(bs->host, sector_num, buf, nb_sectors, cb, opaque);
    }
    cb(opaque, host->bdrv->write(bs->host, sector_num, buf, nb_sectors));
    return (BlockDriverAIOCB *)bs;
}

void qemu_aio_flush(void)
{
    classic_guest_ends();
    host->bdrv->aio_flush();
}

void qemu_aio_wait(void)
{
    if (host->bdrv->aio_wait) {
        host->bdrv->aio_wait();
    } else {
        host->bdrv->aio_flush();
    }
}

/* ---- dirty tracking ---- */

void bdrv_set_dirty_tracking(BlockDriverState *bs, int enable)
{
    bs->tracked = enable;
    host->dirty->set_tracking(bs->host, enable);
}

int bdrv_get_dirty(BlockDriverState *bs, int64_t sector)
{
    return host->dirty->get(bs->host, sector);
}

void bdrv_reset_dirty(BlockDriverState *bs, int64_t cur_sector, int nr_sectors)
{
    host->dirty->reset(bs->host, cur_sector, nr_sectors);
}

int64_t bdrv_get_dirty_count(BlockDriverState *bs)
{
    return host->dirty->get_count(bs->host);
}

/* ---- the stream ---- */

void qemu_put_buffer(QEMUFile *f, const uint8_t *buf, int size)
{
    host->file->put_buffer(f, buf, size);
}

void qemu_put_byte(QEMUFile *f, int v)
{
    host->file->put_byte(f, v);
}

void qemu_put_be64(QEMUFile *f, uint64_t v)
{
    host->file->put_be64(f, v);
}

int qemu_get_buffer(QEMUFile *f, uint8_t *buf, int size)
{
    return host->file->get_buffer(f, buf, size);
}

int qemu_get_byte(QEMUFile *f)
{
    return host->file->get_byte(f);
}

uint64_t qemu_get_be64(QEMUFile *f)
{
    return host->file->get_be64(f);
}

int qemu_file_rate_limit(QEMUFile *f)
{
    return host->file->rate_limit(f);
}

int64_t qemu_file_get_rate_limit(QEMUFile *f)
{
    return host->file->get_rate_limit(f);
}

int qemu_file_has_error(QEMUFile *f)
{
    return host->file->has_error(f) != 0;
}

void qemu_file_set_error(QEMUFile *f)
{
    host->file->set_error(f, -EIO);
}

int register_savevm_live(DeviceState *dev, const char *idstr, int instance_id, int version_id,
                         SaveSetParamsHandler *set_params, SaveLiveStateHandler *save_live_state,
                         SaveStateHandler *save_state, LoadStateHandler *load_state, void *opaque)
{
    return host->system->register_savevm_live(dev, idstr, instance_id, version_id, set_params, save_live_state,
                                              (void *)save_state, load_state, opaque);
}

/* ---- the user, the clock, memory ---- */

void monitor_printf(Monitor *mon, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    if (host->monitor) {
        va_start(ap, fmt);
        vsnprintf(text, sizeof(text), fmt, ap);
        va_end(ap);
        host->monitor->printf(mon, "%s", text);
    }
}

void monitor_flush(Monitor *mon)
{
    if (host->monitor) {
        host->monitor->flush(mon);
    }
}

void error_report(const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    if (host->system->error_report) {
        va_start(ap, fmt);
        vsnprintf(text, sizeof(text), fmt, ap);
        va_end(ap);
        host->system->error_report("%s", text);
    }
}

int64_t qemu_get_clock_ns(QEMUClock *clock)
{
    (void)clock;
    return host->system->clock_ns();
}

uint64_t migrate_max_downtime(void)
{
    return host->system->max_downtime_ns();
}

void *qemu_malloc(size_t size)
{
    return malloc(size);
}

void *qemu_mallocz(size_t size)
{
    return calloc(1, size);
}

void qemu_free(void *ptr)
{
    free(ptr);
}
