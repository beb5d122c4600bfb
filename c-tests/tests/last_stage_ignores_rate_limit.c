/* SPDX-License-Identifier: GPL-2.0-only */
/* B-01: The original's last stage stopped at the rate limit and threw away what it had read and not sent. It must
 * send all there is, whatever the limit. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file();

    host_disk("vda", 8 * CHUNK_SECTORS);
    host_start();
    f->rate = 10240 * MIB;
    f->limit = 2 * MIB;
    check(host_migrate(f, 1000, NULL));
    check(host_delivered(f));
    host_file_free(f);
    host_end();
    return 0;
}
