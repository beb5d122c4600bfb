/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The nth allocation of the module fails, whichever, or that one and all that follow until the migration or the load
 * has ended: it goes well, or ends with -ENOMEM; nothing aborts, and the next one works.
 *
 * The linker gives the library what is below for malloc and its like, and the hypervisor in memory the real ones.
 */
#include "host.h"
#include "test.h"
#include <sys/mman.h>

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *at, size_t size);
int __wrap_posix_memalign(void **at, size_t alignment, size_t size);
void *__wrap_mmap(void *at, size_t size, int access, int kind, int fd, off_t offset);
int __real_posix_memalign(void **at, size_t alignment, size_t size);
void *__real_mmap(void *at, size_t size, int access, int kind, int fd, off_t offset);

enum { ONE, ALL, ALL_BUT_PAGES };

static int armed, nth, which, allocations;

/* Whether this allocation is to fail. */
static int fails(void)
{
    if (!armed) {
        return 0;
    }
    allocations++;
    return which == ONE ? allocations == nth : allocations >= nth;
}

/* malloc and so on are the real ones in this program: see meson.build. */
void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : calloc(n, size);
}

void *__wrap_realloc(void *at, size_t size)
{
    return fails() ? NULL : realloc(at, size);
}

int __wrap_posix_memalign(void **at, size_t alignment, size_t size)
{
    return fails() ? ENOMEM : __real_posix_memalign(at, alignment, size);
}

void *__wrap_mmap(void *at, size_t size, int access, int kind, int fd, off_t offset)
{
    return which != ALL_BUT_PAGES && fails() ? MAP_FAILED : __real_mmap(at, size, access, kind, fd, offset);
}

/* ---- what is tried ---- */

static void arm(void)
{
    armed = 1;
    allocations = 0;
}

static void must_be_over(void)
{
    BlkMigStats s = { .struct_size = sizeof(s) };

    armed = 0;
    same(host.in_flight, 0);
    ok(blk_mig_active());
    ok(blk_mig_get_stats(&s));
    same(s.buffers_in_use, 0);
    for (const BlockDriverState *bs = host.disks; bs; bs = bs->next) {
        ok(bs->refs || bs->tracking);
    }
}

static void finish(QEMUFile *f)
{
    host_release(f, 0);
    host_file_free(f);
}

/* The guest writes now and then, so that there is something to search for. */
static int migrate(QEMUFile *f)
{
    int ret = 0;

    for (int i = 0; i < 4 && ret >= 0; i++) {
        host_step(f);
        host_release(f, 0);
        host_guest_write(host.disks, i * 100, 1, i);
        ret = blk_mig_save_iterate(f, host.opaque);
    }
    if (ret >= 0) {
        host_step(f);
        ret = blk_mig_save_complete(f, host.opaque);
    }
    return ret;
}

static void must_work(void)
{
    QEMUFile *f = host_file();

    ok(blk_mig_save_setup(f, host.opaque));
    ok(blk_mig_save_complete(f, host.opaque));
    host_release(f, 0);
    must_be_over();
    ok(host_load(f));
    finish(f);
}

enum { WHOLE, AFTER_SETUP, CANCELLED, FAILING };

/* An outgoing migration; how many allocations there were. */
static int outgoing(int way)
{
    QEMUFile *f = host_file();
    int ret;

    if (way == WHOLE) {
        arm();
    }
    ret = blk_mig_save_setup(f, host.opaque);
    if (way != WHOLE) {
        ok(ret);
        arm();
    }
    if (way == FAILING) {
        host_fail(H_READ_DONE, 2, -EBADF);
    }
    if (ret == 0 && way == CANCELLED) {
        ret = blk_mig_save_iterate(f, host.opaque);
    } else if (ret == 0) {
        ret = migrate(f);
    }
    blk_mig_save_cleanup(host.opaque);
    host_release(f, 0);
    must_be_over();
    if (ret < 0) {
        check(ret == -ENOMEM || (way == FAILING && ret == -EBADF));
        same(f->error, ret);
    } else {
        check(way != FAILING);
        check(way == CANCELLED || host_delivered(f));
    }
    host_fail(H_READ_DONE, 1, 0);
    finish(f);
    must_work();
    return allocations;
}

