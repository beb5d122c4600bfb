/* SPDX-License-Identifier: GPL-2.0-only */
/* A device that goes away in the middle of a section, with requests in flight, ends the migration or the load with
 * its error, which names it. It is held until its last request has ended, and the next migration works. */
#include "host.h"
#include "test.h"

static BlockDriverState *a, *b;
static int why, requests;

/* At the third request. */
static void leave(BlockDriverState *bs, int64_t sector)
{
    (void)bs;
    (void)sector;
    if (++requests == 3) {
        a->length = why;
    }
}

/* The device is there again, and everything works. */
static void must_work(void)
{
    QEMUFile *f = host_file();
    uint8_t *first, *second;

    a->length = a->sectors * SECTOR;
    host.on_read = NULL;
    host.on_write = NULL;
    host.hold = 0;
    check(host_migrate(f, 100, NULL));
    check(host_delivered(f));
    first = host_take(a);
    second = host_take(b);
    ok(host_load(f));
    ok(memcmp(a->data, first, (size_t)(a->sectors * SECTOR)));
    ok(memcmp(b->data, second, (size_t)(b->sectors * SECTOR)));
    free(first);
    free(second);
    host_file_free(f);
}

static void must_have_failed(QEMUFile *f, int got)
{
    same(got, why);
    check(host_logged("device vda"));
    ok(host_logged("vdb"));
    same(host.in_flight, 0);
    same(host.unheld, 0);
    ok(a->refs || b->refs || a->tracking || b->tracking);
    ok(blk_mig_active());
    host_file_free(f);
    must_work();
}

static QEMUFile *begin(void)
{
    QEMUFile *f = host_file();

    host.log[0] = 0;
    requests = 0;
    return f;
}

/* Before the next section, with the last one's reads in flight. */
static void between_sections(int stage)
{
    QEMUFile *f = begin();

    ok(blk_mig_save_setup(f, host.opaque));
    host.hold = 1;
    check(blk_mig_save_iterate(f, host.opaque) >= 0);
    check(a->reading[0] && b->reading[0]);
    a->length = why;
    same(stage == 2 ? blk_mig_save_iterate(f, host.opaque) : blk_mig_save_complete(f, host.opaque), why);
    must_have_failed(f, f->error);
}

/* While a section is written. */
static void between_reads(int complete)
{
    QEMUFile *f = begin();
    int ret;

    ok(blk_mig_save_setup(f, host.opaque));
    host.on_read = leave;
    ret = complete ? blk_mig_save_complete(f, host.opaque) : blk_mig_save_iterate(f, host.opaque);
    for (int i = 0; i < 100 && ret >= 0; i++) {
        host_step(f);
        ret = blk_mig_save_iterate(f, host.opaque);
    }
    check(requests >= 3);
    same(f->error, ret);
    must_have_failed(f, ret);
}

/* While a section is read. */
static void between_writes(void)
{
    QEMUFile *f = begin();
    int ret;

    for (int i = 0; i < 4; i++) {
        host_put_block(f, "vda", i * CHUNK_SECTORS, 0x40 + i);
        host_put_block(f, "vdb", i * CHUNK_SECTORS, 0x50 + i);
    }
    host_put_end(f);
    host.on_write = leave;
    ret = host_load(f);
    check(requests >= 3);
    must_have_failed(f, ret);
}

int main(void)
{
    static const int reasons[] = { -ENODEV, -ENOMEDIUM };

    a = host_disk("vda", 6 * CHUNK_SECTORS + 3);
    b = host_disk("vdb", 6 * CHUNK_SECTORS);
    host.async_writes = 1;
    host.late_data = 1;
    host_start();
    must_work();
    for (size_t i = 0; i < sizeof(reasons) / sizeof(*reasons); i++) {
        why = reasons[i];
        between_sections(2);
        between_sections(3);
        between_reads(0);
        between_reads(1);
        between_writes();
    }
    host_end();
    return 0;
}
