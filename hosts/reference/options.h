/* SPDX-License-Identifier: GPL-2.0-only */
/* The command line (options.c, disk_option.c). */
#ifndef HV_OPTIONS_H
#define HV_OPTIONS_H

#include "hv.h"

#define HV_MAX_DISKS 64

typedef struct HvOptions {
    const char *connect, *listen;
    const char *dump_stream;               /* not NULL: nothing else is done */
    HvDiskSpec disks[HV_MAX_DISKS];
    int disk_count;
    const char *devices;                   /* the names of those that migrate; NULL: all */
    const char *source_only;               /* the last option that only a source takes; NULL: there is none */
    int64_t bandwidth;                     /* bytes a second; 0: no limit */
    int64_t max_downtime_ms, timeout_ms, wait_ms;
    double guest_mb;
    uint32_t max_buffers;                  /* 0: the module's default */
    bool extended;                         /* the extended stream, else the classic one */
    int compression;                       /* a level of the extended stream; 0: none */
    bool zero_blocks, zero_blocks_given, accept_tail_garbage, shared_base, stages, raw, json, quiet, verbose;
} HvOptions;

/* 1: go on; 0: help or version was printed; -EINVAL with hv_fail. */
int hv_parse_options(int argc, char **argv, HvOptions *options);
void hv_free_options(HvOptions *options);
int hv_parse_disk(const char *text, HvDiskSpec *disk);
void hv_free_disk(HvDiskSpec *disk);
int hv_choose_disks(HvOptions *options);   /* as `devices` says */

#endif
