/* SPDX-License-Identifier: GPL-2.0-only */
/* Requests in sectors, and what the writes have made dirty. */
#include <errno.h>
#include <string.h>

#include "disk.h"

/* How much of a request lies within the image: a disk's last sector may be longer than its file. */
static int64_t clip(const BlockDriverState *bs, int64_t offset, int64_t size)
{
    int64_t left = bs->bytes - offset;
    return size < left ? size : left < 0 ? 0 : left;
}

static int check(BlockDriverState *bs, bool write, int64_t sector, int nb_sectors)
{
    int64_t sectors = hv_disk_getlength(bs) / HV_SECTOR_SIZE;
    if (sector < 0 || nb_sectors <= 0 || sector > sectors - nb_sectors) {
        return -EIO;
    }
    if (write && bs->read_only) {
        return -EROFS;
    }
    return 0;
}

int hv_disk_read(BlockDriverState *bs, int64_t sector, uint8_t *buf, int nb_sectors)
{
    int ret = check(bs, false, sector, nb_sectors);
    if (ret < 0) {
        return ret;
    }
    int64_t offset = sector * HV_SECTOR_SIZE;
    int64_t size = (int64_t)nb_sectors * HV_SECTOR_SIZE;
    int64_t own = clip(bs, offset, size);
    memset(buf + own, 0, (size_t)(size - own));
    return hv_image_read(&bs->image, offset, buf, own);
}

int hv_disk_write(BlockDriverState *bs, int64_t sector, const uint8_t *buf, int nb_sectors)
{
    int ret = check(bs, true, sector, nb_sectors);
    if (ret < 0) {
        return ret;
    }
    int64_t offset = sector * HV_SECTOR_SIZE;
    int64_t own = clip(bs, offset, (int64_t)nb_sectors * HV_SECTOR_SIZE);
    ret = hv_image_write(&bs->image, offset, buf, own);
    /* After the data, and also if only a part of it was written. */
    hv_dirty_change(&bs->dirty, sector, nb_sectors, true);
    return ret;
}

int hv_disk_write_zeroes(BlockDriverState *bs, int64_t sector, int nb_sectors)
{
    int ret = check(bs, true, sector, nb_sectors);
    if (ret < 0) {
        return ret;
    }
    int64_t offset = sector * HV_SECTOR_SIZE;
    int64_t own = clip(bs, offset, (int64_t)nb_sectors * HV_SECTOR_SIZE);
    ret = hv_image_write_zeroes(&bs->image, offset, own);
    hv_dirty_change(&bs->dirty, sector, nb_sectors, true);
    return ret;
}

/* Turns an answer for `run` bytes into one for whole sectors; `mixed` is the answer for a sector with both. */
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
    int64_t offset = sector * HV_SECTOR_SIZE, run;
    int64_t size = clip(bs, offset, (int64_t)nb_sectors * HV_SECTOR_SIZE);
    bool zero = hv_image_is_zero(&bs->image, offset, size, &run);
    return in_sectors(run, size, nb_sectors, zero, false, pnum);
}

/* ---- Dirty tracking ---- */

static int unit_sectors = HV_CHUNK_SECTORS;

void hv_disk_set_granularity(int bytes)
{
    unit_sectors = bytes / HV_SECTOR_SIZE;
}

int64_t hv_disk_granularity(BlockDriverState *bs)
{
    (void)bs;
    return (int64_t)unit_sectors * HV_SECTOR_SIZE;
}

int hv_disk_set_tracking(BlockDriverState *bs, int enable)
{
    return hv_dirty_set_tracking(&bs->dirty, hv_disk_getlength(bs) / HV_SECTOR_SIZE, unit_sectors, enable);
}

int hv_disk_get_dirty(BlockDriverState *bs, int64_t sector)
{
    return hv_dirty_get(&bs->dirty, sector);
}

void hv_disk_reset_dirty(BlockDriverState *bs, int64_t sector, int nb_sectors)
{
    hv_dirty_change(&bs->dirty, sector, nb_sectors, false);
}

int64_t hv_disk_dirty_count(BlockDriverState *bs)
{
    return hv_dirty_count(&bs->dirty);
}

int64_t hv_disk_next_dirty(BlockDriverState *bs, int64_t sector)
{
    return hv_dirty_next(&bs->dirty, sector);
}
