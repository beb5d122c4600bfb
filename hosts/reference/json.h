/* SPDX-License-Identifier: GPL-2.0-only */
/* One JSON object a line on stdout. */
#ifndef HV_JSON_H
#define HV_JSON_H

#include <stdint.h>

void hv_json_begin(const char *event);
void hv_json_string(const char *key, const char *text);
void hv_json_integer(const char *key, uint64_t value);
void hv_json_number(const char *key, double value);          /* < 0: null */
void hv_json_end(void);

int hv_utf8_length(const char *text);                        /* bytes of its first character; 0: that is not UTF-8 */

#endif
