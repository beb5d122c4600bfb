/* SPDX-License-Identifier: GPL-2.0-only */
/* --dump-stream: finds out what kind of stream it is, and prints the totals and the error at its end. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "dump.h"
#include "frames.h"
#include "json.h"

#define START_BYTES 16                     /* enough to distinguish them */

static bool sections(HvDump *d)
{
    bool good = true;
    while (good && !hv_dump_at_end(d)) {
        good = hv_dump_section(d);
    }
    return good;
}

static void decode(HvDump *d)
{
    uint8_t start[START_BYTES];
    uint64_t magic = 0;
    size_t size = hv_dump_peek(d, start, sizeof(start));
    for (int i = 0; i < 8 && size >= 8; i++) {
        magic = magic << 8 | start[i];
    }
    if (magic == HV_MAGIC) {
        hv_dump_frames(d);
    } else if (size >= 4 && memcmp(start, "QEVM", 4) == 0) {
        hv_dump_qemu_file(d);
    } else if (hv_dump_qemu_section_starts(start, size)) {
        hv_dump_qemu_sections(d);
    } else if (size == 0) {
        hv_dump_error(d, 0, "a stream", "nothing");
    } else {
        sections(d);
    }
}

static void totals(HvDump *d)
{
    hv_dump_begin(d, "total");
    hv_dump_field(d, "bytes", d->offset);
    hv_dump_field(d, "sections", d->sections);
    hv_dump_field(d, "blocks", d->blocks);
    hv_dump_field(d, "zero_blocks", d->zero_blocks);
    if (d->percent >= 0) {
        hv_dump_field(d, "percent", (uint64_t)d->percent);
    }
    if (d->other_devices) {
        hv_dump_field(d, "blocks_of_other_devices", d->other_devices);
    }
    hv_dump_text_field(d, "complete", !d->found[0] && d->percent == 100 ? "yes" : "no");
    hv_dump_end(d);
    for (int i = 0; i < d->device_count; i++) {
        const HvDumpDevice *device = &d->devices[i];
        hv_dump_begin(d, "device");
        hv_dump_name_field(d, "name", &device->name);
        hv_dump_field(d, "blocks", device->blocks);
        hv_dump_field(d, "zero_blocks", device->zero_blocks);
        hv_dump_field(d, "end_sector", device->end_sector);
        hv_dump_end(d);
    }
}

static int fail(bool json, const char *path, const char *doing, int error)
{
    fprintf(stderr, "blkmig-hv: cannot %s %s: %s\n", doing, path, strerror(error));
    if (json) {
        hv_json_begin("error");
        hv_json_string("error", strerror(error));
        hv_json_end();
    }
    return 1;
}

int hv_dump_stream(const char *path, bool json)
{
    static HvDump d;
    bool standard_input = strcmp(path, "-") == 0;
    d.json = json;
    d.percent = -1;
    d.fd = standard_input ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (d.fd < 0) {
        return fail(json, path, "open", errno);
    }
    decode(&d);
    totals(&d);
    if (d.found[0]) {
        fflush(stdout);
        fprintf(stderr, "blkmig-hv: %s, offset %llu: expected %s, found %s\n", path, (unsigned long long)d.error_offset,
                d.expected, d.found);
        if (json) {
            hv_dump_begin_at(&d, d.error_offset, "error");
            hv_dump_text_field(&d, "expected", d.expected);
            hv_dump_text_field(&d, "found", d.found);
            hv_dump_end(&d);
        }
    }
    if (!standard_input) {
        close(d.fd);
    }
    if (fflush(stdout) != 0 || ferror(stdout)) {
        return fail(false, "standard output", "write", errno);
    }
    return d.found[0] ? 1 : 0;
}
