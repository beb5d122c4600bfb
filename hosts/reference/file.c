/* SPDX-License-Identifier: GPL-2.0-only */
/* A byte stream: output is queued and paced in steps of 100 ms, input is buffered. The channel below moves the
 * bytes. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "hv.h"

#define STEP_NS      INT64_C(100000000)
#define SMALL_PIECE  4096                  /* a put of less is gathered with its neighbours */
#define QUEUE_LIMIT  (4 << 20)             /* bytes queued, from where on a put waits */
#define INPUT_SIZE   65536
#define MAX_IOV      64

typedef struct Piece {
    struct Piece *next;
    const uint8_t *data;
    size_t size, room;                     /* room: what `own` can still take */
    void (*release)(void *opaque);         /* NULL: the data is in `own` */
    void *opaque;
    uint8_t own[];
} Piece;

struct QEMUFile {
    HvChannel channel;
    bool blocking, frozen;
    int error, channel_error;
    Piece *head, *tail;
    size_t queued;
    int64_t step_limit, step_used, step_start;
    atomic_uint_fast64_t bytes;
    size_t in_at, in_end;
    uint8_t in[INPUT_SIZE];
};

QEMUFile *hv_file_open(const HvChannel *channel, bool blocking)
{
    QEMUFile *f = calloc(1, sizeof(*f));
    if (f) {
        f->channel = *channel;
        f->blocking = blocking;
        f->step_start = hv_clock_ns();
        atomic_init(&f->bytes, 0);
    }
    return f;
}

static void drop_first(QEMUFile *f)
{
    Piece *piece = f->head;
    f->head = piece->next;
    if (!f->head) {
        f->tail = NULL;
    }
    f->queued -= piece->size;
    if (piece->release) {
        piece->release(piece->opaque);
    }
    free(piece);
}

void hv_file_set_error(QEMUFile *f, int ret)
{
    if (!f->error) {
        f->error = ret;
    }
    while (f->head) {
        drop_first(f);
    }
}

static void channel_failed(QEMUFile *f, int ret)
{
    if (!f->channel_error) {
        f->channel_error = ret;
    }
    hv_file_set_error(f, ret);
}

void hv_file_close(QEMUFile *f)
{
    if (!f) {
        return;
    }
    while (f->head) {
        drop_first(f);
    }
    if (f->channel.close) {
        f->channel.close(f->channel.opaque);
    }
    free(f);
}

/* ---- Output ---- */

static bool enqueue(QEMUFile *f, const uint8_t *buf, size_t size, size_t copied, void (*release)(void *), void *opaque)
{
    Piece *piece = malloc(sizeof(*piece) + copied);
    if (!piece) {
        hv_file_set_error(f, -ENOMEM);
        return false;
    }
    *piece = (Piece){ .data = release ? buf : piece->own, .size = size, .room = copied - (release ? 0 : size),
                      .release = release, .opaque = opaque };
    if (!release) {
        memcpy(piece->own, buf, size);
    }
    *(f->tail ? &f->tail->next : &f->head) = piece;
    f->tail = piece;
    f->queued += size;
    return true;
}

/* One write of as much of the queue as one call takes. False: the channel takes no more now, or has failed. */
static bool send_some(QEMUFile *f)
{
    struct iovec iov[MAX_IOV];
    int count = 0;
    for (Piece *piece = f->head; piece && count < MAX_IOV; piece = piece->next) {
        iov[count++] = (struct iovec){ .iov_base = (void *)piece->data, .iov_len = piece->size };
    }
    ssize_t sent = f->channel.writev(f->channel.opaque, iov, count);
    if (sent < 0) {
        f->frozen = sent == -EAGAIN;
        if (!f->frozen) {
            channel_failed(f, (int)sent);
        }
        return false;
    }
    f->frozen = false;
    while (f->head && (size_t)sent >= f->head->size) {
        sent -= (ssize_t)f->head->size;
        drop_first(f);
    }
    if (f->head) {
        f->head->data += sent;
        f->head->size -= (size_t)sent;
        f->head->room = 0;                 /* its end is no longer where size says */
        f->queued -= (size_t)sent;
    }
    return true;
}

static void send_down_to(QEMUFile *f, size_t limit)
{
    while (f->queued > limit) {
        if (!send_some(f) && f->frozen) {
            int ret = f->channel.wait(f->channel.opaque, true);
            if (ret < 0) {
                channel_failed(f, ret);
            }
        }
    }
    f->frozen = f->frozen && f->queued > 0;
}

void hv_file_flush(QEMUFile *f)
{
    if (f->blocking) {
        send_down_to(f, 0);
        return;
    }
    while (f->queued > 0 && send_some(f)) {
    }
}

void hv_file_drain(QEMUFile *f)
{
    send_down_to(f, 0);
}

bool hv_file_frozen(QEMUFile *f)
{
    return f->frozen;
}

static void count(QEMUFile *f, size_t size)
{
    f->step_used += (int64_t)size;
    atomic_fetch_add_explicit(&f->bytes, size, memory_order_relaxed);
}

