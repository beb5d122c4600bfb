/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A stream of QEMU, from 0.13 to 9.0, as far as block migration needs it: the sections "block" are decoded, the pages
 * of "ram" between them are counted, and it ends where the state of devices begins, after the last block.
 */
#include <string.h>

#include "dump.h"

#define MAGIC         UINT64_C(0x5145564d)     /* "QEVM" */
#define VERSION       3
#define BLOCK_VERSION 1
#define RAM_VERSION   4
#define PAGE_BITS     12                       /* unless the stream says otherwise */
#define MAX_LIVE      16                       /* live sections */

enum { FILE_END = 0x00, START = 0x01, PART = 0x02, END = 0x03, FULL = 0x04, SUBSECTION = 0x05, CONFIGURATION = 0x07,
       COMMAND = 0x08, FOOTER = 0x7e };

/* What a word of RAM says below the page's address. */
enum { RAM_ZERO = 0x02, RAM_BLOCKS = 0x04, RAM_PAGE = 0x08, RAM_END = 0x10, RAM_SAME_BLOCK = 0x20, RAM_DIFFERENCE = 0x40,
       RAM_COMPRESSED = 0x100, RAM_FLUSH = 0x200, RAM_FLAGS = 0xfff };

typedef struct Live {
    uint64_t id;
    bool ram, ended;                           /* else it is the disks' */
} Live;

typedef struct Qemu {
    HvDump *d;
    bool has_header;
    uint64_t page_bytes;
    int live_count;
    Live live[MAX_LIVE];
} Qemu;

/* ---- RAM ---- */

/* The list of memory blocks; `left`: how many bytes they have together. */
static bool ram_blocks(HvDump *d, uint64_t left)
{
    while (left > 0) {
        HvDumpName name;
        uint64_t bytes, offset = d->offset;
        if (!hv_dump_name(d, &name, "the name of a memory block")
            || !hv_dump_number(d, 8, &bytes, "the length of a memory block")) {
            return false;
        }
        if (bytes > left) {
            return hv_dump_error(d, offset, "a memory block within the size of the memory", "one of %llu bytes",
                                 (unsigned long long)bytes);
        }
        left -= bytes;
    }
    return true;
}

/* The data that follows a word with these flags. */
static bool ram_data(Qemu *q, uint64_t flags)
{
    HvDumpName block;
    uint64_t size = 0;
    if (!(flags & RAM_SAME_BLOCK) && !hv_dump_name(q->d, &block, "the name of a page's memory block")) {
        return false;
    }
    switch (flags & ~(uint64_t)RAM_SAME_BLOCK) {
    case RAM_ZERO:
        size = 1;
        break;
    case RAM_PAGE:
        size = q->page_bytes;
        break;
    case RAM_DIFFERENCE:
        if (!hv_dump_skip(q->d, 1, "the encoding of a page") || !hv_dump_number(q->d, 2, &size, "a length")) {
            return false;
        }
        break;
    default:
        if (!hv_dump_number(q->d, 4, &size, "a length")) {
            return false;
        }
        break;
    }
    return hv_dump_skip(q->d, size, "the data of a page");
}

static bool ram_section(Qemu *q)
{
    HvDump *d = q->d;
    uint64_t start = d->offset, pages = 0, zero_pages = 0;
    for (;;) {
        uint64_t word, offset = d->offset;
        if (!hv_dump_number(d, 8, &word, "a word of the section \"ram\"")) {
            return false;
        }
        uint64_t flags = word & RAM_FLAGS, kind = flags & ~(uint64_t)RAM_SAME_BLOCK;
        if (flags == RAM_END) {
            break;
        }
        bool good;
        if (flags == RAM_BLOCKS) {
            good = ram_blocks(d, word & ~(uint64_t)RAM_FLAGS);
        } else if (flags == RAM_FLUSH) {
            good = true;
        } else if (kind == RAM_ZERO || kind == RAM_PAGE || kind == RAM_DIFFERENCE || kind == RAM_COMPRESSED) {
            good = ram_data(q, flags);
            pages++;
            zero_pages += kind == RAM_ZERO;
        } else {
            good = hv_dump_error(d, offset, "a page of the section \"ram\"", "the flags 0x%03x, which are not decoded",
                                 (unsigned)flags);
        }
        if (!good) {
            return false;
        }
    }
    hv_dump_begin_at(d, start, "ram");
    hv_dump_field(d, "pages", pages);
    hv_dump_field(d, "zero_pages", zero_pages);
    hv_dump_end(d);
    return true;
}

