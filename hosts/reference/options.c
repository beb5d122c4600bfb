/* SPDX-License-Identifier: GPL-2.0-only */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"

#define LOWEST_LEVEL  (-7)                 /* of compression */
#define HIGHEST_LEVEL 19

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
    "                            a disk, perhaps on top of a base image; format=raw: take the file as it is, even if\n"
    "                            it looks like a qcow2 or the like; a read-only disk is not migrated; write a comma\n"
    "                            in the name of a file twice\n"
    "  -n, --devices NAMES       source: the disks that migrate, by name, with commas in between (default: all that\n"
    "                            are not readonly)\n"
    "  -b, --bandwidth SIZE      send at most so many bytes a second, such as 100M (default 0: no limit)\n"
    "  -t, --max-downtime MS     how long the guest may be stopped (default 300); if it writes faster than the link\n"
    "                            sends, a low value means that the migration never ends\n"
    "  -g, --guest-writes MB     how many MB a second the source's guest writes (default 0)\n"
    "  -z, --zero-blocks         send chunks of zeroes as a few bytes (the default, except with --raw)\n"
    "  -Z, --no-zero-blocks      send them like all others\n"
    "  -S, --stream STREAM       source: classic: the stream that every peer reads (default); extended: one with\n"
    "                            checksums that sends only the 64 KiB around a guest's write; the destination must be\n"
    "                            of blkmig 1.1 or later\n"
    "  -C, --compress LEVEL      source: compress the extended stream by zstd at this level, from -7 to 19: 1 is a\n"
    "                            good choice (default 0: no compression)\n"
    "  -a, --accept-tail-garbage ignore what a chunk holds past the end of a disk: sources of 2011 to 9.0 leave\n"
    "                            garbage there\n"
    "  -s, --shared-base         both sides have the base images: send only what differs from them\n"
    "  -y, --style STYLE         threaded: a thread for the migration (default); stages: one thread for everything\n"
    "  -m, --max-buffers N       hold at most so many chunks of 1 MiB in memory (default: the library's, 64)\n"
    "  -w, --wait SECONDS        how long --listen waits for a source (default 600)\n"
    "  -i, --timeout SECONDS     how long either side waits for the other (default 30)\n"
    "  -r, --raw                 send nothing but the library's sections: no greeting, no confirmation\n"
    "  -j, --json                print everything as JSON, one object per line\n"
    "  -q, --quiet               print nothing but errors (with --json: no progress)\n"
    "  -v, --verbose             print the library's log to stderr\n"
    "  -D, --dump-stream FILE    print what a recorded stream holds (of blkmig-hv, of QEMU, or only the sections),\n"
    "                            record by record; - is standard input; takes --json\n"
    "  -h, --help                print this text\n"
    "  -V, --version             print the version\n"
    "\n"
    "Exit status: 0 when the destination has everything on stable storage; 1 on an error, which is one line on\n"
    "stderr; 128 plus the signal's number after Ctrl-C and other signals. Unless it is 0, the source's guest keeps\n"
    "running. The manual page blkmig-hv(1) has the details.\n";

static const struct option long_options[] = {
    { "listen", required_argument, NULL, 'l' },
    { "connect", required_argument, NULL, 'c' },
    { "disk", required_argument, NULL, 'd' },
    { "devices", required_argument, NULL, 'n' },
    { "bandwidth", required_argument, NULL, 'b' },
    { "max-downtime", required_argument, NULL, 't' },
    { "guest-writes", required_argument, NULL, 'g' },
    { "zero-blocks", no_argument, NULL, 'z' },
    { "no-zero-blocks", no_argument, NULL, 'Z' },
    { "stream", required_argument, NULL, 'S' },
    { "compress", required_argument, NULL, 'C' },
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

/* A number; if `units`, K, M or G may follow it. */
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
                       units ? ", optionally with K, M or G" : "", text);
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

static int parse_stream(const char *text, bool *extended)
{
    *extended = strcmp(text, "extended") == 0;
    if (!*extended && strcmp(text, "classic") != 0) {
        return hv_fail(-EINVAL, "--stream is classic or extended, not '%s'", text);
    }
    return 0;
}

static int parse_level(const char *text, int *level)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < LOWEST_LEVEL || value > HIGHEST_LEVEL) {
        return hv_fail(-EINVAL, "--compress takes a level from %d to %d, not '%s'", LOWEST_LEVEL, HIGHEST_LEVEL, text);
    }
    *level = (int)value;
    return 0;
}

static int add_disk(const char *text, HvOptions *o)
{
    if (o->disk_count == HV_MAX_DISKS) {
        return hv_fail(-EINVAL, "at most %d disks are possible", HV_MAX_DISKS);
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
    case 'n': o->devices = text; o->source_only = "--devices"; break;
    case 'b': ret = parse_number("bandwidth", text, true, INT64_C(1) << 50, &o->bandwidth); break;
    case 't': ret = parse_limit("max-downtime", text, 86400000, 1, &o->max_downtime_ms); break;
    case 'g': ret = parse_rate(text, &o->guest_mb); break;
    case 'z':
    case 'Z': o->zero_blocks = letter == 'z'; o->zero_blocks_given = true; break;
    case 'S': ret = parse_stream(text, &o->extended); o->source_only = "--stream"; break;
    case 'C': ret = parse_level(text, &o->compression); o->source_only = "--compress"; break;
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
    if (o->source_only && o->listen) {
        return hv_fail(-EINVAL, "%s is for the source: the destination takes what the source sends", o->source_only);
    }
    if (all_read_only(o)) {
        return hv_fail(-EINVAL, "every disk is readonly, and those are not migrated: there is nothing to do");
    }
    if (o->timeout_ms == 0) {
        return hv_fail(-EINVAL, "--timeout takes at least 1 second");
    }
    if (o->devices && hv_choose_disks(o) < 0) {
        return -EINVAL;
    }
    if (!o->zero_blocks_given) {           /* with --raw, the destination may be one that cannot read them */
        o->zero_blocks = !o->raw;
    }
    return 1;
}

int hv_parse_options(int argc, char **argv, HvOptions *o)
{
    int letter;
    *o = (HvOptions){ .max_downtime_ms = 300, .timeout_ms = 30000, .wait_ms = 600000 };
    opterr = 0;
    while ((letter = getopt_long(argc, argv, ":l:c:d:n:b:t:g:zZS:C:asy:m:w:i:rjqvD:hV", long_options, NULL)) != -1) {
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
