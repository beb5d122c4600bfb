/* SPDX-License-Identifier: GPL-2.0-only */
/* What a source of blkmig-hv sends: a greeting with its disks, then frames, some of which have a section. */
#include "dump.h"
#include "frames.h"

static bool disk(HvDump *d)
{
    HvDumpName name;
    uint64_t bytes, has_base, offset = d->offset;
    if (!hv_dump_name(d, &name, "the name of a disk")
        || !hv_dump_number(d, 8, &bytes, "the length of a disk")
        || !hv_dump_number(d, 1, &has_base, "whether a disk has a base image")) {
        return false;
    }
    hv_dump_begin_at(d, offset, "disk");
    hv_dump_name_field(d, "name", &name);
    hv_dump_field(d, "bytes", bytes);
    hv_dump_field(d, "has_base", has_base);
    hv_dump_end(d);
    return true;
}

static bool greeting(HvDump *d)
{
    uint64_t magic, protocol, shared_base, disks, offset = d->offset;
    if (!hv_dump_number(d, 8, &magic, "a greeting")
        || !hv_dump_number(d, 1, &protocol, "the version of the protocol")) {
        return false;
    }
    if (protocol < 1 || protocol > HV_PROTOCOL) {
        return hv_dump_error(d, d->offset - 1, "version 1 or 2 of the protocol", "version %llu",
                             (unsigned long long)protocol);
    }
    if (!hv_dump_number(d, 1, &shared_base, "whether the base images are shared")
        || !hv_dump_number(d, 1, &disks, "the number of disks")) {
        return false;
    }
    hv_dump_begin_at(d, offset, "greeting");
    hv_dump_field(d, "protocol", protocol);
    hv_dump_field(d, "shared_base", shared_base);
    hv_dump_field(d, "disks", disks);
    hv_dump_end(d);
    for (uint64_t i = 0; i < disks; i++) {
        if (!disk(d)) {
            return false;
        }
    }
    return true;
}

static const char *frame_name(uint64_t frame)
{
    switch (frame) {
    case HV_START: return "start";
    case HV_PART: return "part";
    case HV_LAST: return "last";
    case HV_FLUSH: return "flush";
    case HV_END: return "end";
    case HV_GO: return "go";
    default: return NULL;
    }
}

/* What a destination takes, and the names of that. */
static bool may_follow(uint64_t before, uint64_t frame, const char **expected)
{
    if (before == HV_LAST) {
        *expected = "the frame \"end\" (0x45)";
        return frame == HV_END;
    }
    if (before == HV_END) {
        *expected = "the frame \"go\" (0x47)";
        return frame == HV_GO;
    }
    *expected = "a frame of 0x53 (start), 0x50 (part), 0x59 (flush) or 0x4c (last)";
    return frame == HV_START || frame == HV_PART || frame == HV_FLUSH || frame == HV_LAST;
}

bool hv_dump_frames(HvDump *d)
{
    if (!greeting(d)) {
        return false;
    }
    for (uint64_t frame, before = 0; before != HV_GO; before = frame) {
        const char *expected;
        uint64_t offset = d->offset;
        may_follow(before, 0, &expected);
        if (!hv_dump_number(d, 1, &frame, expected)) {
            return false;
        }
        if (!may_follow(before, frame, &expected)) {
            return hv_dump_error(d, offset, expected, "0x%02x", (unsigned)frame);
        }
        hv_dump_begin_at(d, offset, "frame");
        hv_dump_text_field(d, "type", frame_name(frame));
        hv_dump_end(d);
        bool has_section = frame == HV_START || frame == HV_PART || frame == HV_LAST;
        if (has_section && !hv_dump_section(d)) {
            return false;
        }
    }
    return hv_dump_at_end(d) || hv_dump_error(d, d->offset, "the end of the stream", "more");
}
