/* SPDX-License-Identifier: GPL-2.0-only */
/* The module that migrates the disks, as the program around it sees it. */
#ifndef HV_MODULE_H
#define HV_MODULE_H

#include "options.h"

typedef struct HvStats {
    uint64_t total, transferred, remaining, dirty, resent, zeroes;   /* the last two in chunks, the others in bytes */
} HvStats;

/* What migrates the disks. It registers its section with hv_register_savevm_live in init. */
typedef struct HvModule {
    const char *name;
    int (*init)(const HvOptions *options);                                   /* 0, or -errno with hv_fail */
    int (*setup)(QEMUFile *f, void *opaque);                                 /* NULL: knows the stages alone */
    int (*iterate)(QEMUFile *f, void *opaque);
    int (*complete)(QEMUFile *f, void *opaque);
    uint64_t (*pending)(void *opaque, uint64_t threshold);                   /* more than threshold: the guest runs on */
    void (*cleanup)(void *opaque);
    void (*get_stats)(HvStats *stats);
    size_t (*last_error)(char *buf, size_t size);                            /* NULL: keeps none */
} HvModule;

#endif
