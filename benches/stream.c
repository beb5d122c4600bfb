/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Streams. As in QEMUFile, what is put goes through a buffer of 32 KiB, but for put_buffer_nocopy; what is got in
 * small pieces, too, and a piece that is larger than the buffer goes straight to where it is wanted (not where
 * `buffered` is set). Neither the sink nor the source of the bytes is a system call, so what is left is what the
 * module and its host do.
 */
#include "bench.h"

#include <string.h>

static uint32_t *arrival(QEMUFile *f)
{
    uint64_t header = 0;
    const uint8_t *name = f->prefix + f->prefix_fill - strlen(disk_at(0)->name);

    for (int i = 0; i < 8; i++) {
        header = header << 8 | name[i - 9];
    }
    return &disk_at((name[4] - '0') * 10 + name[5] - '0')->arrived[header >> 9 >> 11];
}

/* What a chunk's data begins with is its version; in front of it stand the header, the name's length and the name. */
static void note_versions(QEMUFile *f, const uint8_t *buf, size_t size)
{
    if (size == CHUNK) {
        memcpy(arrival(f), buf, sizeof(uint32_t));
        f->prefix_fill = 0;
        return;
    }
    if (f->prefix_fill + size > sizeof(f->prefix)) {
        memmove(f->prefix, f->prefix + f->prefix_fill - 16, 16);
        f->prefix_fill = 16;
    }
    memcpy(f->prefix + f->prefix_fill, buf, size);
    f->prefix_fill += size;
}

static void sink(QEMUFile *f, const uint8_t *buf, size_t size)
{
    static uint8_t socket[4 << 20];
    static size_t at;

    if (f->sink == SINK_COPY) {
        if (at + size > sizeof(socket)) {
            at = 0;
        }
        memcpy(socket + at, buf, size);
        at += size;
    }
}

static void drain(QEMUFile *f)
{
    sink(f, f->buffer, f->fill);
    f->fill = 0;
}

static void count(QEMUFile *f, size_t size)
{
    f->bytes += size;
    f->step_bytes += (int64_t)size;
    if (f->link_rate) {
        int64_t start = f->link_free_at > now ? f->link_free_at : now;
        f->link_free_at = start + (int64_t)size * SECOND / f->link_rate;
    }
}

static void put_buffer(QEMUFile *f, const uint8_t *buf, int size)
{
    count(f, (size_t)size);
    if (f->sink == SINK_VERSIONS) {
        note_versions(f, buf, (size_t)size);
        return;
    }
    for (size_t left = (size_t)size, piece; left > 0; left -= piece, buf += piece) {
        piece = sizeof(f->buffer) - f->fill;
        piece = piece < left ? piece : left;
        memcpy(f->buffer + f->fill, buf, piece);
        f->fill += piece;
        if (f->fill == sizeof(f->buffer)) {
            drain(f);
        }
    }
}

static void put_buffer_nocopy(QEMUFile *f, const uint8_t *buf, int size, BlkMigRelease *release, void *opaque)
{
    count(f, (size_t)size);
    if (f->sink == SINK_VERSIONS) {
        note_versions(f, buf, (size_t)size);
    } else {
        drain(f);
        sink(f, buf, (size_t)size);
    }
    release(opaque);
}

static void put_byte(QEMUFile *f, int v)
{
    uint8_t byte = (uint8_t)v;

    put_buffer(f, &byte, 1);
}

static void put_be64(QEMUFile *f, uint64_t v)
{
    uint8_t bytes[8];

    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(v >> (56 - 8 * i));
    }
    put_buffer(f, bytes, 8);
}

static void refill(QEMUFile *f)
{
    f->fill = f->input_left < sizeof(f->buffer) ? f->input_left : sizeof(f->buffer);
    memcpy(f->buffer, f->input, f->fill);
    f->input += f->fill;
    f->input_left -= f->fill;
    f->at = 0;
}

static int get_buffer(QEMUFile *f, uint8_t *buf, int size)
{
    size_t left = (size_t)size;

    while (left > 0) {
        size_t piece = f->fill - f->at;
        if (piece == 0 && left >= sizeof(f->buffer) && !f->buffered) {
            piece = left < f->input_left ? left : f->input_left;
            memcpy(buf, f->input, piece);
            f->input += piece;
            f->input_left -= piece;
            left -= piece;
            break;
        }
        if (piece == 0) {
            refill(f);
            piece = f->fill;
        }
        piece = piece < left ? piece : left;
        if (piece == 0) {
            break;
        }
        memcpy(buf, f->buffer + f->at, piece);
        f->at += piece;
        buf += piece;
        left -= piece;
    }
    return size - (int)left;
}

static int get_byte(QEMUFile *f)
{
    uint8_t byte = 0;

    get_buffer(f, &byte, 1);
    return byte;
}

static uint64_t get_be64(QEMUFile *f)
{
    uint8_t bytes[8] = { 0 };
    uint64_t v = 0;

    get_buffer(f, bytes, 8);
    for (int i = 0; i < 8; i++) {
        v = v << 8 | bytes[i];
    }
    return v;
}

static int rate_limit(QEMUFile *f)
{
    return f->error || (f->step_limit && f->step_bytes >= f->step_limit);
}

static int64_t get_rate_limit(QEMUFile *f)
{
    return f->step_limit;
}

static int has_error(QEMUFile *f)
{
    return f->error;
}

static void set_error(QEMUFile *f, int ret)
{
    f->error = ret;
}

void stream_step(QEMUFile *f)
{
    f->step_bytes = 0;
}

const BlkMigFileOps file_ops = {
    .struct_size = sizeof(file_ops),
    .put_buffer = put_buffer,
    .put_byte = put_byte,
    .put_be64 = put_be64,
    .get_buffer = get_buffer,
    .get_byte = get_byte,
    .get_be64 = get_be64,
    .rate_limit = rate_limit,
    .get_rate_limit = get_rate_limit,
    .has_error = has_error,
    .set_error = set_error,
    .put_buffer_nocopy = put_buffer_nocopy,
};
