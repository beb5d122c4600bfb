/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef BLOCKDEV_H
#define BLOCKDEV_H

#include "block_int.h"

/* NULL: the device has no drive, as one that was made by hand. */
DriveInfo *drive_get_by_blockdev(BlockDriverState *bs);
void drive_get_ref(DriveInfo *dinfo);
void drive_put_ref(DriveInfo *dinfo);

#endif
