/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * --dump-stream: a recorded stream, record by record. Whatever the stream holds, no more memory is used than this
 * structure has, and no byte of it reaches the terminal as it is.
 *
 * The functions of each section call only those of the sections above it. Those that return bool return false when the
 * stream cannot be decoded any further; hv_dump_error has kept the reason then.
 */
#ifndef HV_DUMP_H
#define HV_DUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HV_DUMP_DEVICES 256                /* that are counted each for itself */
#define HV_DUMP_EXTENDED 0x010             /* the flags that extended records begin with */
#define HV_DUMP_ESCAPED (4 * 255 + 1)      /* bytes that a name can take with each of them escaped */

typedef struct HvDumpName {
    uint8_t length;
    char bytes[256];                       /* ends with a NUL, but may also hold some */
} HvDumpName;

typedef struct HvDumpDevice {
    HvDumpName name;
    uint64_t blocks, zero_blocks, end_sector;
} HvDumpDevice;

typedef struct HvDump {
    bool json;
    int gap;                               /* output: columns of the line so far */
    /* input */
    int fd;
    uint64_t offset;                       /* of the byte that comes next */
    size_t at, end;
    uint8_t buffer[65536];
    /* the error that ended it */
    uint64_t error_offset;
    char expected[256], found[256];        /* "": no error */
    /* totals */
    uint64_t sections, blocks, zero_blocks, other_devices;
    int percent;                           /* of the last progress record; -1: none */
    int device_count;
    HvDumpDevice devices[HV_DUMP_DEVICES];
    /* of the extended stream: the next record's number, and its devices, the first of them with their names */
    uint64_t extended_number, extended_devices;
    HvDumpName extended_names[HV_DUMP_DEVICES];
} HvDump;

/* Returns the exit status of the program: 0 if all of the stream could be decoded. */
int hv_dump_stream(const char *path, bool json);

/* ---- Input (dump_input.c). `what` says what should be there, as in "a name". ---- */

bool hv_dump_error(HvDump *d, uint64_t offset, const char *expected, const char *found, ...)
    __attribute__((format(printf, 4, 5)));
size_t hv_dump_peek(HvDump *d, uint8_t *buf, size_t size);   /* how many of these bytes there are */
bool hv_dump_at_end(HvDump *d);
bool hv_dump_get(HvDump *d, void *buf, size_t size, const char *what);
bool hv_dump_skip(HvDump *d, uint64_t size, const char *what);
bool hv_dump_number(HvDump *d, int bytes, uint64_t *value, const char *what);   /* big-endian */
bool hv_dump_name(HvDump *d, HvDumpName *name, const char *what);               /* a byte with its length before it */

/* ---- Output (dump_output.c): a line or a JSON object for each record ---- */

const char *hv_dump_escape(const HvDumpName *name, char escaped[HV_DUMP_ESCAPED]);   /* returns escaped */
void hv_dump_begin(HvDump *d, const char *event);            /* of the whole stream */
void hv_dump_begin_at(HvDump *d, uint64_t offset, const char *event);
void hv_dump_field(HvDump *d, const char *key, uint64_t value);
void hv_dump_text_field(HvDump *d, const char *key, const char *text);
void hv_dump_name_field(HvDump *d, const char *key, const HvDumpName *name);
void hv_dump_end(HvDump *d);

/* ---- What a stream is made of ---- */

/* dump_extended.c: a section of the extended stream, of which this word was taken already */
bool hv_dump_extended_section(HvDump *d, uint64_t word);
bool hv_dump_section(HvDump *d);           /* dump_section.c: the module's records, up to the end of the section */
bool hv_dump_frames(HvDump *d);            /* dump_frames.c: a stream of blkmig-hv */
bool hv_dump_qemu_file(HvDump *d);         /* dump_qemu.c: a stream of QEMU, from its start */
bool hv_dump_qemu_sections(HvDump *d);     /* the same without the file's header */
bool hv_dump_qemu_section_starts(const uint8_t *bytes, size_t size);   /* does it look like the first section? */

#endif
