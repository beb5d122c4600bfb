/* SPDX-License-Identifier: GPL-2.0-only */
/* The extended stream: of what the guest has written to, only the units of the dirty tracking are sent, compressed or
 * not, and the statistics count that. */
#include "host.h"
#include "test.h"

#define UNIT 65536
#define UNIT_SECTORS (UNIT / SECTOR)

static BlkMigStats get(void)
{
    BlkMigStats s = { .struct_size = sizeof(s) };

    ok(blk_mig_get_stats(&s));
    return s;
}

/* Three whole units, and one that is short. */
static void guest_writes(BlockDriverState *bs, int byte)
{
    host_guest_write(bs, CHUNK_SECTORS + 5 * UNIT_SECTORS, 1, byte);
    host_guest_write(bs, 3 * CHUNK_SECTORS + 8 * UNIT_SECTORS - 1, 2, byte);
    host_guest_write(bs, bs->sectors - 1, 1, byte);
}

static void load(QEMUFile *f, BlockDriverState *bs)
{
    uint8_t *want = host_take(bs);

    ok(host_load(f));
    ok(memcmp(bs->data, want, (size_t)(bs->sectors * SECTOR)));
    free(want);
}

static void migrate(BlockDriverState *bs, int compression)
{
    const int64_t bulk = 4 * MIB + 3 * SECTOR, dirty = 3 * UNIT + 3 * SECTOR;
    BlkMigOptions o = { .struct_size = sizeof(o), .stream = 2, .compression = compression };
    QEMUFile *f = host_file();
    size_t before;
    BlkMigStats s;

    f->rate = 1 << 30;
    ok(blk_mig_set_options(&o));
    host.save_live(host.mon, f, 1, host.opaque);
    check(host_iterate(f, 100));
    before = f->size;
    guest_writes(bs, compression + 1);
    same(blk_mig_save_pending(NULL), dirty);
    host_step(f);
    host.save_live(host.mon, f, 3, host.opaque);
    ok(f->error);

    s = get();
    same(s.wire_bytes, f->size);
    same(s.checksummed_bytes, f->size);
    same(s.data_bytes, bulk + dirty);
    if (compression) {
        check(s.payload_bytes < s.data_bytes / 2);
        check(f->size < (size_t)s.data_bytes / 2);
    } else {
        same(s.payload_bytes, s.data_bytes);
        check(f->size - before >= (size_t)dirty && f->size - before < (size_t)dirty + 1024);
    }
    load(f, bs);
    host_file_free(f);
}

int main(void)
{
    host.granularity = UNIT;
    BlockDriverState *bs = host_disk("vda", 4 * CHUNK_SECTORS + 3);

    host_start();
    migrate(bs, 0);
    for (int64_t i = 0; i < bs->sectors * SECTOR; i++) {
        bs->data[i] &= 1;
    }
    migrate(bs, 1);
    migrate(bs, -7);
    host_end();
    return 0;
}
