/* SPDX-License-Identifier: GPL-2.0-only */
/* Disks in memory, with or without something in them, and their dirty bitmaps. */
#include "bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static BlockDriverState *disks[16];
static int disk_count;

/* In huge pages where the system has them: what is measured is not the system's paging. */
uint8_t *memory_new(size_t bytes)
{
    uint8_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED) {
        fail("no memory");
    }
    madvise(memory, bytes, MADV_HUGEPAGE);
    return memory;
}

BlockDriverState *disk_new(int64_t bytes, bool with_data)
{
    BlockDriverState *bs = calloc(1, sizeof(*bs));

    snprintf(bs->name, sizeof(bs->name), "disk%02d", disk_count);
    bs->sectors = bytes / SECTOR;
    bs->chunks = (bytes + CHUNK - 1) / CHUNK;
    bs->dirty = calloc((size_t)(bs->chunks + 63) / 64, sizeof(uint64_t));
    if (with_data) {
        bs->data = memory_new((size_t)bytes);
        bs->hole = calloc((size_t)(bytes / CLUSTER + 1), sizeof(bool));
    }
    disks[disk_count++] = bs;
    return bs;
}

BlockDriverState *disk_at(int index)
{
    return disks[index];
}

/* Chunk by chunk random data or, for so many of a hundred, zeroes. */
void disk_fill(BlockDriverState *bs, int zero_percent)
{
    for (int64_t chunk = 0; chunk < bs->chunks; chunk++) {
        uint64_t *data = (uint64_t *)(bs->data + chunk * CHUNK);
        bool zero = (int64_t)(random64() % 100) < zero_percent;

        for (int i = 0; i < CHUNK / 8; i++) {
            data[i] = zero ? 0 : random64();
        }
    }
}

void disk_touch(BlockDriverState *bs)
{
    memset(bs->data, 0xff, (size_t)bs->sectors * SECTOR);
}

void disk_make_holes(BlockDriverState *bs)
{
    static const uint8_t zeroes[CLUSTER];

    for (int64_t i = 0; i < bs->sectors * SECTOR / CLUSTER; i++) {
        bs->hole[i] = memcmp(bs->data + i * CLUSTER, zeroes, CLUSTER) == 0;
    }
}

void disk_track_versions(BlockDriverState *bs)
{
    bs->version = calloc((size_t)bs->chunks, sizeof(uint32_t));
    bs->arrived = calloc((size_t)bs->chunks, sizeof(uint32_t));
    for (int64_t i = 0; i < bs->chunks; i++) {
        bs->version[i] = 1;
    }
}

int64_t lost_chunks(void)
{
    int64_t lost = 0;
    BlockDriverState *bs;

    for (int index = 0; (bs = disk_at(index)); index++) {
        for (int64_t i = 0; i < bs->chunks; i++) {
            lost += bs->version[i] != bs->arrived[i];
        }
    }
    return lost;
}

/* ---- the table ---- */

static void iterate(BlkMigDeviceVisitor *it, void *opaque)
{
    for (int i = 0; i < disk_count; i++) {
        it(opaque, disks[i]);
    }
}

static BlockDriverState *find(const char *name)
{
    for (int i = 0; i < disk_count; i++) {
        if (strcmp(disks[i]->name, name) == 0) {
            return disks[i];
        }
    }
    return NULL;
}

static const char *get_device_name(BlockDriverState *bs)
{
    return bs->name;
}

static int64_t getlength(BlockDriverState *bs)
{
    return bs->sectors * SECTOR;
}

static int is_read_only(BlockDriverState *bs)
{
    (void)bs;
    return 0;
}

static int is_allocated(BlockDriverState *bs, int64_t sector, int count, int *pnum)
{
    int64_t left = bs->sectors - sector;

    *pnum = (int)(count < left ? count : left);
    return 1;
}

static int read_disk(BlockDriverState *bs, int64_t sector, uint8_t *buf, int count)
{
    if (bs->data) {
        memcpy(buf, bs->data + sector * SECTOR, (size_t)count * SECTOR);
    }
    if (bs->version) {
        memcpy(buf, &bs->version[sector / CHUNK_SECTORS], sizeof(uint32_t));
    }
    return 0;
}

