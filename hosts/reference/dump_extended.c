/* SPDX-License-Identifier: GPL-2.0-only */
/* The records of the extended stream: a header of 48 bytes each, and a payload. Checksums are shown, not compared. */
#include <inttypes.h>
#include <stdio.h>

#include "dump.h"
#include "hv.h"

#define WORD_BYTES 8
#define FLAG_BITS  9
#define MAX_TABLE  (UINT64_C(1) << 20)

enum { START, DATA, ZSTD, ZEROES, END, TOTALS, KINDS };

typedef struct Record {
    uint64_t offset, kind, number, device, length, sector, sectors, checksum;
} Record;

static const char *const events[KINDS] = { "start", "data", "zstd", "zeroes", "end", "totals" };

static bool header(HvDump *d, Record *r, uint64_t word)
{
    r->kind = word >> FLAG_BITS;
    return hv_dump_number(d, 8, &r->number, "a record's number")
        && hv_dump_number(d, 4, &r->device, "a record's device")
        && hv_dump_number(d, 4, &r->length, "the length of a record's payload")
        && hv_dump_number(d, 8, &r->sector, "a record's sector")
        && hv_dump_number(d, 8, &r->sectors, "a record's sectors")
        && hv_dump_number(d, 8, &r->checksum, "a record's checksum");
}

static bool check(HvDump *d, const Record *r)
{
    uint64_t most = r->kind == DATA || r->kind == ZSTD ? HV_CHUNK_SECTORS * HV_SECTOR_SIZE
        : r->kind == START || r->kind == TOTALS ? MAX_TABLE : 0;
    if (r->kind >= KINDS) {
        return hv_dump_error(d, r->offset, "a record of kind 0 to 5", "kind %" PRIu64, r->kind);
    }
    /* The first record starts another migration. */
    if (r->number != (r->kind == START ? 0 : d->extended_number)) {
        return hv_dump_error(d, r->offset, r->kind == START ? "number 0" : "the next number",
                             "record %" PRIu64 " after %" PRIu64 " others", r->number, d->extended_number);
    }
    if (r->length > most) {
        return hv_dump_error(d, r->offset, "a payload that is not so long", "%" PRIu64 " bytes", r->length);
    }
    if (r->kind == END && r->sector > 100) {
        return hv_dump_error(d, r->offset, "a percentage of 100 at most", "%" PRIu64, r->sector);
    }
    if ((r->kind == DATA || r->kind == ZSTD || r->kind == ZEROES) && r->device >= d->extended_devices) {
        return hv_dump_error(d, r->offset, "a device of the table", "device %" PRIu64, r->device);
    }
    return true;
}

static void begin(HvDump *d, const Record *r)
{
    char checksum[2 + 16 + 1];
    snprintf(checksum, sizeof(checksum), "0x%016" PRIx64, r->checksum);
    hv_dump_begin_at(d, r->offset, events[r->kind]);
    hv_dump_field(d, "number", r->number);
    hv_dump_text_field(d, "checksum", checksum);
}

/* The devices of the migration. */
static bool table(HvDump *d, const Record *r)
{
    uint64_t version, required, optional, count, end = d->offset + r->length;
    if (!hv_dump_number(d, 4, &version, "the version of the extended stream")
        || !hv_dump_number(d, 4, &required, "the required features")
        || !hv_dump_number(d, 4, &optional, "the optional features")
        || !hv_dump_number(d, 4, &count, "the number of devices")) {
        return false;
    }
    begin(d, r);
    hv_dump_field(d, "version", version);
    hv_dump_field(d, "required", required);
    hv_dump_field(d, "optional", optional);
    hv_dump_field(d, "devices", count);
    hv_dump_end(d);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t offset = d->offset, bytes, unit;
        HvDumpName name;
        if (d->offset >= end) {
            return hv_dump_error(d, offset, "another device in the table", "the table's end");
        }
        if (!hv_dump_number(d, 8, &bytes, "a device's length") || !hv_dump_number(d, 4, &unit, "a device's unit")
            || !hv_dump_name(d, &name, "a device's name")) {
            return false;
        }
        if (i < HV_DUMP_DEVICES) {
            d->extended_names[i] = name;
        }
        hv_dump_begin_at(d, offset, "entry");
        hv_dump_field(d, "device", i);
        hv_dump_name_field(d, "name", &name);
        hv_dump_field(d, "bytes", bytes);
        hv_dump_field(d, "unit", unit);
        hv_dump_end(d);
    }
    d->extended_devices = count;
    return d->offset == end || hv_dump_error(d, d->offset, "the table's end", "%" PRId64 " bytes too many or too few",
                                             (int64_t)(end - d->offset));
}

static bool totals(HvDump *d, const Record *r)
{
    begin(d, r);
    hv_dump_end(d);
    for (uint64_t i = 0; i < r->length / 16; i++) {
        uint64_t offset = d->offset, records, digest;
        if (!hv_dump_number(d, 8, &records, "a total") || !hv_dump_number(d, 8, &digest, "a total")) {
            return false;
        }
        hv_dump_begin_at(d, offset, "records");
        hv_dump_field(d, "device", i);
        hv_dump_field(d, "records", records);
        hv_dump_end(d);
    }
    return hv_dump_skip(d, r->length % 16, "a total");
}

static bool run(HvDump *d, const Record *r)
{
    if (!hv_dump_skip(d, r->length, "a record's data")) {
        return false;
    }
    begin(d, r);
    if (r->device < HV_DUMP_DEVICES) {
        hv_dump_name_field(d, "device", &d->extended_names[r->device]);
    } else {
        hv_dump_field(d, "device", r->device);
    }
    hv_dump_field(d, "sector", r->sector);
    hv_dump_field(d, "sectors", r->sectors);
    hv_dump_field(d, "bytes", r->length);
    hv_dump_end(d);
    *(r->kind == ZEROES ? &d->zero_blocks : &d->blocks) += 1;
    return true;
}

bool hv_dump_extended_section(HvDump *d, uint64_t word)
{
    for (;;) {
        Record r = { .offset = d->offset - WORD_BYTES };
        if (!header(d, &r, word) || !check(d, &r)) {
            return false;
        }
        d->extended_number = r.number + 1;
        if (r.kind == END) {
            d->percent = (int)r.sector;
            begin(d, &r);
            hv_dump_field(d, "percent", r.sector);
            hv_dump_end(d);
            d->sections++;
            return true;
        }
        if (!(r.kind == START ? table(d, &r) : r.kind == TOTALS ? totals(d, &r) : run(d, &r))) {
            return false;
        }
        uint64_t next = d->offset;
        if (!hv_dump_number(d, WORD_BYTES, &word, "a record's header")) {
            return false;
        }
        if ((word & ((UINT64_C(1) << FLAG_BITS) - 1)) != HV_DUMP_EXTENDED) {
            return hv_dump_error(d, next, "a record of the extended stream", "0x%016" PRIx64, word);
        }
    }
}
