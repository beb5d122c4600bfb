/* SPDX-License-Identifier: GPL-2.0-only */
/* A host without a disk that can be migrated still gets a stream that says it is complete. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file();

    host_disk("cd0", 0)->length = 0;
    host_start();
    check(host_migrate(f, 5, NULL));
    check(host_replay(f).complete);
    same(host_replay(f).blocks, 0);
    ok(host_load(f));
    host_file_free(f);
    host_end();
    return 0;
}
