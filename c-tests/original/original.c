/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The original with the interface of blkmig.h: the tables go to the classic hypervisor, the original has five of the
 * functions, and all others return -ENOSYS. So a program that drives the module by stages can be linked with the
 * library or with this.
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
    return -ENOSYS;
}

int blk_mig_get_stats(BlkMigStats *stats)
{
    (void)stats;
    return -ENOSYS;
}

size_t blk_mig_last_error(char *buf, size_t size)
{
    if (size) {
        *buf = 0;
    }
    return 0;
}

int blk_mig_save_setup(QEMUFile *f, void *opaque)
{
    (void)f;
    (void)opaque;
    return -ENOSYS;
}

int blk_mig_save_iterate(QEMUFile *f, void *opaque)
{
    return blk_mig_save_setup(f, opaque);
}

int blk_mig_save_complete(QEMUFile *f, void *opaque)
{
    return blk_mig_save_setup(f, opaque);
}

uint64_t blk_mig_save_pending(void *opaque)
{
    (void)opaque;
    return 0;
}

uint64_t blk_mig_save_pending_switchover(void *opaque, uint64_t threshold)
{
    (void)opaque;
    (void)threshold;
    return 0;
}

int blk_mig_set_devices(const char *const *names, size_t count)
{
    (void)names;
    (void)count;
    return -ENOSYS;
}

void blk_mig_save_cleanup(void *opaque)
{
    (void)opaque;
}
