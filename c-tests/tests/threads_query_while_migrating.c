/* SPDX-License-Identifier: GPL-2.0-only */
/* Queries from other threads while a threaded host migrates: their results are consistent, and the migration works. */
#include "host.h"
#include "test.h"
#include <pthread.h>
#include <stdatomic.h>

static atomic_int stop, queries;

static void *query(void *unused)
{
    uint64_t total = 13 * MIB + SECTOR;

    (void)unused;
    while (!stop) {
        BlkMigStats s = { .struct_size = sizeof(s) };
        char text[100];

        ok(blk_mig_get_stats(&s));
        same(s.bytes_transferred + s.bytes_remaining, s.bytes_total);
        check(s.bytes_total == 0 || s.bytes_total == total);
        check(s.buffers_in_use <= 64 && s.reads_in_flight <= 16);
        check(blk_mig_bytes_total() == 0 || blk_mig_bytes_total() <= total);
        blk_mig_bytes_transferred();
        blk_mig_bytes_remaining();
        blk_mig_active();
        blk_mig_bulk_active();
        check(blk_mig_last_error(text, sizeof(text)) == 0);
        queries++;
    }
    return NULL;
}

static void guest(QEMUFile *f)
{
    static unsigned n;

    if (n++ % 32 < 20) {
        host_guest_write(host.disks, n * 991 % 20000, 1, (int)f->size);
    }
}

int main(void)
{
    pthread_t threads[3];

    host_disk("vda", 13 * CHUNK_SECTORS + 1);
    host.aio = HOST_THREAD;
    host.flags = BLK_MIG_HOST_THREADED;
    host.late_data = 0;
    host_start();
    for (int i = 0; i < 3; i++) {
        ok(pthread_create(&threads[i], NULL, query, NULL));
    }
    for (int i = 0; i < 3 || queries < 300; i++) {
        QEMUFile *f = host_file();

        check(host_migrate(f, 1000, guest));
        check(host_delivered(f));
        host_file_free(f);
    }
    stop = 1;
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    host_end();
    return 0;
}
