/* SPDX-License-Identifier: GPL-2.0-only */
/* A line for each record: its offset, what it is, and its fields; or the same as a JSON object. */
#include <stdio.h>

#include "dump.h"
#include "json.h"

#define FIELDS_COLUMN 26

/* Control characters, backslashes and what is not UTF-8 become \xNN, so the same text can be told back into bytes. */
const char *hv_dump_escape(const HvDumpName *name, char escaped[HV_DUMP_ESCAPED])
{
    char *to = escaped;
    for (const char *at = name->bytes; at < name->bytes + name->length; ) {
        int length = hv_utf8_length(at);
        bool control = (unsigned char)*at < 0x20 || *at == 0x7f || (length == 2 && *at == '\xc2' && at[1] < '\xa0');
        if (length == 0 || control || *at == '\\') {
            to += sprintf(to, "\\x%02x", (unsigned char)*at++);
        } else {
            to += sprintf(to, "%.*s", length, at);
            at += length;
        }
    }
    *to = '\0';
    return escaped;
}

void hv_dump_begin(HvDump *d, const char *event)
{
    if (d->json) {
        hv_json_begin(event);
    } else {
        d->gap = printf("%14s  %s", "", event);
    }
}

void hv_dump_begin_at(HvDump *d, uint64_t offset, const char *event)
{
    if (d->json) {
        hv_json_begin(event);
        hv_json_integer("offset", offset);
    } else {
        d->gap = printf("%14llu  %s", (unsigned long long)offset, event);
    }
}

/* Before each field; the first ones of all lines stand in one column. */
static void gap(HvDump *d)
{
    printf("%*s", d->gap < FIELDS_COLUMN ? FIELDS_COLUMN - d->gap : 2, "");
    d->gap = FIELDS_COLUMN;
}

void hv_dump_field(HvDump *d, const char *key, uint64_t value)
{
    if (d->json) {
        hv_json_integer(key, value);
    } else {
        gap(d);
        printf("%s %llu", key, (unsigned long long)value);
    }
}

void hv_dump_text_field(HvDump *d, const char *key, const char *text)
{
    if (d->json) {
        hv_json_string(key, text);
    } else {
        gap(d);
        printf("%s %s", key, text);
    }
}

void hv_dump_name_field(HvDump *d, const char *key, const HvDumpName *name)
{
    char escaped[HV_DUMP_ESCAPED];
    hv_dump_text_field(d, key, hv_dump_escape(name, escaped));
}

void hv_dump_end(HvDump *d)
{
    if (d->json) {
        hv_json_end();
    } else {
        putchar('\n');
    }
}
