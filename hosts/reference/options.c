/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"

static const char help[] =
    "blkmig-hv: a small hypervisor that does nothing but migrate the disks of its guest\n"
    "\n"
    "  blkmig-hv --listen ADDRESS --disk NAME=FILE ...      the destination: start this one first\n"
    "  blkmig-hv --connect ADDRESS --disk NAME=FILE ...     the source\n"
    "\n"
    "ADDRESS is HOST:PORT or unix:PATH. FILE is a raw image. The names are the same on both sides. A FILE that the\n"
    "destination does not have is created; one that it has must be as long as the source's.\n"
    "\n"
    "  -l, --listen ADDRESS      wait here for a source (port 0: any free one)\n"
    "  -c, --connect ADDRESS     send the disks there\n"
    "  -d, --disk NAME=FILE[,base=FILE][,format=raw][,readonly]\n"
    "                            a disk, perhaps on top of a base image; format=raw: the file's bytes are the disk, also if\n"
    "                            it looks like a qcow2 or another image; a read-only disk is not migrated; a comma in the\n"
    "                            name of a file is written twice\n"
    "  -b, --bandwidth SIZE      bytes a second at most, such as 100M (default 0: no limit)\n"
    "  -t, --max-downtime MS     the time that the guest may stand still (default 300); a guest that writes faster\n"
    "                            than the link needs more, or the migration never ends\n"
    "  -g, --guest-writes MB     the source's guest writes so many MB a second (default 0)\n"
    "  -z, --zero-blocks         send empty chunks as a few bytes (the default, but not with --raw)\n"
    "  -Z, --no-zero-blocks      send them like any others\n"
    "  -a, --accept-tail-garbage drop what a chunk holds past the end of a shorter disk, as sources of 2011 to 9.0 leave it\n"
    "  -s, --shared-base         both sides have the base images: send only what lies on top\n"
    "  -y, --style STYLE         threaded: a thread for the migration (default); stages: one thread for everything\n"
    "  -m, --max-buffers N       chunks of 1 MiB held in memory at most (default: the module's)\n"
    "  -w, --wait SECONDS        how long --listen waits for a source (default 600)\n"
    "  -i, --timeout SECONDS     how long either side waits for the other to get on (default 30)\n"
    "  -r, --raw                 nothing but the module's sections on the wire: no greeting, no confirmation\n"
    "  -j, --json                say everything as JSON, an object a line\n"
    "  -q, --quiet               say nothing but errors (with --json: no progress)\n"
    "  -v, --verbose             show the module's log on stderr\n"
    "  -D, --dump-stream FILE    show what a recorded stream holds, record by record, with --json as JSON; - is standard\n"
    "                            input; may be of blkmig-hv, of QEMU, or sections alone; needs no other option\n"
    "  -h, --help                this text\n"
    "  -V, --version             the version\n"
    "\n"
    "Exit status: 0 when the destination has everything on stable storage; 1 on an error, which is one line on stderr;\n"
    "128 plus the signal's number after Ctrl-C and other signals. After anything but 0 the source's guest goes on.\n"
    "More stands in the manual page, blkmig-hv(1).\n";

static const struct option long_options[] = {
    { "listen", required_argument, NULL, 'l' },
    { "connect", required_argument, NULL, 'c' },
    { "disk", required_argument, NULL, 'd' },
    { "bandwidth", required_argument, NULL, 'b' },
    { "max-downtime", required_argument, NULL, 't' },
    { "guest-writes", required_argument, NULL, 'g' },
    { "zero-blocks", no_argument, NULL, 'z' },
    { "no-zero-blocks", no_argument, NULL, 'Z' },
    { "accept-tail-garbage", no_argument, NULL, 'a' },
    { "shared-base", no_argument, NULL, 's' },
    { "style", required_argument, NULL, 'y' },
    { "max-buffers", required_argument, NULL, 'm' },
    { "wait", required_argument, NULL, 'w' },
    { "timeout", required_argument, NULL, 'i' },
    { "raw", no_argument, NULL, 'r' },
    { "json", no_argument, NULL, 'j' },
    { "quiet", no_argument, NULL, 'q' },
    { "verbose", no_argument, NULL, 'v' },
    { "help", no_argument, NULL, 'h' },
    { "dump-stream", required_argument, NULL, 'D' },
    { "version", no_argument, NULL, 'V' },
    { NULL, 0, NULL, 0 },
};

/* A number with K, M or G behind it if `units`. */
static int parse_number(const char *option, const char *text, bool units, int64_t most, int64_t *out)
{
    char *end;
    int shift = 0;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (units && (*end == 'K' || *end == 'M' || *end == 'G')) {
        shift = *end == 'K' ? 10 : *end == 'M' ? 20 : 30;
        end++;
    }
    if (errno || end == text || *end || value < 0 || value > most >> shift) {
        return hv_fail(-EINVAL, "--%s takes a number from 0 to %lld%s, not '%s'", option, (long long)most,
                       units ? ", perhaps with K, M or G" : "", text);
    }
    *out = value << shift;
    return 0;
}

