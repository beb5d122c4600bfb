/* SPDX-License-Identifier: GPL-2.0-only */
/* B-18: The original accepted records that mix flags, have unknown ones, or report a progress over 100. Each of
 * them must be refused. */
#include "host.h"
#include "test.h"

static void refuse(int64_t value, int flags)
{
    QEMUFile *f = host_file();
    int ret;

    host_put_record(f, value, flags);
    host_put_end(f);
    ret = host_load(f);
    /* An extended record has 48 bytes at least, of which most are not there. */
    if (ret != (flags == 0x10 ? -EIO : -EINVAL)) {
        fail("flags 0x%x with value %lld: load says %d", flags, (long long)value, ret);
    }
    host_file_free(f);
}

int main(void)
{
    BlockDriverState *bs = host_disk("vda", CHUNK_SECTORS);

    host_start();
    for (int flags = 0; flags < 512; flags++) {
        /* 0x10 begins an extended stream, which has tests of its own. */
        if (flags != 0x01 && flags != 0x02 && flags != 0x04 && flags != 0x09 && flags != 0x10) {
            refuse(0, flags);
        }
    }
    refuse(101, 0x04);
    refuse(1LL << 40, 0x04);
    same(bs->writes, 0);
    host_end();
    return 0;
}
