/* SPDX-License-Identifier: GPL-2.0-only */
/* The program: opens what the command line names, runs one side of a migration, and closes it again. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "app.h"
#include "dump.h"
#include "migration.h"

/* The destination creates what it does not have. */
static int open_disk(const HvOptions *options, const HvDiskSpec *spec)
{
    bool create = options->listen && !spec->read_only && access(spec->path, F_OK) < 0 && errno == ENOENT;
    if (create && options->raw) {
        return hv_fail(-ENOENT, "%s does not exist; with --raw nobody says how long it must be, so create it beforehand",
                       spec->path);
    }
    int ret = create ? hv_disk_create(spec) : hv_disk_open(spec);
    return ret < 0 ? hv_fail(ret, "disk %s: %s", spec->name, strerror(-ret)) : 0;
}

static int open_disks(const HvOptions *options)
{
    int ret = 0;
    for (int i = 0; i < options->disk_count && ret == 0; i++) {
        ret = open_disk(options, &options->disks[i]);
    }
    return ret;
}

static int fail(const HvOptions *options, const char *text)
{
    hv_fail(-EIO, "%s", text);             /* unless more is known */
    hv_report_failed(options);
    return 1;
}

static int migrate(HvMigration *m)
{
    const HvOptions *options = m->options;
    if (!m->module->setup && !options->stages) {
        return fail(options, "this module knows --style stages alone");
    }
    if (hv_aio_start(!options->stages) < 0
        || m->module->init(options) < 0
        || open_disks(options) < 0) {
        return fail(options, "cannot start");
    }
    int ret = options->connect ? hv_source(m) : hv_destination(m);
    return ret == 0 ? 0 : hv_exit_status();
}

int hv_main(int argc, char **argv, const HvModule *module)
{
    HvOptions options;
    int ret = hv_parse_options(argc, argv, &options);
    if (ret <= 0) {
        int status = ret == 0 ? 0 : fail(&options, "");
        hv_free_options(&options);
        return status;
    }
    if (options.dump_stream) {
        return hv_dump_stream(options.dump_stream, options.json);
    }
    hv_catch_signals();
    hv_set_log_level(options.verbose ? 5 : 0);
    hv_set_max_downtime_ns((uint64_t)options.max_downtime_ms * 1000000);
    HvMigration m = { .options = &options, .module = module,
                      .socket = { .fd = -1, .timeout_ms = options.timeout_ms },
                      .monitor = hv_monitor_open(options.json || options.quiet ? NULL : stdout, true) };
    int status = m.monitor ? migrate(&m) : fail(&options, "out of memory");
    hv_aio_stop();
    hv_file_close(m.in);
    hv_file_close(m.out);
    if (m.socket.fd >= 0) {
        close(m.socket.fd);
    }
    hv_monitor_close(m.monitor);
    hv_disk_close_all();
    hv_free_options(&options);
    return status;
}
