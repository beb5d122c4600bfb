/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A complete host of libblkmig: two disks in memory, which migrate from this process to another one over a socket while
 * a guest writes to them. At the end it compares them. In host.cpp, the guest has its own thread.
 *
 *     cc host.c $(pkg-config --cflags --libs blkmig) -o host && ./host
 */
#define _GNU_SOURCE
#include <blkmig.h>
#include <endian.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SECTOR = 512, CHUNK_SECTORS = 2048, DISKS = 2 };

/* ---- Disks. The library only knows the names of this type and of the stream's: they hold what the host needs. ---- */

struct BlockDriverState {
    const char *name;
    int64_t sectors;                       /* any number: the last chunk may be shorter than the others */
    uint8_t *data;
    bool tracking, dirty[32];              /* for each chunk: has the guest written to it? */
};
static BlockDriverState disks[DISKS] = { { .name = "system", .sectors = 20 * CHUNK_SECTORS + 3 },
                                         { .name = "data", .sectors = 9 * CHUNK_SECTORS } };

static void disk_iterate(BlkMigDeviceVisitor *it, void *opaque)
{
    for (int i = 0; i < DISKS; i++) {
        it(opaque, &disks[i]);
    }
}

static BlockDriverState *disk_find(const char *name)
{
    for (int i = 0; i < DISKS; i++) {
        if (strcmp(disks[i].name, name) == 0) {
            return &disks[i];
        }
    }
    return NULL;
}

static const char *disk_name(BlockDriverState *bs) { return bs->name; }
static int64_t disk_length(BlockDriverState *bs) { return bs->sectors * SECTOR; }
static int disk_is_read_only(BlockDriverState *bs) { return (void)bs, 0; }

/* There are no backing files here, so all of a disk is in its own image. */
static int disk_is_allocated(BlockDriverState *bs, int64_t sector, int nb_sectors, int *pnum)
{
    return (void)bs, (void)sector, *pnum = nb_sectors, 1;
}

static int disk_read(BlockDriverState *bs, int64_t sector, uint8_t *buf, int nb_sectors)
{
    memcpy(buf, bs->data + sector * SECTOR, (size_t)nb_sectors * SECTOR);
    return 0;
}

static void dirty_change(BlockDriverState *bs, int64_t sector, int nb_sectors, bool dirty)
{
    for (int64_t chunk = sector / CHUNK_SECTORS; chunk <= (sector + nb_sectors - 1) / CHUNK_SECTORS; chunk++) {
        bs->dirty[chunk] = dirty;
    }
}

/* The guest's writes, and on the destination the library's. The bit is set after the data: if it was set before them,
 * it could be reset, and the old data read, in between. */
static int disk_write(BlockDriverState *bs, int64_t sector, const uint8_t *buf, int nb_sectors)
{
    memcpy(bs->data + sector * SECTOR, buf, (size_t)nb_sectors * SECTOR);
    dirty_change(bs, sector, nb_sectors, bs->tracking);
    return 0;
}

/* A read may complete before this returns, as here, or later on any thread: then set BLK_MIG_HOST_THREADED, and let
 * aio_flush wait for all of them. Any result but NULL means that it was started; cb is called exactly once. */
static void *disk_aio_read(BlockDriverState *bs, int64_t sector, uint8_t *buf, int nb_sectors, BlkMigCompletion *cb,
                           void *opaque)
{
    cb(opaque, disk_read(bs, sector, buf, nb_sectors));
    return bs;
}

static void disk_aio_flush(void) { }

static int dirty_set_tracking(BlockDriverState *bs, int enable)
{
    memset(bs->dirty, 0, sizeof(bs->dirty));
    bs->tracking = enable;
    return 0;
}

static int dirty_get(BlockDriverState *bs, int64_t sector) { return bs->dirty[sector / CHUNK_SECTORS]; }

static void dirty_reset(BlockDriverState *bs, int64_t sector, int nb_sectors)
{
    dirty_change(bs, sector, nb_sectors, false);
}

static int64_t dirty_get_count(BlockDriverState *bs)
{
    int64_t count = 0;
    for (int64_t sector = 0; sector < bs->sectors; sector += CHUNK_SECTORS) {
        count += dirty_get(bs, sector);
    }
    return count;
}

/* ---- The stream: a socket behind stdio. Once it has failed it stays failed. ---- */

struct QEMUFile {
    FILE *in, *out;
    int error;
};

