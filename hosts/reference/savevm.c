/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>

#include "hv.h"

static HvSection section;

int hv_register_savevm_live(void *dev, const char *idstr, int instance_id, int version_id, HvSetParams *set_params,
                            HvSaveLive *save_live, void *save_state, HvLoad *load, void *opaque)
{
    (void)dev;
    (void)save_state;
    if (!set_params || !save_live || !load) {
        return -EINVAL;
    }
    section = (HvSection){ .idstr = idstr, .instance_id = instance_id, .version_id = version_id,
                           .set_params = set_params, .save_live = save_live, .load = load, .opaque = opaque };
    return 0;
}

const HvSection *hv_section(void)
{
    return section.save_live ? &section : NULL;
}
