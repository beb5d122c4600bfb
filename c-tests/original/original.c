/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The original behind the face of blkmig.h: the tables go to the classic hypervisor underneath it, its five functions are
 * its own, and what it never had says so. A program that drives the module by stages can be linked with either.
 */
#include "classic.h"
#include <blkmig.h>
#include <errno.h>

int blk_mig_set_host(const BlkMigHost *host)
{
    return classic_set_host(host);
}

int blk_mig_set_options(const BlkMigOptions *options)
{
    (void)options;
    return 0;
}

int blk_mig_get_stats(BlkMigStats *stats)
{
    (void)stats;
    return -ENOSYS;
}

size_t blk_mig_last_error(char *buf, size_t size)
{
    if (buf && size) {
        *buf = 0;
    }
    return 0;
}
