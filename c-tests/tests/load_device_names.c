/* SPDX-License-Identifier: GPL-2.0-only */
/* Names of 0 and 255 bytes, with a NUL, and of devices that are not there. */
#include "host.h"
#include "test.h"

static int load(const char *name, int length)
{
    QEMUFile *f = host_file();
    BlkMigFileOps file = *host_tables()->file;
    int ret;

    host_put_record(f, 0, 0x09);
    file.put_byte(f, length);
    file.put_buffer(f, (const uint8_t *)name, length);
    host_put_end(f);
    ret = host_load(f);
    host_file_free(f);
    return ret;
}

int main(void)
{
    char longest[256] = "";

    memset(longest, 'a', 255);
    host_disk(longest, CHUNK_SECTORS);
    host_disk("vda", CHUNK_SECTORS);
    host_start();
    ok(load(longest, 255));
    ok(load("vda", 3));
    err(load(longest, 254), EINVAL);
    err(load("", 0), EINVAL);
    err(load("vda\0", 4), EINVAL);
    err(load("vda\0x", 5), EINVAL);
    err(load("\0vda", 4), EINVAL);
    err(load("unknown-disk", 12), EINVAL);
    check(host_said("unknown-disk"));
    err(load("\xff\xfe%s%n\n", 7), EINVAL);
    host_end();
    return 0;
}