static int file_has_error(QEMUFile *f) { return f->error; }
static void file_set_error(QEMUFile *f, int ret) { f->error = f->error ? f->error : ret; }
static int file_rate_limit(QEMUFile *f) { return (void)f, 0; }
static int64_t file_get_rate_limit(QEMUFile *f) { return (void)f, 0; }

static void file_put_buffer(QEMUFile *f, const uint8_t *buf, int size)
{
    if (!f->error && fwrite(buf, 1, (size_t)size, f->out) != (size_t)size) {
        file_set_error(f, -errno);
    }
}

static void file_put_byte(QEMUFile *f, int v) { file_put_buffer(f, &(uint8_t){ (uint8_t)v }, 1); }
static void file_put_be64(QEMUFile *f, uint64_t v) { v = htobe64(v), file_put_buffer(f, (uint8_t *)&v, sizeof(v)); }
static int file_get_buffer(QEMUFile *f, uint8_t *buf, int size) { return (int)fread(buf, 1, (size_t)size, f->in); }
static int file_get_byte(QEMUFile *f) { uint8_t byte = 0; return file_get_buffer(f, &byte, 1), byte; }

static uint64_t file_get_be64(QEMUFile *f) { uint64_t v = 0; return file_get_buffer(f, (uint8_t *)&v, 8), be64toh(v); }

static void file_flush(QEMUFile *f)
{
    if (fflush(f->out) != 0) {
        file_set_error(f, -errno);
    }
}

/* ---- The rest of the host ---- */

/* Hosts that call blk_mig_init get their callbacks here; this one calls the functions itself. */
static int register_savevm_live(void *dev, const char *idstr, int instance_id, int version_id,
                                BlkMigSetParams *set_params, BlkMigSaveLive *save_live, void *save_state,
                                BlkMigLoad *load, void *opaque)
{
    (void)dev, (void)idstr, (void)instance_id, (void)version_id;
    return (void)set_params, (void)save_live, (void)save_state, (void)load, (void)opaque, 0;
}

static int64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static uint64_t max_downtime_ns(void) { return 300 * 1000000; }
static void log_message(int level, const char *text)
{
    if (level <= 2) {
        fprintf(stderr, "blkmig: %s\n", text);
    }
}

static int set_host(void)
{
    /* A function that is not set here is NULL. The header says which may be NULL, and what the library does without it.
     * A host whose disks survive a power failure needs flush as well, or "received" would promise too much. */
    const BlkMigBdrvOps bdrv = {
        .struct_size = sizeof(bdrv), .iterate = disk_iterate, .find = disk_find, .get_device_name = disk_name,
        .getlength = disk_length, .is_read_only = disk_is_read_only, .is_allocated = disk_is_allocated,
        .read = disk_read, .write = disk_write, .aio_read = disk_aio_read, .aio_flush = disk_aio_flush,
    };
    const BlkMigDirtyOps dirty = {
        .struct_size = sizeof(dirty), .set_tracking = dirty_set_tracking, .get = dirty_get, .reset = dirty_reset,
        .get_count = dirty_get_count,
    };
    const BlkMigFileOps file = {
        .struct_size = sizeof(file), .put_buffer = file_put_buffer, .put_byte = file_put_byte,
        .put_be64 = file_put_be64, .get_buffer = file_get_buffer, .get_byte = file_get_byte,
        .get_be64 = file_get_be64, .rate_limit = file_rate_limit, .get_rate_limit = file_get_rate_limit,
        .has_error = file_has_error, .set_error = file_set_error, .flush = file_flush,
    };
    const BlkMigSystemOps sys = {
        .struct_size = sizeof(sys), .register_savevm_live = register_savevm_live, .clock_ns = clock_ns,
        .max_downtime_ns = max_downtime_ns, .log = log_message,
    };
    const BlkMigHost host = {
        .struct_size = sizeof(host), .abi_version = BLK_MIG_ABI_VERSION, .bdrv = &bdrv, .dirty = &dirty, .file = &file,
        .system = &sys,
    };
    /* 8 MiB of memory on each side. A chunk of zeroes takes a few bytes, which QEMU's original of 2011 can't read. */
    const BlkMigOptions options = { .struct_size = sizeof(options), .max_buffers = 8, .zero_blocks = 1 };
    int ret = blk_mig_set_host(&host);     /* copies the tables */
    return ret < 0 ? ret : blk_mig_set_options(&options);
}

