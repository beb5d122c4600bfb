/* SPDX-License-Identifier: GPL-2.0-only */
/* The reference hypervisor, with the original in the library's place. */
#include "app.h"
#include "blkmig_host.h"
#include <time.h>

static HvTables tables;
static HvSection original;

/*
 * What the original counted on and its host did for it: before the last stage nothing is in flight. And a kindness,
 * without which it would lose what it has read: the link is idle then, and at the start of a step.
 */
static int save_live(Monitor *mon, QEMUFile *f, int stage, void *opaque)
{
    if (stage == 3) {
        hv_aio_flush();
        hv_file_drain(f);
        nanosleep(&(struct timespec){ .tv_nsec = hv_file_step_left_ns(f) }, NULL);
    }
    return original.save_live(mon, f, stage, opaque);
}

static int register_savevm_live(void *dev, const char *idstr, int instance_id, int version_id, HvSetParams *set_params,
                                HvSaveLive *save, void *save_state, HvLoad *load, void *opaque)
{
    original.save_live = save;
    return hv_register_savevm_live(dev, idstr, instance_id, version_id, set_params, save_live, save_state, load, opaque);
}

static int init(const HvOptions *options)
{
    hv_fill_tables(&tables, !options->stages);
    tables.system.register_savevm_live = register_savevm_live;
    blk_mig_set_host(&tables.host);
    blk_mig_init();
    return 0;
}

static void get_stats(HvStats *out)
{
    *out = (HvStats){ .total = blk_mig_bytes_total(), .transferred = blk_mig_bytes_transferred(),
                      .remaining = blk_mig_bytes_remaining() };
}

static const HvModule original_module = { .name = "the original", .init = init, .get_stats = get_stats };

int main(int argc, char **argv)
{
    return hv_main(argc, argv, &original_module);
}
