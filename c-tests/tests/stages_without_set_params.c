/* SPDX-License-Identifier: GPL-2.0-only */
/* On a host that never called set_params, each stage writes an empty section and returns 1. A stage that does not
 * exist returns 0, and the error is -EINVAL. */
#include "host.h"
#include "test.h"

int main(void)
{
    static const int wrong[] = { 0, 4, 2, 3 };
    QEMUFile *f = host_file();

    host_disk("vda", CHUNK_SECTORS);
    ok(blk_mig_set_host(host_tables()));
    blk_mig_init();
    for (int stage = 1; stage <= 3; stage++) {
        size_t before = f->size;

        same(host.save_live(NULL, f, stage, host.opaque), 1);
        same(f->size - before, 8);
        ok(f->error);
    }
    host_file_free(f);

    host.set_params(1, 0, host.opaque);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        f = host_file();
        ok(host.save_live(NULL, f, wrong[i], host.opaque));
        err(f->error, EINVAL);
        host_file_free(f);
    }
    host_end();
    return 0;
}
