/* SPDX-License-Identifier: GPL-2.0-only */
/* The user reads on the monitor what the original wrote there. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file(), *based = host_file();

    host_disk("vda", 2 * CHUNK_SECTORS);
    host_start();
    check(host_migrate(f, 100, NULL));
    check(strstr(host.monitor.text, "Start full migration for vda\n"));
    check(strstr(host.monitor.text, "Completed 0 %\r"));
    check(strstr(host.monitor.text, "Block migration completed\n"));
    check(!strstr(host.monitor.text, "shared base"));

    host.set_params(0, 1, host.opaque);
    check(host_migrate(based, 100, NULL));
    check(strstr(host.monitor.text, "Start migration for vda with shared base image\n"));
    host_file_free(f);
    host_file_free(based);
    host_end();
    return 0;
}