/* ---- Sections ---- */

static Live *find_live(Qemu *q, uint64_t id)
{
    for (int i = 0; i < q->live_count; i++) {
        if (q->live[i].id == id) {
            return &q->live[i];
        }
    }
    return NULL;
}

static bool content(Qemu *q, uint64_t offset, uint64_t type, Live *live)
{
    hv_dump_begin_at(q->d, offset, "section");
    hv_dump_text_field(q->d, "type", type == START ? "start" : type == PART ? "part" : "end");
    hv_dump_field(q->d, "id", live->id);
    hv_dump_text_field(q->d, "name", live->ram ? "ram" : "block");
    hv_dump_end(q->d);
    live->ended = type == END;
    return live->ram ? ram_section(q) : hv_dump_section(q->d);
}

static bool is(const HvDumpName *name, const char *text)
{
    return name->length == strlen(text) && memcmp(name->bytes, text, name->length) == 0;
}

static bool start(Qemu *q, uint64_t offset)
{
    HvDumpName name;
    char escaped[HV_DUMP_ESCAPED];
    uint64_t id, instance, version;
    if (!hv_dump_number(q->d, 4, &id, "a section's number")
        || !hv_dump_name(q->d, &name, "a section's name")
        || !hv_dump_number(q->d, 4, &instance, "a section's instance")
        || !hv_dump_number(q->d, 4, &version, "a section's version")) {
        return false;
    }
    bool ram = is(&name, "ram");
    if ((!ram && !is(&name, "block")) || version != (ram ? RAM_VERSION : BLOCK_VERSION)) {
        return hv_dump_error(q->d, offset, "a section \"block\" of version 1 or \"ram\" of version 4",
                             "\"%s\" of version %llu, which is not decoded", hv_dump_escape(&name, escaped),
                             (unsigned long long)version);
    }
    Live *live = find_live(q, id);
    if (!live && q->live_count == MAX_LIVE) {
        return hv_dump_error(q->d, offset, "16 live sections at most", "one more");
    }
    live = live ? live : &q->live[q->live_count++];
    *live = (Live){ .id = id, .ram = ram };
    return content(q, offset, START, live);
}

static bool go_on(Qemu *q, uint64_t offset, uint64_t type)
{
    uint64_t id;
    if (!hv_dump_number(q->d, 4, &id, "a section's number")) {
        return false;
    }
    Live *live = find_live(q, id);
    return live ? content(q, offset, type, live)
                : hv_dump_error(q->d, offset, "a section that was started before", "number %llu", (unsigned long long)id);
}

/* The machine's name; what else belongs to the configuration comes as subsections. */
static bool configuration(Qemu *q, uint64_t offset)
{
    uint64_t length;
    if (!hv_dump_number(q->d, 4, &length, "the length of the machine's name")
        || !hv_dump_skip(q->d, length, "the machine's name")) {
        return false;
    }
    hv_dump_begin_at(q->d, offset, "machine");
    hv_dump_end(q->d);
    return true;
}

