/* SPDX-License-Identifier: GPL-2.0-only */
/* The list of disks, and what each of them is. Its requests are in disk_io.c. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk.h"

static BlockDriverState *disks;

static BlockDriverState *new_disk(const char *name, bool read_only)
{
    BlockDriverState *bs = calloc(1, sizeof(*bs));
    if (!bs || !(bs->name = strdup(name))) {
        free(bs);
        return NULL;
    }
    bs->image = (HvImage){ .fd = -1, .base_fd = -1 };
    bs->read_only = read_only;
    atomic_init(&bs->refs, 0);
    hv_dirty_init(&bs->dirty);
    return bs;
}

static void free_disk(BlockDriverState *bs)
{
    assert(atomic_load(&bs->refs) == 0);   /* the module must have given back every reference */
    hv_new_file_discard(&bs->file);        /* while the file is still locked */
    hv_image_close(&bs->image);
    hv_dirty_destroy(&bs->dirty);
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

static int add_image(const HvDiskSpec *spec, bool create)
{
    BlockDriverState *bs = new_disk(spec->name, spec->read_only);
    if (!bs) {
        return -ENOMEM;
    }
    int ret = create ? hv_image_create(&bs->image, hv_new_file_open(&bs->file, spec->path), spec)
                     : hv_image_open(&bs->image, spec);
    if (ret < 0) {
        free_disk(bs);
        return ret;
    }
    bs->left_out = spec->left_out;
    bs->has_no_length = create;
    bs->bytes = bs->image.bytes;
    append(bs);
    return 0;
}

int hv_disk_open(const HvDiskSpec *spec)
{
    return add_image(spec, false);
}

int hv_disk_create(const HvDiskSpec *spec)
{
    return add_image(spec, true);
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

void hv_disk_close_all(void)
{
    while (disks) {
        BlockDriverState *first = disks;
        disks = first->next;
        free_disk(first);
    }
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
    /* Only a hint: an error shows again in hv_disk_sync. */
    sync_file_range(bs->image.fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE);
}

int hv_disk_sync(BlockDriverState *bs)
{
    return fsync(bs->image.fd) == 0 ? 0 : -errno;
}

void hv_disk_iterate(HvDeviceVisitor *it, void *opaque)
{
    for (BlockDriverState *bs = disks; bs; bs = bs->next) {
        it(opaque, bs);
    }
}

BlockDriverState *hv_disk_find(const char *name)
{
    for (BlockDriverState *bs = disks; bs; bs = bs->next) {
        if (strcmp(bs->name, name) == 0) {
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

bool hv_disk_migrates(BlockDriverState *bs)
{
    return !bs->read_only && !bs->left_out;
}

int hv_disk_cluster_size(BlockDriverState *bs)
{
    (void)bs;
    return HV_CLUSTER_SIZE;
}

int hv_disk_activate(BlockDriverState *bs)
{
    return bs->read_only ? -EROFS : 0;
}

int hv_disk_flush(BlockDriverState *bs)
{
    return fdatasync(bs->image.fd) == 0 ? 0 : -errno;
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
