/* SPDX-License-Identifier: GPL-2.0-only */
/* A host whose dirty bits stand for a number of bytes that can't be: setup fails and names the device. */
#include "host.h"
#include "test.h"

static int64_t answer;

static int64_t granularity(BlockDriverState *bs)
{
    same(bs->tracking, 1);
    return answer;
}

static void set_up(const BlkMigHost *tables, uint32_t stream, int64_t says, int good)
{
    BlkMigOptions o = { .struct_size = sizeof(o), .stream = stream };
    QEMUFile *f = host_file();
    char text[200];

    answer = says;
    ok(blk_mig_set_host(tables));
    ok(blk_mig_set_options(&o));
    if (good) {
        ok(blk_mig_save_setup(f, NULL));
        blk_mig_save_cleanup(NULL);
    } else {
        check(blk_mig_save_setup(f, NULL) < 0);
        blk_mig_last_error(text, sizeof(text));
        if (!strstr(text, "vda")) {
            fail("%lld: it says \"%s\"", (long long)says, text);
        }
        blk_mig_save_cleanup(NULL);
        ok(f->size);
    }
    host_file_free(f);
}

int main(void)
{
    static const int64_t strange[] = { 0, 3, 256, 513, 98304, 1 << 21, INT64_MAX, -1, -EIO, -65536, INT64_MIN };
    BlkMigHost tables;
    BlkMigDirtyOps dirty;

    host_disk("vda", 2 * CHUNK_SECTORS);
    host_start();
    tables = *host_tables();
    dirty = *tables.dirty;
    dirty.granularity = granularity;
    tables.dirty = &dirty;
    for (uint32_t stream = 1; stream <= 2; stream++) {
        for (size_t i = 0; i < sizeof(strange) / sizeof(*strange); i++) {
            set_up(&tables, stream, strange[i], 0);
        }
        for (int64_t good = SECTOR; good <= MIB; good *= 2) {
            set_up(&tables, stream, good, 1);
        }
    }
    ok(blk_mig_set_host(host_tables()));
    host_end();
    return 0;
}
