/* SPDX-License-Identifier: GPL-2.0-only */
/* The extended stream with any single bit flipped is refused, with a text, and nothing of that record is written. */
#include "host.h"
#include "test.h"

enum { HEADER = 48 };

static BlockDriverState *bs;

/* Flips a bit, loads, and flips it back. Returns what load said. */
static int load_flipped(QEMUFile *f, size_t at, int bit)
{
    char text[256];
    int ret;

    f->buf[at] ^= (uint8_t)(1 << bit);
    f->error = 0;
    bs->writes = 0;
    ret = host_load(f);
    f->buf[at] ^= (uint8_t)(1 << bit);
    blk_mig_last_error(text, sizeof(text));
    if (ret >= 0 || !text[0]) {
        fail("bit %d of byte %zu: load says %d, \"%s\"", bit, at, ret, text);
    }
    return ret;
}

/* Of a record with data: its payload, and all of its header but the word, which is refused as it is, and the length,
 * which may be too long. */
static void checksum_is_wrong(QEMUFile *f, size_t at, int bit)
{
    char text[256];

    err(load_flipped(f, at, bit), EIO);
    blk_mig_last_error(text, sizeof(text));
    check(strstr(text, "checksum"));
    same(bs->writes, 0);
}

int main(void)
{
    BlkMigOptions o = { .struct_size = sizeof(o), .stream = 2 };
    QEMUFile *f = host_file();
    size_t data = 0;

    bs = host_disk("vda", 3);
    host_start();
    ok(blk_mig_set_options(&o));
    check(host_migrate(f, 100, NULL));
    for (size_t at = 0; !data; at++) {
        check(at + 3 * SECTOR <= f->size);
        data = memcmp(f->buf + at, bs->data, 3 * SECTOR) ? 0 : at;
    }
    for (size_t at = 0; at < f->size; at++) {
        for (int bit = 0; bit < 8; bit++) {
            load_flipped(f, at, bit);
        }
    }
    for (size_t at = data - HEADER + 8; at < data + 3 * SECTOR; at++) {
        if (at < data - HEADER + 20 || at >= data - HEADER + 24) {
            checksum_is_wrong(f, at, (int)at % 8);
        }
    }
    f->error = 0;
    ok(host_load(f));
    host_file_free(f);
    host_end();
    return 0;
}
