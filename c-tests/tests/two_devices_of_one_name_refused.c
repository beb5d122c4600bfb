/* SPDX-License-Identifier: GPL-2.0-only */
/* Two devices of one name could not be told apart by the destination: the start fails and names them. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file();
    char text[256];

    host_disk("vda", CHUNK_SECTORS);
    host_disk("twin", CHUNK_SECTORS);
    host_disk("twin", CHUNK_SECTORS);
    host_start();
    check(blk_mig_save_setup(f, host.opaque) < 0);
    blk_mig_last_error(text, sizeof(text));
    check(strstr(text, "twin"));
    ok(blk_mig_active());
    host_file_free(f);
    host_end();
    return 0;
}
