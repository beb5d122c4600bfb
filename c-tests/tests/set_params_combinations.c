/* SPDX-License-Identifier: GPL-2.0-only */
/* The three ways to set_params: no disks, whole disks, disks on a shared base (which implies disks). */
#include "host.h"
#include "test.h"

int main(void)
{
    static const struct { int enable, shared, blocks; } cases[] = { { 0, 0, 0 }, { 1, 0, 3 }, { 0, 1, 3 }, { 1, 1, 3 } };

    host_disk("vda", 2 * CHUNK_SECTORS + 1);
    host_start();
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        QEMUFile *f = host_file();

        host.set_params(cases[i].enable, cases[i].shared, host.opaque);
        host_migrate(f, 100, NULL);
        ok(f->error);
        same(host_replay(f).blocks, cases[i].blocks);
        host_file_free(f);
    }
    host_end();
    return 0;
}
