/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Time, requests in flight, and the guest. Time passes in advance() alone, so a run is the same each time. Reads
 * carry their data when they start, as if other threads had done them, and complete on this thread later, as in an
 * event loop.
 */
#include "bench.h"

#include <stdlib.h>
#include <time.h>

typedef struct Request {
    int64_t due;
    uint64_t order;
    BlockDriverState *bs;
    int64_t sector;
    int count;
    uint8_t *read_into;          /* of a disk with versions: they are those of the completion */
    BlkMigCompletion *cb;
    void *opaque;
} Request;

bool virtual_time;
int64_t now;
uint64_t max_downtime = 30 * 1000 * 1000;
Guest guest;
static Request *requests;        /* a heap: the first one is due first */
static size_t request_count, request_room;
static uint64_t request_order;

uint64_t random64(void)
{
    static uint64_t state = 0x9e3779b97f4a7c15;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

int64_t clock_ns(void)
{
    struct timespec time;

    if (virtual_time) {
        return now;
    }
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

/* ---- requests ---- */

static bool before(const Request *a, const Request *b)
{
    return a->due != b->due ? a->due < b->due : a->order < b->order;
}

static void *push(Request request)
{
    size_t at = request_count++;

    if (request_count > request_room) {
        request_room = request_count * 2;
        requests = realloc(requests, request_room * sizeof(Request));
    }
    request.order = request_order++;
    while (at > 0 && before(&request, &requests[(at - 1) / 2])) {
        requests[at] = requests[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    requests[at] = request;
    return &requests;
}

static Request pop(void)
{
    Request first = requests[0], last = requests[--request_count];
    size_t at = 0;

    for (;;) {
        size_t child = 2 * at + 1;
        if (child + 1 < request_count && before(&requests[child + 1], &requests[child])) {
            child++;
        }
        if (child >= request_count || before(&last, &requests[child])) {
            break;
        }
        requests[at] = requests[child];
        at = child;
    }
    if (request_count) {
        requests[at] = last;
    }
    return first;
}

static void complete_first(void)
{
    Request request = pop();

    if (request.read_into && request.bs->version) {
        bdrv_ops.read(request.bs, request.sector, request.read_into, request.count);
    }
    request.cb(request.opaque, 0);
}

/* The disk does one request after the other, each of which then takes its latency to arrive. */
static int64_t due(BlockDriverState *bs)
{
    int64_t start = bs->free_at > now ? bs->free_at : now;

    bs->busy_ns += bs->service_ns;
    bs->free_at = start + bs->service_ns;
    return bs->free_at + bs->latency_ns;
}

void *aio_read(BlockDriverState *bs, int64_t sector, uint8_t *buf, int count, BlkMigCompletion *cb, void *opaque)
{
    if (bs->data) {
        bdrv_ops.read(bs, sector, buf, count);
    }
    return push((Request) { .due = due(bs), .bs = bs, .sector = sector, .count = count, .read_into = buf, .cb = cb,
                            .opaque = opaque });
}

void *aio_write(BlockDriverState *bs, int64_t sector, const uint8_t *buf, int count, BlkMigCompletion *cb,
                void *opaque)
{
    bdrv_ops.write(bs, sector, buf, count);
    cb(opaque, 0);               /* memory is written at once; there are no writes in virtual time */
    return &requests;
}

/* ---- time passes ---- */

static int64_t guest_chunk(void)
{
    double random = (double)(random64() >> 11) / (double)(UINT64_C(1) << 53);

    if (guest.elsewhere_percent && (int64_t)(random64() % 100) < guest.elsewhere_percent) {
        return (int64_t)(random * (double)guest.disk->chunks);
    }
    if (guest.order == 0) {
        guest.next_chunk = (guest.next_chunk + 1) % guest.chunks;
        return guest.first + guest.next_chunk;
    }
    return guest.first + (int64_t)((guest.order == 1 ? random : random * random * random) * (double)guest.chunks);
}

static void guest_write(void)
{
    int64_t chunk = guest_chunk();

    guest.next_ns += guest.period_ns;
    guest.disk->version[chunk]++;
    if (guest.disk->tracking) {
        disk_set_dirty(guest.disk, chunk);
    }
}

bool advance_to_completion(int64_t until)
{
    int64_t first = request_count && requests[0].due <= until ? requests[0].due : until;
    bool completes = request_count && requests[0].due <= until;

    while (guest.running && guest.next_ns <= first) {
        now = guest.next_ns > now ? guest.next_ns : now;
        guest_write();
    }
    now = first > now ? first : now;
    if (completes) {
        complete_first();
    }
    return completes;
}

void advance(int64_t until)
{
    while (advance_to_completion(until)) {
    }
}

void aio_wait(void)
{
    if (request_count) {
        advance_to_completion(requests[0].due);
    }
}

void aio_flush(void)
{
    while (request_count) {
        aio_wait();
    }
}
