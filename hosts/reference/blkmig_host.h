/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef HV_BLKMIG_HOST_H
#define HV_BLKMIG_HOST_H

#include "module.h"
#include "blkmig.h"

/* The reference hypervisor as libblkmig sees it. A test may change entries before it passes &tables.host on. */
typedef struct HvTables {
    BlkMigHost host;
    BlkMigBdrvOps bdrv;
    BlkMigDirtyOps dirty;
    BlkMigFileOps file;
    BlkMigMonitorOps monitor;
    BlkMigSystemOps system;
} HvTables;

void hv_fill_tables(HvTables *tables, bool threaded);

extern const HvModule hv_blkmig_module;

#endif
