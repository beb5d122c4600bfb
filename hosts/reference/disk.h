/* SPDX-License-Identifier: GPL-2.0-only */
/* A disk, as disk.c and disk_io.c share it. */
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
    bool has_no_length;                    /* until hv_disk_set_length: it is a new one */
    atomic_int refs;
    HvDirty dirty;
    BlockDriverState *next;
};

#endif
