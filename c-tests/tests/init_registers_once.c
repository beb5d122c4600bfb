/* SPDX-License-Identifier: GPL-2.0-only */
/* blk_mig_init registers once, with the host that there is; without one it leaves an error. */
#include "host.h"
#include "test.h"

int main(void)
{
    char text[256];

    blk_mig_init();
    check(blk_mig_last_error(text, sizeof(text)) > 0);
    check(strstr(text, "blk_mig_set_host"));
    same(host.registered, 0);

    host_start();
    same(host.registered, 1);
    check(host.opaque != NULL);
    blk_mig_init();
    blk_mig_init();
    same(host.registered, 1);
    host_end();
    return 0;
}
