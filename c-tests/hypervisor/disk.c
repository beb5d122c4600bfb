/* SPDX-License-Identifier: GPL-2.0-only */
/* The list of disks, and requests in sectors on an image file or on memory. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk.h"

static BlockDriverState *disks;

static int64_t clip(const BlockDriverState *bs, int64_t offset, int64_t size)
{
    int64_t left = bs->bytes - offset;
    return size < left ? size : left < 0 ? 0 : left;
}

static BlockDriverState *new_disk(const char *name, bool read_only)
{
    BlockDriverState *bs = calloc(1, sizeof(*bs));
    if (!bs || !(bs->name = strdup(name))) {
        free(bs);
        return NULL;
    }
    bs->image = (HvImage){ .fd = -1, .base_fd = -1 };
    bs->read_only = read_only;
    bs->listed = true;
    atomic_init(&bs->refs, 0);
    pthread_mutex_init(&bs->dirty.lock, NULL);
    return bs;
}

static void free_disk(BlockDriverState *bs)
{
    hv_new_file_discard(&bs->file);        /* before its lock ends */
    if (!bs->memory) {
        hv_image_close(&bs->image);
    }
    pthread_mutex_destroy(&bs->dirty.lock);
    free(bs->dirty.bits);
    free(bs->memory);
    free(bs->name);
    free(bs);
}

static void append(BlockDriverState *bs)
{
    BlockDriverState **end = &disks;
    while (*end) {
        end = &(*end)->next;
    }
    *end = bs;
}

static int add_image(const HvDiskSpec *spec, bool create, BlockDriverState **out)
{
    BlockDriverState *bs = new_disk(spec->name, spec->read_only);
    if (!bs) {
        return -ENOMEM;
    }
    int ret = create ? hv_image_create(&bs->image, spec, &bs->file) : hv_image_open(&bs->image, spec);
    if (ret < 0) {
        free_disk(bs);
        return ret;
    }
    bs->has_no_length = create;
    bs->bytes = bs->image.bytes;
    append(bs);
    *out = bs;
    return 0;
}

int hv_disk_open(const HvDiskSpec *spec, BlockDriverState **out)
{
    return add_image(spec, false, out);
}

int hv_disk_create(const HvDiskSpec *spec, BlockDriverState **out)
{
    return add_image(spec, true, out);
}

bool hv_disk_has_no_length(BlockDriverState *bs)
{
    return bs->has_no_length;
}

int hv_disk_set_length(BlockDriverState *bs, uint64_t bytes)
{
    int ret = bytes > INT64_MAX ? -EFBIG : hv_image_set_length(&bs->image, (int64_t)bytes);
    if (ret < 0) {
        return hv_fail(ret, "disk %s cannot be created with %llu bytes: %s", bs->name, (unsigned long long)bytes,
                       strerror(-ret));
    }
    bs->bytes = (int64_t)bytes;
    bs->has_no_length = false;
    return 0;
}

int hv_disk_place(BlockDriverState *bs)
{
    return bs->file.path ? hv_new_file_place(&bs->file) : 0;
}

const char *hv_disk_placed(BlockDriverState *bs)
{
    return bs->file.placed ? bs->file.part : NULL;
}

void hv_disk_keep(BlockDriverState *bs)
{
    hv_new_file_keep(&bs->file);
}

int hv_disk_open_memory(const char *name, int64_t bytes, BlockDriverState **out)
{
    BlockDriverState *bs = new_disk(name, false);
    if (!bs || !(bs->memory = calloc(1, (size_t)bytes + 1))) {
        if (bs) {
            free_disk(bs);
        }
        return -ENOMEM;
    }
    bs->bytes = bytes;
    append(bs);
    *out = bs;
    return 0;
}

void hv_disk_close(BlockDriverState *bs)
{
    for (BlockDriverState **at = &disks; *at; at = &(*at)->next) {
        if (*at == bs) {
            *at = bs->next;
            free_disk(bs);
            return;
        }
    }
}

void hv_disk_close_all(void)
{
    while (disks) {
        hv_disk_close(disks);
    }
}

void hv_disk_set_listed(BlockDriverState *bs, bool listed)
{
    bs->listed = listed;
}

void hv_disk_set_fault(BlockDriverState *bs, HvFault *fault, void *opaque)
{
    bs->fault = fault;
    bs->fault_opaque = opaque;
}

uint8_t *hv_disk_memory(BlockDriverState *bs)
{
    return bs->memory;
}

int64_t hv_disk_bytes(BlockDriverState *bs)
{
    return bs->bytes;
}

bool hv_disk_has_base(BlockDriverState *bs)
{
    return bs->image.base_fd >= 0;
}

int hv_disk_clear(BlockDriverState *bs)
{
    return hv_disk_has_base(bs) && bs->bytes > 0 ? hv_image_punch(&bs->image, 0, bs->bytes) : 0;
}

void hv_disk_write_back(BlockDriverState *bs)
{
    if (!bs->memory) {                     /* a hint: hv_disk_sync reports what goes wrong */
        sync_file_range(bs->image.fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE);
    }
}

int hv_disk_sync(BlockDriverState *bs)
{
    return bs->memory || fsync(bs->image.fd) == 0 ? 0 : -errno;
}

void hv_disk_iterate(HvDeviceVisitor *it, void *opaque)
{
    for (BlockDriverState *bs = disks; bs; bs = bs->next) {
        if (bs->listed) {
            it(opaque, bs);
        }
    }
}

