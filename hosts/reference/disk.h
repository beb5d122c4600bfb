/* SPDX-License-Identifier: GPL-2.0-only */
/* A disk, for disk.c and disk_io.c. */
#ifndef HV_DISK_H
#define HV_DISK_H

#include <stdatomic.h>

#include "dirty.h"
#include "image.h"
#include "new_file.h"

struct BlockDriverState {
    char *name;
    HvImage image;
    HvNewFile file;                        /* if the image was created here */
    int64_t bytes;
    bool read_only;
    bool left_out;                         /* see HvDiskSpec */
    bool has_no_length;                    /* a new file, until hv_disk_set_length */
    atomic_int refs;
    HvDirty dirty;
    BlockDriverState *next;
};

#endif