static int parse_rate(const char *text, double *out)
{
    char *end;
    *out = strtod(text, &end);
    if (end == text || *end || !(*out >= 0 && *out <= 1e6)) {
        return hv_fail(-EINVAL, "--guest-writes takes MB a second, from 0 to 1000000, not '%s'", text);
    }
    return 0;
}

static int parse_style(const char *text, bool *stages)
{
    *stages = strcmp(text, "stages") == 0;
    if (!*stages && strcmp(text, "threaded") != 0) {
        return hv_fail(-EINVAL, "--style is threaded or stages, not '%s'", text);
    }
    return 0;
}

static int add_disk(const char *text, HvOptions *o)
{
    if (o->disk_count == HV_MAX_DISKS) {
        return hv_fail(-EINVAL, "%d disks at most", HV_MAX_DISKS);
    }
    HvDiskSpec *disk = &o->disks[o->disk_count++];
    int ret = hv_parse_disk(text, disk);
    for (int i = 0; ret == 0 && i < o->disk_count - 1; i++) {
        if (strcmp(o->disks[i].name, disk->name) == 0) {
            ret = hv_fail(-EINVAL, "two disks are named %s", disk->name);
        }
    }
    return ret;
}

static int parse_limit(const char *option, const char *text, int64_t most, int64_t scale, int64_t *out)
{
    int ret = parse_number(option, text, false, most, out);
    *out *= ret == 0 ? scale : 1;
    return ret;
}

static int parse_option(int letter, const char *text, HvOptions *o)
{
    int64_t number = 0;
    int ret = 0;
    switch (letter) {
    case 'D': o->dump_stream = text; break;
    case 'l': o->listen = text; break;
    case 'c': o->connect = text; break;
    case 'd': ret = add_disk(text, o); break;
    case 'b': ret = parse_number("bandwidth", text, true, INT64_C(1) << 50, &o->bandwidth); break;
    case 't': ret = parse_limit("max-downtime", text, 86400000, 1, &o->max_downtime_ms); break;
    case 'g': ret = parse_rate(text, &o->guest_mb); break;
    case 'z':
    case 'Z': o->zero_blocks = letter == 'z'; o->zero_blocks_given = true; break;
    case 'a': o->accept_tail_garbage = true; break;
    case 's': o->shared_base = true; break;
    case 'y': ret = parse_style(text, &o->stages); break;
    case 'm': ret = parse_number("max-buffers", text, false, 65536, &number); o->max_buffers = (uint32_t)number; break;
    case 'w': ret = parse_limit("wait", text, 86400, 1000, &o->wait_ms); break;
    case 'i': ret = parse_limit("timeout", text, 86400, 1000, &o->timeout_ms); break;
    case 'r': o->raw = true; break;
    case 'j': o->json = true; break;
    case 'q': o->quiet = true; break;
    default: o->verbose = true; break;
    }
    return ret;
}

static bool all_read_only(const HvOptions *o)
{
    for (int i = 0; i < o->disk_count; i++) {
        if (!o->disks[i].read_only) {
            return false;
        }
    }
    return true;
}

static int check(HvOptions *o)
{
    if (o->dump_stream) {
        return !o->listen && !o->connect && o->disk_count == 0
            ? 1 : hv_fail(-EINVAL, "--dump-stream migrates nothing: give it alone, or with --json");
    }
    if (!o->listen == !o->connect) {
        return hv_fail(-EINVAL, "give either --listen or --connect (see --help)");
    }
    if (o->disk_count == 0) {
        return hv_fail(-EINVAL, "give at least one --disk NAME=FILE (see --help)");
    }
    if (all_read_only(o)) {
        return hv_fail(-EINVAL, "every disk is readonly, and those are not migrated: there is nothing to do");
    }
    if (o->timeout_ms == 0) {
        return hv_fail(-EINVAL, "--timeout takes 1 second at least");
    }
    if (!o->zero_blocks_given) {           /* raw: who knows what reads it */
        o->zero_blocks = !o->raw;
    }
    return 1;
}

int hv_parse_options(int argc, char **argv, HvOptions *o)
{
    int letter;
    *o = (HvOptions){ .max_downtime_ms = 300, .timeout_ms = 30000, .wait_ms = 600000 };
    opterr = 0;
    while ((letter = getopt_long(argc, argv, ":l:c:d:b:t:g:zZasy:m:w:i:rjqvD:hV", long_options, NULL)) != -1) {
        if (letter == 'h' || letter == 'V') {
            fputs(letter == 'h' ? help : "blkmig-hv " HV_VERSION "\n", stdout);
            return 0;
        }
        if (letter == ':' || letter == '?') {
            return hv_fail(-EINVAL, letter == ':' ? "%s needs a value (see --help)" : "unknown option %s (see --help)",
                           argv[optind - 1]);
        }
        int ret = parse_option(letter, optarg, o);
        if (ret < 0) {
            return ret;
        }
    }
    if (optind < argc) {
        return hv_fail(-EINVAL, "unexpected argument '%s' (see --help)", argv[optind]);
    }
    return check(o);
}

void hv_free_options(HvOptions *o)
{
    for (int i = 0; i < o->disk_count; i++) {
        hv_free_disk(&o->disks[i]);
    }
}
