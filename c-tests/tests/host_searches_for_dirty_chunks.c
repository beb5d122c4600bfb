/* SPDX-License-Identifier: GPL-2.0-only */
/* A host that can search for dirty chunks; and one whose answers make no sense, which fails the migration. */
#include "host.h"
#include "test.h"

static int64_t lie;

static int64_t next_dirty(BlockDriverState *bs, int64_t sector)
{
    for (int64_t c = sector / CHUNK_SECTORS; c * CHUNK_SECTORS < bs->sectors; c++) {
        if (bs->dirty[c]) {
            int64_t found = c * CHUNK_SECTORS;

            return lie ? lie : found < sector ? sector : found;
        }
    }
    return -1;
}

static void guest(QEMUFile *f)
{
    static int n;

    if (f->size < 30 * MIB) {
        n++;
        host_guest_write(host.disks, n * 1777 % 18000, 1, n);
    }
}

int main(void)
{
    BlkMigDirtyOps dirty;
    BlkMigHost tables = *host_tables();
    QEMUFile *f = host_file();
    const int64_t lies[] = { 1LL << 40, 9 * CHUNK_SECTORS, INT64_MIN / 2, -5 };

    host_disk("vda", 9 * CHUNK_SECTORS);
    host_start();
    dirty = *tables.dirty;
    dirty.next = next_dirty;
    tables.dirty = &dirty;
    ok(blk_mig_set_host(&tables));
    check(host_migrate(f, 300, guest));
    check(host_delivered(f));
    for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        QEMUFile *g = host_file();

        lie = lies[i];
        check(!host_migrate(g, 20, guest) || host_delivered(g));
        host.save_live(host.mon, g, -1, host.opaque);
        host_file_free(g);
    }
    host_file_free(f);
    host_end();
    return 0;
}