static void set_holes(BlockDriverState *bs, int64_t sector, int count, bool hole)
{
    int64_t first = sector * SECTOR / CLUSTER;
    int64_t last = ((sector + count) * SECTOR - 1) / CLUSTER;

    memset(bs->hole + first, hole, (size_t)(last - first + 1));
}

static int write_disk(BlockDriverState *bs, int64_t sector, const uint8_t *buf, int count)
{
    memcpy(bs->data + sector * SECTOR, buf, (size_t)count * SECTOR);
    set_holes(bs, sector, count, false);
    return 0;
}

/* Whole clusters become holes, as in a format that knows them; this host is asked for no others. */
static int write_zeroes(BlockDriverState *bs, int64_t sector, int count)
{
    if (sector * SECTOR % CLUSTER || (int64_t)count * SECTOR % CLUSTER) {
        return -ENOTSUP;
    }
    set_holes(bs, sector, count, true);
    return 0;
}

static int is_zero(BlockDriverState *bs, int64_t sector, int count, int *pnum)
{
    int64_t first = sector * SECTOR / CLUSTER;
    int64_t end = ((sector + count) * SECTOR + CLUSTER - 1) / CLUSTER;
    int64_t at = first;

    while (at < end && bs->hole[at] == bs->hole[first]) {
        at++;
    }
    *pnum = (int)(at * CLUSTER / SECTOR - sector);
    if (*pnum > count) {
        *pnum = count;
    }
    return bs->hole[first];
}

static int cluster_size(BlockDriverState *bs)
{
    (void)bs;
    return CLUSTER;
}

const BlkMigBdrvOps bdrv_ops = {
    .struct_size = sizeof(bdrv_ops),
    .iterate = iterate,
    .find = find,
    .get_device_name = get_device_name,
    .getlength = getlength,
    .is_read_only = is_read_only,
    .is_allocated = is_allocated,
    .read = read_disk,
    .write = write_disk,
    .aio_read = aio_read,
    .aio_flush = aio_flush,
    .aio_write = aio_write,
    .aio_wait = aio_wait,
    .write_zeroes = write_zeroes,
    .is_zero = is_zero,
    .cluster_size = cluster_size,
};

/* ---- dirty chunks ---- */

void disk_set_dirty(BlockDriverState *bs, int64_t chunk)
{
    uint64_t bit = UINT64_C(1) << (chunk % 64);

    bs->dirty_count += !(bs->dirty[chunk / 64] & bit);
    bs->dirty[chunk / 64] |= bit;
}

static int set_tracking(BlockDriverState *bs, int enable)
{
    bs->tracking = enable;
    bs->dirty_count = 0;
    memset(bs->dirty, 0, (size_t)(bs->chunks + 63) / 64 * sizeof(uint64_t));
    return 0;
}

static int dirty_get(BlockDriverState *bs, int64_t sector)
{
    int64_t chunk = sector / CHUNK_SECTORS;

    return bs->dirty[chunk / 64] >> (chunk % 64) & 1;
}

static void dirty_reset(BlockDriverState *bs, int64_t sector, int count)
{
    for (int64_t chunk = sector / CHUNK_SECTORS; chunk * CHUNK_SECTORS < sector + count; chunk++) {
        uint64_t bit = UINT64_C(1) << (chunk % 64);

        bs->dirty_count -= !!(bs->dirty[chunk / 64] & bit);
        bs->dirty[chunk / 64] &= ~bit;
    }
}

static int64_t dirty_get_count(BlockDriverState *bs)
{
    return bs->dirty_count;
}

static int64_t dirty_next(BlockDriverState *bs, int64_t sector)
{
    int64_t chunk = sector / CHUNK_SECTORS;
    int64_t word = chunk / 64;
    uint64_t bits = bs->dirty[word] & ~UINT64_C(0) << (chunk % 64);

    while (!bits) {
        if (++word * 64 >= bs->chunks) {
            return -1;
        }
        bits = bs->dirty[word];
    }
    chunk = word * 64 + __builtin_ctzll(bits);
    return chunk * CHUNK_SECTORS > sector ? chunk * CHUNK_SECTORS : sector;
}

const BlkMigDirtyOps dirty_ops = {
    .struct_size = sizeof(dirty_ops),
    .set_tracking = set_tracking,
    .get = dirty_get,
    .reset = dirty_reset,
    .get_count = dirty_get_count,
    .next = dirty_next,
};