/* A load of what all disks hold, into others. */
static int incoming(QEMUFile *f)
{
    uint8_t *want[64];
    int ret, n = 0;

    for (BlockDriverState *bs = host.disks; bs; bs = bs->next) {
        want[n++] = host_take(bs);
    }
    f->error = 0;
    arm();
    ret = host_load(f);
    must_be_over();
    check(ret == 0 || ret == -ENOMEM);
    n = 0;
    for (BlockDriverState *bs = host.disks; bs; bs = bs->next, n++) {
        if (ret < 0 || bs->read_only) {
            memcpy(bs->data, want[n], (size_t)(bs->sectors * SECTOR));
        } else {
            ok(memcmp(bs->data, want[n], (size_t)(bs->sectors * SECTOR)));
        }
        free(want[n]);
    }
    must_work();
    return allocations;
}

/* Every number, until there are no more allocations that could fail. */
static void try_all(void)
{
    QEMUFile *f = host_file();

    for (int way = WHOLE; way <= FAILING; way++) {
        for (nth = 1; outgoing(way) >= nth; nth++) {
        }
        check(nth > 2);
    }
    nth = 0;
    check(host_migrate(f, 100, NULL));
    host_release(f, 0);
    for (nth = 1; incoming(f) >= nth; nth++) {
    }
    check(nth > 2);
    finish(f);
}

/* Many devices, and many reads in flight. */
static int outgoing_many(void)
{
    QEMUFile *f = host_file();
    int ret;

    f->rate = 0;
    f->discard = 1;
    arm();
    ret = blk_mig_save_setup(f, host.opaque);
    if (ret == 0) {
        ret = migrate(f);
    }
    blk_mig_save_cleanup(host.opaque);
    must_be_over();
    finish(f);
    return ret;
}

static int incoming_many(void)
{
    QEMUFile *f = host_file();
    int ret;

    for (const BlockDriverState *bs = host.disks; bs; bs = bs->next) {
        if (!bs->read_only) {
            host_put_zero(f, bs->name, 0);
        }
    }
    host_put_record(f, 100, 0x04);
    host_put_end(f);
    arm();
    ret = host_load(f);
    must_be_over();
    finish(f);
    return ret;
}

static void try_many(int (*way)(void))
{
    int ret;

    nth = 0;
    do {
        nth += 1 + nth / 16;
        ret = way();
        check(ret == 0 || ret == -ENOMEM);
    } while (allocations >= nth);
    ok(ret);
}

int main(void)
{
    static const BlkMigOptions settings[] = {
        { .struct_size = sizeof(BlkMigOptions) },
        { .struct_size = sizeof(BlkMigOptions), .zero_blocks = 1, .max_buffers = 3, .max_reads = 2, .max_writes = 2 },
        { .struct_size = sizeof(BlkMigOptions), .max_buffers = 1200, .max_reads = 1200 },
    };
    char name[256], names[80][8];

    host_disk("vda", CHUNK_SECTORS + 1);
    memset(name, '\n', sizeof(name) - 1);
    name[sizeof(name) - 1] = 0;
    host_disk(name, 1);
    memset(host_disk("zero", CHUNK_SECTORS)->data, 0, CHUNK);
    host_disk("ro0", 1)->read_only = 1;
    for (host.async_writes = 0; host.async_writes < 2; host.async_writes++) {
        host.nocopy = host.zeroes = host.async_writes;
        host_start();
        ok(blk_mig_set_options(&settings[host.async_writes]));
        for (which = ONE; which <= ALL; which++) {
            try_all();
        }
    }
    host.nocopy = 0;
    host_start();
    ok(blk_mig_set_options(&settings[2]));
    for (int i = 0; i < 80; i++) {
        snprintf(names[i], sizeof(names[i]), "thin%d", i);
        host_thin_disk(names[i], (i ? 1 : 1200) * CHUNK_SECTORS);
    }
    for (which = ONE; which <= ALL_BUT_PAGES; which++) {
        try_many(outgoing_many);
        try_many(incoming_many);
    }
    host_end();
    return 0;
}
