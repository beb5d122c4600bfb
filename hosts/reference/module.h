/* SPDX-License-Identifier: GPL-2.0-only */
/* The module that migrates the disks, as the program sees it. */
#ifndef HV_MODULE_H
#define HV_MODULE_H

#include "options.h"

typedef struct HvStats {
    uint64_t total, transferred, remaining, dirty;   /* bytes */
    uint64_t resent, zeroes;                         /* chunks */
    uint64_t dirty_rate;                             /* bytes a second; 0: not known */
    uint64_t data, payload, checksummed;             /* bytes: of data, what they took in the stream, with a checksum */
} HvStats;

/* What migrates the disks. It registers its section with hv_register_savevm_live in init. */
typedef struct HvModule {
    const char *name;
    int (*init)(const HvOptions *options);                                   /* 0, or -errno with hv_fail */
    int (*setup)(QEMUFile *f, void *opaque);                                 /* NULL: it only has the stages */
    int (*iterate)(QEMUFile *f, void *opaque);
    int (*complete)(QEMUFile *f, void *opaque);
    uint64_t (*pending)(void *opaque, uint64_t threshold);                   /* above threshold: not done yet */
    void (*cleanup)(void *opaque);
    void (*get_stats)(HvStats *stats);
    size_t (*last_error)(char *buf, size_t size);                            /* may be NULL */
} HvModule;

#endif
