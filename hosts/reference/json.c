/* SPDX-License-Identifier: GPL-2.0-only */
#include <stdbool.h>
#include <stdio.h>

#include "json.h"

void hv_json_begin(const char *event)
{
    printf("{\"event\":\"%s\"", event);
}

int hv_utf8_length(const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    int length = at[0] < 0x80 ? 1 : at[0] >= 0xc2 && at[0] < 0xe0 ? 2 : (at[0] & 0xf0) == 0xe0 ? 3
        : at[0] >= 0xf0 && at[0] < 0xf5 ? 4 : 0;
    for (int i = 1; i < length; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool surrogate_or_overlong = (at[0] == 0xed && at[1] >= 0xa0) || (at[0] == 0xe0 && at[1] < 0xa0)
                                 || (at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] >= 0x90);
    return surrogate_or_overlong ? 0 : length;
}

void hv_json_string(const char *key, const char *text)
{
    printf(",\"%s\":\"", key);
    while (*text) {
        int length = hv_utf8_length(text);
        if (length == 0) {
            fputs("\\ufffd", stdout);      /* file names need not be UTF-8; JSON must */
            length = 1;
        } else if (*text == '"' || *text == '\\') {
            printf("\\%c", *text);
        } else if (length == 1 && (*text < ' ' || *text == 0x7f)) {
            printf("\\u%04x", (unsigned)*text);
        } else {
            printf("%.*s", length, text);
        }
        text += length;
    }
    putchar('"');
}

void hv_json_integer(const char *key, uint64_t value)
{
    printf(",\"%s\":%llu", key, (unsigned long long)value);
}

void hv_json_number(const char *key, double value)
{
    if (value < 0) {
        printf(",\"%s\":null", key);
    } else {
        printf(",\"%s\":%.3f", key, value);
    }
}

void hv_json_end(void)
{
    puts("}");
    fflush(stdout);
}