static void put(QEMUFile *f, const uint8_t *buf, int signed_size, void (*release)(void *), void *opaque)
{
    size_t size = signed_size > 0 ? (size_t)signed_size : 0;
    if (f->error || size == 0) {
        if (release) {
            release(opaque);
        }
        return;
    }
    count(f, size);
    Piece *tail = f->tail;
    if (!release && tail && tail->room >= size) {
        memcpy(tail->own + (tail->data - tail->own) + tail->size, buf, size);
        tail->size += size;
        tail->room -= size;
        f->queued += size;
        return;
    }
    size_t copied = release ? 0 : size < SMALL_PIECE ? SMALL_PIECE : size;
    if (!enqueue(f, buf, size, copied, release, opaque)) {
        if (release) {
            release(opaque);
        }
    } else if (size >= SMALL_PIECE) {
        hv_file_flush(f);
        send_down_to(f, QUEUE_LIMIT);
    }
}

void hv_file_put_buffer(QEMUFile *f, const uint8_t *buf, int size)
{
    put(f, buf, size, NULL, NULL);
}

void hv_file_put_buffer_nocopy(QEMUFile *f, const uint8_t *buf, int size, void (*release)(void *opaque), void *opaque)
{
    put(f, buf, size, release, opaque);
}

void hv_file_put_byte(QEMUFile *f, int v)
{
    uint8_t byte = (uint8_t)v;
    put(f, &byte, 1, NULL, NULL);
}

void hv_file_put_be64(QEMUFile *f, uint64_t v)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(v >> (56 - 8 * i));
    }
    put(f, bytes, sizeof(bytes), NULL, NULL);
}

/* ---- Pace ---- */

/* What a step sends too much (a chunk may be more than a whole step's share) is taken from the next ones. */
static void begin_step(QEMUFile *f)
{
    int64_t steps = (hv_clock_ns() - f->step_start) / STEP_NS;
    if (steps > 0) {
        f->step_start += steps * STEP_NS;
        int64_t used = f->step_used / steps > f->step_limit ? f->step_used - steps * f->step_limit : 0;
        f->step_used = f->step_limit > 0 ? used : 0;
    }
}

int hv_file_rate_limit(QEMUFile *f)
{
    begin_step(f);
    return f->error || f->frozen || (f->step_limit > 0 && f->step_used >= f->step_limit);
}

int64_t hv_file_get_rate_limit(QEMUFile *f)
{
    return f->step_limit;
}

void hv_file_set_rate_limit(QEMUFile *f, int64_t bytes_per_second)
{
    int64_t limit = bytes_per_second / 10;
    f->step_limit = bytes_per_second > 0 && limit == 0 ? 1 : limit;
}

int64_t hv_file_step_left_ns(QEMUFile *f)
{
    begin_step(f);
    return f->step_start + STEP_NS - hv_clock_ns();
}

/* ---- Input ---- */

static size_t take(QEMUFile *f, uint8_t *buf, size_t size)
{
    size_t ready = f->in_end - f->in_at < size ? f->in_end - f->in_at : size;
    memcpy(buf, f->in + f->in_at, ready);
    f->in_at += ready;
    return ready;
}

/* Reads into buf, and into the empty buffer what comes along. Bytes that buf got; 0: the end, or an error. */
static size_t fill(QEMUFile *f, uint8_t *buf, size_t size)
{
    struct iovec iov[2] = { { .iov_base = buf, .iov_len = size }, { .iov_base = f->in, .iov_len = INPUT_SIZE } };
    ssize_t got;
    int ret = 0;
    while ((got = f->channel.readv(f->channel.opaque, iov, 2)) == -EAGAIN && ret == 0) {
        ret = f->channel.wait(f->channel.opaque, false);
    }
    if (got < 0) {
        channel_failed(f, ret < 0 ? ret : (int)got);
        return 0;
    }
    size_t direct = (size_t)got < size ? (size_t)got : size;
    f->in_at = 0;
    f->in_end = (size_t)got - direct;
    return direct;
}

int hv_file_get_buffer(QEMUFile *f, uint8_t *buf, int size)
{
    size_t wanted = size > 0 ? (size_t)size : 0;
    size_t got = take(f, buf, wanted);
    while (got < wanted && !f->error) {
        size_t more = fill(f, buf + got, wanted - got);
        if (more == 0 && !f->error) {
            channel_failed(f, -EPIPE);     /* more was wanted than the stream has */
        }
        got += more;
    }
    atomic_fetch_add_explicit(&f->bytes, got, memory_order_relaxed);
    return (int)got;
}

int hv_file_get_byte(QEMUFile *f)
{
    uint8_t byte = 0;
    hv_file_get_buffer(f, &byte, 1);
    return byte;
}

uint64_t hv_file_get_be64(QEMUFile *f)
{
    uint8_t bytes[8] = { 0 };
    uint64_t v = 0;
    hv_file_get_buffer(f, bytes, sizeof(bytes));
    for (int i = 0; i < 8; i++) {
        v = v << 8 | bytes[i];
    }
    return v;
}

bool hv_file_at_end(QEMUFile *f)
{
    if (f->in_at == f->in_end && !f->error) {
        fill(f, NULL, 0);
    }
    return f->in_at == f->in_end;
}

/* ---- State ---- */

int hv_file_has_error(QEMUFile *f)
{
    return f->error;
}

int hv_file_channel_error(QEMUFile *f)
{
    return f->channel_error;
}

uint64_t hv_file_bytes(QEMUFile *f)
{
    return atomic_load_explicit(&f->bytes, memory_order_relaxed);
}