static void guest_writes(void)
{
    uint8_t block[8 * SECTOR];
    BlockDriverState *bs = &disks[random() % DISKS];
    memset(block, (int)random(), sizeof(block));
    disk_write(bs, random() % (bs->sectors - 7), block, 8);
}

/* ---- Both sides. The library writes and reads sections; what lies between them is the host's own. ---- */

enum { SECTION = 1, END = 2, RECEIVED = 3 };

static int migrate(QEMUFile *f)
{
    uint64_t limit = 2 << 20;              /* the bytes that the link takes within the downtime that the user allows */
    file_put_byte(f, SECTION);
    int ret = blk_mig_save_setup(f, NULL);
    while (ret >= 0 && blk_mig_save_pending_switchover(NULL, limit) > limit) {
        file_put_byte(f, SECTION);
        ret = blk_mig_save_iterate(f, NULL);
        guest_writes();
    }
    if (ret >= 0) {                        /* from here on the guest stands still: no write of it may be under way */
        file_put_byte(f, SECTION);
        ret = blk_mig_save_complete(f, NULL);
    }
    blk_mig_save_cleanup(NULL);            /* always, also after an error; the guest may run on here then */
    if (ret < 0) {
        return ret;
    }
    file_put_byte(f, END);
    file_flush(f);
    /* Only the destination knows that all has arrived. Until it says so the guest must not run there. */
    return f->error ? f->error : file_get_byte(f) == RECEIVED ? 0 : -EIO;
}

static int receive(QEMUFile *f)
{
    int mark, ret = 0;
    while (ret == 0 && (mark = file_get_byte(f)) == SECTION) {
        ret = blk_mig_load(f, NULL, 1);
    }
    if (ret < 0 || mark != END) {          /* with no END the source has gone, and what is here is not all of it */
        return ret < 0 ? ret : -EPIPE;
    }
    file_put_byte(f, RECEIVED);
    file_flush(f);
    return f->error;
}

/* One side, in its own process: 0 if all went well. */
static int run(const char *side, int socket, uint8_t *data[DISKS], int (*work)(QEMUFile *f))
{
    QEMUFile f = { .in = fdopen(socket, "rb"), .out = fdopen(dup(socket), "wb") };
    if (!f.in || !f.out) {
        return perror(side), 1;
    }
    for (int i = 0; i < DISKS; i++) {
        disks[i].data = data[i];
    }
    int ret = set_host();
    ret = ret < 0 ? ret : work(&f);
    if (ret < 0) {
        char text[256];
        blk_mig_last_error(text, sizeof(text));
        fprintf(stderr, "%s: %s\n", side, *text ? text : strerror(-ret));
    }
    fclose(f.in);
    fclose(f.out);
    return ret < 0;
}

int main(void)
{
    int sockets[2], status;
    uint8_t *from[DISKS], *to[DISKS];
    signal(SIGPIPE, SIG_IGN);              /* a peer that is gone is an error of the stream and not our end */
    for (int i = 0; i < DISKS; i++) {
        size_t bytes = (size_t)disk_length(&disks[i]);
        from[i] = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        to[i] = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (from[i] == MAP_FAILED || to[i] == MAP_FAILED) {
            return perror("mmap"), 1;
        }
        memset(from[i], 0xd5, bytes / 2);
        memset(to[i], 0xee, bytes);        /* what the destination held before */
    }
    pid_t child = socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) < 0 ? -1 : fork();
    if (child < 0) {
        return perror("socketpair or fork"), 1;
    }
    close(sockets[child == 0]);            /* or nobody would see the end of the other process */
    if (child == 0) {
        return run("destination", sockets[0], to, receive);
    }
    int ret = run("source", sockets[1], from, migrate);
    if (waitpid(child, &status, 0) < 0 || status != 0 || ret) {
        return 1;
    }
    BlkMigStats stats = { .struct_size = sizeof(stats) };
    blk_mig_get_stats(&stats);
    printf("sent %llu chunks: %llu zero ones, %llu that the guest wrote to again\n",
           (unsigned long long)stats.chunks_sent, (unsigned long long)stats.chunks_zero,
           (unsigned long long)stats.chunks_resent);
    for (int i = 0; i < DISKS; i++) {
        bool same = memcmp(from[i], to[i], (size_t)disk_length(&disks[i])) == 0;
        printf("disk %s: %s\n", disks[i].name, same ? "the same on both sides" : "DIFFERS");
        ret |= !same;
    }
    return ret;
}
