/* SPDX-License-Identifier: GPL-2.0-only */
/* The bytes of a recorded stream, which may come from a pipe, and the error that ended it. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "dump.h"

bool hv_dump_error(HvDump *d, uint64_t offset, const char *expected, const char *found, ...)
{
    if (!d->found[0]) {                    /* the first one counts */
        va_list args;
        va_start(args, found);
        vsnprintf(d->found, sizeof(d->found), found, args);
        va_end(args);
        snprintf(d->expected, sizeof(d->expected), "%s", expected);
        d->error_offset = offset;
    }
    return false;
}

/* Reads more into the buffer, behind what is in it. False: there is nothing more. */
static bool fill(HvDump *d)
{
    ssize_t got;
    memmove(d->buffer, d->buffer + d->at, d->end - d->at);
    d->end -= d->at;
    d->at = 0;
    do {
        got = read(d->fd, d->buffer + d->end, sizeof(d->buffer) - d->end);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        return hv_dump_error(d, d->offset + d->end, "data", "a read error: %s", strerror(errno));
    }
    d->end += (size_t)got;
    return got > 0;
}

size_t hv_dump_peek(HvDump *d, uint8_t *buf, size_t size)
{
    while (d->end - d->at < size && fill(d)) {
    }
    size_t ready = d->end - d->at < size ? d->end - d->at : size;
    memcpy(buf, d->buffer + d->at, ready);
    return ready;
}

bool hv_dump_at_end(HvDump *d)
{
    return d->at == d->end && !fill(d);
}

/* Takes size bytes, to buf unless it is NULL. */
static bool take(HvDump *d, uint8_t *buf, uint64_t size, const char *what)
{
    for (uint64_t done = 0; done < size; ) {
        if (hv_dump_at_end(d)) {
            return done == 0 ? hv_dump_error(d, d->offset, what, "the end of the stream")
                             : hv_dump_error(d, d->offset, what, "the end of the stream after %llu of %llu bytes",
                                             (unsigned long long)done, (unsigned long long)size);
        }
        size_t piece = size - done < d->end - d->at ? (size_t)(size - done) : d->end - d->at;
        if (buf) {
            memcpy(buf + done, d->buffer + d->at, piece);
        }
        d->at += piece;
        d->offset += piece;
        done += piece;
    }
    return true;
}

bool hv_dump_get(HvDump *d, void *buf, size_t size, const char *what)
{
    return take(d, buf, size, what);
}

bool hv_dump_skip(HvDump *d, uint64_t size, const char *what)
{
    return take(d, NULL, size, what);
}

bool hv_dump_number(HvDump *d, int bytes, uint64_t *value, const char *what)
{
    uint8_t raw[8];
    if (!hv_dump_get(d, raw, (size_t)bytes, what)) {
        return false;
    }
    *value = 0;
    for (int i = 0; i < bytes; i++) {
        *value = *value << 8 | raw[i];
    }
    return true;
}

bool hv_dump_name(HvDump *d, HvDumpName *name, const char *what)
{
    uint64_t length;
    if (!hv_dump_number(d, 1, &length, what) || !hv_dump_get(d, name->bytes, (size_t)length, what)) {
        return false;
    }
    name->length = (uint8_t)length;
    name->bytes[length] = '\0';
    return true;
}
