/* SPDX-License-Identifier: GPL-2.0-only */
/* A device whose length fails, is odd, or that cannot be held, fails the start, which names it and leaves nothing
 * behind. */
#include "host.h"
#include "test.h"

static void refused(int code)
{
    QEMUFile *f = host_file();
    char text[256];

    err(blk_mig_save_setup(f, host.opaque), code);
    same(f->error, -code);
    blk_mig_last_error(text, sizeof(text));
    if (!strstr(text, "bad-disk")) {
        fail("\"%s\" does not name the device", text);
    }
    ok(blk_mig_active());
    host_file_free(f);
}

int main(void)
{
    BlockDriverState *bs;
    QEMUFile *f = host_file();

    host_disk("vda", CHUNK_SECTORS);
    bs = host_disk("bad-disk", CHUNK_SECTORS);
    host_start();
    bs->length = -EPERM;
    refused(EPERM);
    bs->length = CHUNK - 1;
    refused(EINVAL);
    bs->length = CHUNK;
    bs->ref_result = -EBUSY;
    refused(EBUSY);
    bs->ref_result = 0;
    bs->name = "";
    err(blk_mig_save_setup(f, host.opaque), EINVAL);
    f->error = 0;
    bs->name = "fine";
    check(host_migrate(f, 100, NULL));
    check(host_delivered(f));
    host_file_free(f);
    host_end();
    return 0;
}