BlockDriverState *hv_disk_find(const char *name)
{
    for (BlockDriverState *bs = disks; bs; bs = bs->next) {
        if (bs->listed && strcmp(bs->name, name) == 0) {
            return bs;
        }
    }
    return NULL;
}

const char *hv_disk_name(BlockDriverState *bs)
{
    return bs->name;
}

int64_t hv_disk_getlength(BlockDriverState *bs)
{
    return (bs->bytes + HV_SECTOR_SIZE - 1) / HV_SECTOR_SIZE * HV_SECTOR_SIZE;
}

int hv_disk_is_read_only(BlockDriverState *bs)
{
    return bs->read_only;
}

int hv_disk_cluster_size(BlockDriverState *bs)
{
    return bs->memory ? 0 : HV_CLUSTER_SIZE;
}

int hv_disk_activate(BlockDriverState *bs)
{
    return bs->read_only ? -EROFS : 0;
}

int hv_disk_flush(BlockDriverState *bs)
{
    return bs->memory || fdatasync(bs->image.fd) == 0 ? 0 : -errno;
}

int hv_disk_ref(BlockDriverState *bs)
{
    atomic_fetch_add(&bs->refs, 1);
    return 0;
}

void hv_disk_unref(BlockDriverState *bs)
{
    atomic_fetch_sub(&bs->refs, 1);
}

int hv_disk_refs(BlockDriverState *bs)
{
    return atomic_load(&bs->refs);
}

static int check(BlockDriverState *bs, HvOp op, int64_t sector, int nb_sectors)
{
    int64_t sectors = hv_disk_getlength(bs) / HV_SECTOR_SIZE;
    if (sector < 0 || nb_sectors <= 0 || sector > sectors - nb_sectors) {
        return -EIO;
    }
    if (op == HV_WRITE && bs->read_only) {
        return -EROFS;
    }
    return bs->fault ? bs->fault(bs->fault_opaque, bs, op, sector, nb_sectors) : 0;
}

int hv_disk_read(BlockDriverState *bs, int64_t sector, uint8_t *buf, int nb_sectors)
{
    int ret = check(bs, HV_READ, sector, nb_sectors);
    if (ret < 0) {
        return ret;
    }
    int64_t offset = sector * HV_SECTOR_SIZE;
    int64_t size = (int64_t)nb_sectors * HV_SECTOR_SIZE;
    int64_t own = clip(bs, offset, size);
    memset(buf + own, 0, (size_t)(size - own));
    if (!bs->memory) {
        return hv_image_read(&bs->image, offset, buf, own);
    }
    memcpy(buf, bs->memory + offset, (size_t)own);
    return 0;
}

int hv_disk_write(BlockDriverState *bs, int64_t sector, const uint8_t *buf, int nb_sectors)
{
    int ret = check(bs, HV_WRITE, sector, nb_sectors);
    if (ret < 0) {
        return ret;
    }
    int64_t offset = sector * HV_SECTOR_SIZE;
    int64_t own = clip(bs, offset, (int64_t)nb_sectors * HV_SECTOR_SIZE);
    if (bs->memory) {
        memcpy(bs->memory + offset, buf, (size_t)own);
    } else {
        ret = hv_image_write(&bs->image, offset, buf, own);
    }
    hv_dirty_mark(bs, sector, nb_sectors); /* after the data, and also when only a part of it was written */
    return ret;
}

int hv_disk_write_zeroes(BlockDriverState *bs, int64_t sector, int nb_sectors)
{
    int ret = check(bs, HV_WRITE, sector, nb_sectors);
    if (ret < 0) {
        return ret;
    }
    int64_t offset = sector * HV_SECTOR_SIZE;
    int64_t own = clip(bs, offset, (int64_t)nb_sectors * HV_SECTOR_SIZE);
    if (bs->memory) {
        memset(bs->memory + offset, 0, (size_t)own);
    } else {
        ret = hv_image_write_zeroes(&bs->image, offset, own);
    }
    hv_dirty_mark(bs, sector, nb_sectors);
    return ret;
}

/* An answer in bytes, made one in whole sectors: a sector with both is `mixed`. */
static bool in_sectors(int64_t run, int64_t size, int nb_sectors, bool answer, bool mixed, int *pnum)
{
    if (run >= size) {
        *pnum = nb_sectors;
        return answer;
    }
    *pnum = (int)(run / HV_SECTOR_SIZE);
    if (*pnum == 0) {
        *pnum = 1;
        return mixed;
    }
    return answer;
}

int hv_disk_is_allocated(BlockDriverState *bs, int64_t sector, int nb_sectors, int *pnum)
{
    *pnum = nb_sectors;
    if (!hv_disk_has_base(bs)) {
        return 1;
    }
    int64_t offset = sector * HV_SECTOR_SIZE, run;
    int64_t size = clip(bs, offset, (int64_t)nb_sectors * HV_SECTOR_SIZE);
    bool data = hv_image_is_data(&bs->image, offset, size, &run);
    return in_sectors(run, size, nb_sectors, data, true, pnum);
}

int hv_disk_is_zero(BlockDriverState *bs, int64_t sector, int nb_sectors, int *pnum)
{
    *pnum = nb_sectors;
    if (bs->memory) {
        return 0;
    }
    int64_t offset = sector * HV_SECTOR_SIZE, run;
    int64_t size = clip(bs, offset, (int64_t)nb_sectors * HV_SECTOR_SIZE);
    bool zero = hv_image_is_zero(&bs->image, offset, size, &run);
    return in_sectors(run, size, nb_sectors, zero, false, pnum);
}
