/*
 * Block migration by the blkmig library: its part of query-migrate
 *
 * SPDX-License-Identifier: GPL-2.0-only
 *
 * Up to 9.0 QEMU does this itself, so this file is built from 9.1 on only, and
 * not into the loadable object, which can't add a member to what QMP answers.
 */

#include "qemu/osdep.h"
#include "monitor/monitor.h"
#include "block-migration-host.h"
#include "block-migration-query.h"

void blkmig_fill_disk_info(MigrationInfo *info)
{
    if (!blk_mig_active()) {
        return;
    }
    info->disk = g_new0(MigrationStats, 1);
    info->disk->transferred = blk_mig_bytes_transferred();
    info->disk->remaining = blk_mig_bytes_remaining();
    info->disk->total = blk_mig_bytes_total();
}

void blkmig_print_disk_info(Monitor *mon, const MigrationInfo *info)
{
    const MigrationStats *disk = info->disk;

    if (disk) {
        monitor_printf(mon, "transferred disk: %" PRId64 " kbytes\n"
                       "remaining disk: %" PRId64 " kbytes\n"
                       "total disk: %" PRId64 " kbytes\n",
                       disk->transferred / KiB, disk->remaining / KiB,
                       disk->total / KiB);
    }
}
