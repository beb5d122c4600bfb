/* SPDX-License-Identifier: GPL-2.0-only */
/* The records of block migration, as they have been since 2009: a big-endian word, its low 9 bits are flags. */
#include <string.h>

#include "dump.h"
#include "hv.h"

#define FLAG_BITS   9
#define FLAGS       ((UINT64_C(1) << FLAG_BITS) - 1)
#define CHUNK_BYTES ((uint64_t)HV_CHUNK_SECTORS * HV_SECTOR_SIZE)

enum { BLOCK = 0x01, END = 0x02, PROGRESS = 0x04, ZERO_BLOCK = 0x09 };

static HvDumpDevice *device(HvDump *d, const HvDumpName *name)
{
    for (int i = 0; i < d->device_count; i++) {
        HvDumpDevice *known = &d->devices[i];
        if (known->name.length == name->length && memcmp(known->name.bytes, name->bytes, name->length) == 0) {
            return known;
        }
    }
    if (d->device_count == HV_DUMP_DEVICES) {
        return NULL;
    }
    HvDumpDevice *added = &d->devices[d->device_count++];
    *added = (HvDumpDevice){ .name = *name };
    return added;
}

static void count(HvDump *d, const HvDumpName *name, uint64_t sector, bool zero)
{
    HvDumpDevice *one = device(d, name);
    *(zero ? &d->zero_blocks : &d->blocks) += 1;
    if (!one) {
        d->other_devices++;
        return;
    }
    *(zero ? &one->zero_blocks : &one->blocks) += 1;
    if (sector + HV_CHUNK_SECTORS > one->end_sector) {
        one->end_sector = sector + HV_CHUNK_SECTORS;
    }
}

static bool block(HvDump *d, uint64_t offset, uint64_t sector, bool zero)
{
    HvDumpName name;
    if (!hv_dump_name(d, &name, "the name of a block's device")
        || (!zero && !hv_dump_skip(d, CHUNK_BYTES, "the data of a block"))) {
        return false;
    }
    hv_dump_begin_at(d, offset, zero ? "zero" : "block");
    hv_dump_name_field(d, "device", &name);
    hv_dump_field(d, "sector", sector);
    hv_dump_field(d, "bytes", CHUNK_BYTES);
    hv_dump_end(d);
    count(d, &name, sector, zero);
    return true;
}

static bool progress(HvDump *d, uint64_t offset, uint64_t percent)
{
    if (percent > 100) {
        return hv_dump_error(d, offset, "a progress of 100 % at most", "%llu %%", (unsigned long long)percent);
    }
    d->percent = (int)percent;
    hv_dump_begin_at(d, offset, "progress");
    hv_dump_field(d, "percent", percent);
    hv_dump_end(d);
    return true;
}

bool hv_dump_section(HvDump *d)
{
    for (bool first = true;; first = false) {
        uint64_t word, offset = d->offset;
        bool good;
        if (!hv_dump_number(d, 8, &word, "a record's header")) {
            return false;
        }
        /* The first record says which stream the section belongs to. */
        if (first && (word & FLAGS) == HV_DUMP_EXTENDED) {
            return hv_dump_extended_section(d, word);
        }
        switch (word & FLAGS) {
        case BLOCK:
        case ZERO_BLOCK:
            good = block(d, offset, word >> FLAG_BITS, (word & FLAGS) == ZERO_BLOCK);
            break;
        case PROGRESS:
            good = progress(d, offset, word >> FLAG_BITS);
            break;
        default:
            good = word == END;
            if (!good) {
                hv_dump_error(d, offset, "a record's header with flags 0x001, 0x009 or 0x004, or 0x002 alone",
                              "flags 0x%03x in 0x%016llx", (unsigned)(word & FLAGS), (unsigned long long)word);
            }
            break;
        }
        if (!good) {
            return false;
        }
        if (word == END) {
            hv_dump_begin_at(d, offset, "end");
            hv_dump_end(d);
            d->sections++;
            return true;
        }
    }
}