static bool subsection(Qemu *q, uint64_t offset)
{
    HvDumpName name;
    char escaped[HV_DUMP_ESCAPED];
    uint64_t version, bits;
    if (!hv_dump_name(q->d, &name, "a subsection's name")
        || !hv_dump_number(q->d, 4, &version, "a subsection's version")) {
        return false;
    }
    if (!is(&name, "configuration/target-page-bits")) {
        return hv_dump_error(q->d, offset, "the subsection \"configuration/target-page-bits\"",
                             "\"%s\", which is not decoded", hv_dump_escape(&name, escaped));
    }
    if (!hv_dump_number(q->d, 4, &bits, "the size of a page")) {
        return false;
    }
    if (bits < PAGE_BITS || bits > 30) {
        return hv_dump_error(q->d, offset, "pages of 12 to 30 bits", "%llu bits", (unsigned long long)bits);
    }
    q->page_bytes = UINT64_C(1) << bits;
    return true;
}

static bool command(Qemu *q)
{
    uint64_t number, length;
    return hv_dump_number(q->d, 2, &number, "a command's number")
        && hv_dump_number(q->d, 2, &length, "a command's length")
        && hv_dump_skip(q->d, length, "a command's data");
}

static bool footer(Qemu *q, uint64_t offset)
{
    uint64_t id;
    if (!hv_dump_number(q->d, 4, &id, "a section's number")) {
        return false;
    }
    return find_live(q, id) || hv_dump_error(q->d, offset, "the end of a section that was started before", "number %llu",
                                             (unsigned long long)id);
}

/* Devices' state can only be told by the devices. Nothing of the disks comes after it. */
static bool rest(Qemu *q, uint64_t offset)
{
    for (int i = 0; i < q->live_count; i++) {
        if (!q->live[i].ram && !q->live[i].ended) {
            return hv_dump_error(q->d, offset, "the last section \"block\"",
                                 "the state of a device, which is not decoded");
        }
    }
    hv_dump_begin_at(q->d, offset, "rest");
    hv_dump_text_field(q->d, "is", "not decoded");
    hv_dump_end(q->d);
    return true;
}

static bool sections(Qemu *q)
{
    for (;;) {
        uint64_t type, offset = q->d->offset;
        bool good;
        if (!q->has_header && hv_dump_at_end(q->d)) {
            return true;
        }
        if (!hv_dump_number(q->d, 1, &type, "a section of QEMU")) {
            return false;
        }
        switch (type) {
        case FILE_END:
        case FULL: return rest(q, offset);
        case START: good = start(q, offset); break;
        case PART:
        case END: good = go_on(q, offset, type); break;
        case CONFIGURATION: good = configuration(q, offset); break;
        case SUBSECTION: good = subsection(q, offset); break;
        case COMMAND: good = command(q); break;
        case FOOTER: good = footer(q, offset); break;
        default:
            good = hv_dump_error(q->d, offset, "a section of QEMU", "0x%02x", (unsigned)type);
            break;
        }
        if (!good) {
            return false;
        }
    }
}

bool hv_dump_qemu_sections(HvDump *d)
{
    Qemu q = { .d = d, .page_bytes = UINT64_C(1) << PAGE_BITS };
    return sections(&q);
}

bool hv_dump_qemu_file(HvDump *d)
{
    Qemu q = { .d = d, .has_header = true, .page_bytes = UINT64_C(1) << PAGE_BITS };
    uint64_t magic, version, offset = d->offset;
    if (!hv_dump_number(d, 4, &magic, "a header of QEMU") || !hv_dump_number(d, 4, &version, "a version")) {
        return false;
    }
    if (magic != MAGIC || version != VERSION) {
        return hv_dump_error(d, offset, "a stream of QEMU of version 3", "version %llu", (unsigned long long)version);
    }
    hv_dump_begin_at(d, offset, "qemu");
    hv_dump_field(d, "version", version);
    hv_dump_end(d);
    return sections(&q);
}

bool hv_dump_qemu_section_starts(const uint8_t *bytes, size_t size)
{
    static const uint8_t name[] = { 5, 'b', 'l', 'o', 'c', 'k' };
    return size >= 5 + sizeof(name) && bytes[0] == START && memcmp(bytes + 5, name, sizeof(name)) == 0;
}
