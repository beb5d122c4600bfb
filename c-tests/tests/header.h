/* SPDX-License-Identifier: GPL-2.0-only */
/* The header compiles in each dialect of C and C++, when it is included alone and before anything else. */
#include <blkmig.h>

static int use_header(void)
{
    BlkMigOptions options;
    BlkMigCompletion *completion = 0;
    BlkMigDeviceVisitor *visitor = 0;
    BlkMigSetParams *set_params = blk_mig_set_params;
    BlkMigSaveLive *save_live = blk_mig_save_live;
    BlkMigLoad *load = blk_mig_load;

    options.struct_size = sizeof(BlkMigOptions);
    options.max_buffers = options.max_reads = options.max_writes = 0;
    options.zero_blocks = options.accept_tail_garbage = options.stream = 0;
    options.compression = 0;
    return blk_mig_set_options(&options) == 0 && !completion && !visitor && set_params && save_live && load
        && blk_mig_version() >> 16 >= 1 && BLK_MIG_ABI_VERSION == 1 && BLK_MIG_HOST_THREADED == 1u;
}
