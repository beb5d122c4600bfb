/* SPDX-License-Identifier: GPL-2.0-only */
/* A stream of random bytes, or a valid one with one byte changed, is either refused or loaded: it does no harm. */
#include "host.h"
#include "test.h"

static uint64_t x = 88172645463325252u;

static uint8_t any(void)
{
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return (uint8_t)(x >> 32);
}

int main(void)
{
    QEMUFile *f = host_file();
    BlockDriverState *bs = host_disk("vda", CHUNK_SECTORS + 9);

    host.zeroes = 1;
    bs->cluster = 4096;
    host_start();
    f->buf = malloc(f->room = 4096);
    for (int i = 0; i < 3000; i++) {
        f->size = 1 + any() * 4u;
        for (size_t n = 0; n < f->size; n++) {
            f->buf[n] = any();
        }
        f->error = 0;
        check(host_load(f) < 0);
    }
    same(bs->writes, 0);

    f->size = 0;
    f->error = 0;
    host_put_record(f, 0, 0x04);
    host_put_zero(f, "vda", 0);
    host_put_zero(f, "vda", CHUNK_SECTORS);
    host_put_end(f);
    for (size_t n = 0; n < f->size; n++) {
        for (int bit = 0; bit < 8; bit++) {
            f->buf[n] ^= 1 << bit;
            f->error = 0;
            host_load(f);
            same(host.bad_requests, 0);
            f->buf[n] ^= 1 << bit;
        }
    }
    f->error = 0;
    ok(host_load(f));
    host_file_free(f);
    host_end();
    return 0;
}
