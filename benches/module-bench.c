/* SPDX-License-Identifier: GPL-2.0-only */
/* module-bench MODULE WORKLOAD [NAME=VALUE...]: runs one workload and prints its figures as one line of JSON. */
#include "bench.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Module module;
static char **params;
static const char *separator = "{";

int64_t param(const char *name, int64_t otherwise)
{
    size_t length = strlen(name);

    for (char **at = params; *at; at++) {
        if (strncmp(*at, name, length) == 0 && (*at)[length] == '=') {
            return strtoll(*at + length + 1, NULL, 0);
        }
    }
    return otherwise;
}

void figure(const char *name, double value)
{
    printf("%s\"%s\": %.6g", separator, name, value);
    separator = ", ";
    fflush(stdout);
}

void fail(const char *what)
{
    fprintf(stderr, "module-bench: %s\n", what);
    exit(1);
}

static int register_section(void *dev, const char *idstr, int instance_id, int version_id, BlkMigSetParams *set_params,
                            BlkMigSaveLive *save_live, void *save_state, BlkMigLoad *load, void *opaque)
{
    (void)dev, (void)idstr, (void)instance_id, (void)version_id, (void)save_state;
    module.set_params = set_params;
    module.save_live = save_live;
    module.load = load;
    module.opaque = opaque;
    return 0;
}

static uint64_t max_downtime_ns(void)
{
    return max_downtime;
}

static void error_report(const char *fmt, ...)
{
    fprintf(stderr, "module-bench: the module reports: %s\n", fmt);
}

static const BlkMigSystemOps system_ops = {
    .struct_size = sizeof(system_ops),
    .register_savevm_live = register_section,
    .clock_ns = clock_ns,
    .max_downtime_ns = max_downtime_ns,
    .error_report = error_report,
};

static void *symbol(void *library, const char *name)
{
    void *found = dlsym(library, name);

    if (!found) {
        fail(dlerror());
    }
    return found;
}

/* The optional functions that the original never calls can be left out, to see what each is worth. */
static void open_module(const char *path)
{
    static BlkMigBdrvOps bdrv;
    static BlkMigFileOps file;
    static BlkMigDirtyOps dirty;
    static const BlkMigHost host = {
        .struct_size = sizeof(host), .abi_version = BLK_MIG_ABI_VERSION,
        .bdrv = &bdrv, .dirty = &dirty, .file = &file, .system = &system_ops,
    };
    void *library = dlopen(path, RTLD_NOW);
    int (*set_host)(const BlkMigHost *);
    void (*init)(void);

    if (!library) {
        fail(dlerror());
    }
    bdrv = bdrv_ops;
    file = file_ops;
    dirty = dirty_ops;
    if (!param("nocopy", 1)) {
        file.put_buffer_nocopy = NULL;
    }
    if (!param("holes", 0)) {
        bdrv.is_zero = NULL;
    }
    if (!param("write_zeroes", 1)) {
        bdrv.write_zeroes = NULL;
    }
    if (!param("next", 1)) {
        dirty.next = NULL;
    }
    *(void **)&set_host = symbol(library, "blk_mig_set_host");
    *(void **)&init = symbol(library, "blk_mig_init");
    *(void **)&module.set_options = symbol(library, "blk_mig_set_options");
    *(void **)&module.get_stats = symbol(library, "blk_mig_get_stats");
    if (set_host(&host) < 0) {
        fail("the module does not take the host");
    }
    init();
    if (!module.save_live) {
        fail("the module has registered nothing");
    }
    BlkMigOptions options = {
        .struct_size = sizeof(options),
        .max_buffers = (uint32_t)param("max_buffers", 0),
        .max_reads = (uint32_t)param("max_reads", 0),
        .zero_blocks = (uint32_t)param("zero_blocks", 0),
    };
    module.set_options(&options);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } workloads[] = {
        { "source", bench_source },
        { "destination", bench_destination },
        { "scale", bench_scale },
        { "policy", bench_policy },
        { "disks", bench_disks },
    };

    if (argc < 3) {
        fprintf(stderr, "usage: module-bench MODULE source|destination|scale|policy|disks [NAME=VALUE...]\n");
        return 2;
    }
    params = argv + 3;
    open_module(argv[1]);
    for (size_t i = 0; i < sizeof(workloads) / sizeof(workloads[0]); i++) {
        if (strcmp(argv[2], workloads[i].name) == 0) {
            workloads[i].run();
            puts("}");
            return 0;
        }
    }
    fail("no such workload");
}
