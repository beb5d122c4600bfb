/* SPDX-License-Identifier: GPL-2.0-only */
/* A device that is left out, since there is nothing to migrate or no way to do so, is told once, with the reason. */
#include "host.h"
#include "test.h"

int main(void)
{
    static const char *const lines[] = {
        "3 device ro0 is not migrated: it is read-only\n", "3 device cd0 is not migrated: it is empty\n",
        "3 device floppy0 is not migrated: its length is 0\n", "3 device loose is not migrated: there is nothing behind it\n",
    };

    host_disk("ro0", CHUNK_SECTORS)->read_only = 1;
    host_disk("vda", CHUNK_SECTORS);
    host_disk("cd0", 0)->length = -ENOMEDIUM;
    host_disk("floppy0", 0);
    host_disk("loose", CHUNK_SECTORS)->ref_result = -ENODEV;
    host_start();
    for (int round = 1; round <= 2; round++) {
        QEMUFile *f = host_file();

        check(host_migrate(f, 100, NULL));
        check(host_delivered(f));
        for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
            same(host_logged(lines[i]), round);
        }
        same(host_logged("is not migrated"), 4 * round);
        ok(host_logged("vda"));
        host_file_free(f);
    }
    host_end();
    return 0;
}
