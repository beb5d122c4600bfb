/* SPDX-License-Identifier: GPL-2.0-only */
/* B-25: On an unlimited link the original's caller ran in a busy loop while all reads were in flight. On a
 * threaded host iterate must wait for a completion, for at most 100 ms. */
#include "host.h"
#include "test.h"

#include <time.h>

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

int main(void)
{
    QEMUFile *f = host_file();
    int64_t start;
    int calls = 0;

    host_disk("vda", 4 * CHUNK_SECTORS);
    host.aio = HOST_THREAD;
    host.flags = BLK_MIG_HOST_THREADED;
    host_start();
    host.hold = 1;
    host.save_live(host.mon, f, 1, host.opaque);
    host.save_live(host.mon, f, 2, host.opaque);
    check(host.in_flight > 0);

    start = now_ms();
    for (int i = 0; i < 5; i++) {
        host.save_live(host.mon, f, 2, host.opaque);
    }
    check(now_ms() - start >= 200);
    check(now_ms() - start <= 5000);

    host.hold = 0;
    while (!host_iterate(f, 1)) {
        check(calls++ < 200);
    }
    host.save_live(host.mon, f, 3, host.opaque);
    check(host_delivered(f));
    host_file_free(f);
    host_end();
    return 0;
}
