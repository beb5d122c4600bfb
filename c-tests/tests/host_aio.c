/* SPDX-License-Identifier: GPL-2.0-only */
/* The requests and completions of the hypervisor in memory, and the errors that a test makes them return. */
#include "host_parts.h"
#include "test.h"
#include <pthread.h>
#include <time.h>

struct request {
    struct request *next;
    BlockDriverState *bs;
    int64_t sector;
    uint8_t *buf;               /* a read writes to it */
    const uint8_t *data;        /* a write reads from it */
    int nb_sectors;
    BlkMigCompletion *cb;
    void *opaque;
};

static struct {
    int at, ret;
} faults[H_CALLS];              /* at: 0: never, -1: always, otherwise the number of the call */

/* Protects the queue and what both threads count. Not held while the module is called. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct request *queue;
static int stop_worker, running, flushing;
static pthread_t worker;

void host_fail(enum host_call call, int nth, int ret)
{
    faults[call].at = nth ? host.calls[call] + nth : -1;
    faults[call].ret = ret;
}

int host_called(enum host_call call)
{
    pthread_mutex_lock(&lock);
    int n = ++host.calls[call];
    pthread_mutex_unlock(&lock);
    return faults[call].at == -1 || faults[call].at == n ? faults[call].ret : 0;
}

static int in_bounds(const BlockDriverState *bs, int64_t sector, int nb_sectors)
{
    if (sector >= 0 && nb_sectors > 0 && sector <= bs->sectors - nb_sectors) {
        return 1;
    }
    host.bad_requests++;
    return 0;
}

int host_read(BlockDriverState *bs, int64_t sector, uint8_t *buf, int nb_sectors)
{
    if (!in_bounds(bs, sector, nb_sectors)) {
        return -EIO;
    }
    if (bs->data) {
        memcpy(buf, bs->data + sector * SECTOR, (size_t)nb_sectors * SECTOR);
    }
    return host_called(H_READ_DONE);
}

static int do_write(BlockDriverState *bs, int64_t sector, const uint8_t *buf, int nb_sectors, int ret)
{
    if (!in_bounds(bs, sector, nb_sectors)) {
        return -EIO;
    }
    if (bs->read_only) {
        return -EACCES;
    }
    if (ret == 0) {
        bs->writes += nb_sectors;
        bs->unflushed += nb_sectors;
        if (bs->data && buf) {
            memcpy(bs->data + sector * SECTOR, buf, (size_t)nb_sectors * SECTOR);
        } else if (bs->data) {
            memset(bs->data + sector * SECTOR, 0, (size_t)nb_sectors * SECTOR);
        }
    }
    return ret;
}

int host_write(BlockDriverState *bs, int64_t sector, const uint8_t *buf, int nb_sectors)
{
    return do_write(bs, sector, buf, nb_sectors, host_called(H_WRITE));
}

int host_write_zeroes(BlockDriverState *bs, int64_t sector, int nb_sectors)
{
    return do_write(bs, sector, NULL, nb_sectors, host_called(H_ZEROES));
}

static void finish(struct request *r)
{
    BlkMigCompletion *cb = r->cb;
    void *opaque = r->opaque;
    int ret;

    if (r->data) {
        ret = do_write(r->bs, r->sector, r->data, r->nb_sectors, host_called(H_WRITE_DONE));
    } else {
        if (host.late_data && r->bs->data) {
            memcpy(r->buf, r->bs->data + r->sector * SECTOR, (size_t)r->nb_sectors * SECTOR);
        }
        ret = host_called(H_READ_DONE);
    }
    if (ret == 0 && r->bs->length < 0) {
        ret = (int)r->bs->length;
    }
    pthread_mutex_lock(&lock);
    host.unheld += r->bs->refs == 0;
    if (!r->data) {
        r->bs->reading[r->sector / CHUNK_SECTORS]--;
    }
    host.now += host.latency;
    pthread_mutex_unlock(&lock);
    free(r);
    cb(opaque, ret);
    if (host.twice) {
        cb(opaque, ret);
    }
    pthread_mutex_lock(&lock);
    host.in_flight--;           /* only now, so that a flush waits for cb to return */
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static struct request *next_request(void)
{
    struct request **p = &queue, *r;

    while (host.lifo && *p && (*p)->next) {
        p = &(*p)->next;
    }
    r = *p;
    if (r) {
        *p = r->next;
    }
    return r;
}

int host_complete(int max)
{
    int done = 0;

    while (done < max) {
        pthread_mutex_lock(&lock);
        struct request *r = next_request();
        pthread_mutex_unlock(&lock);
        if (!r) {
            break;
        }
        finish(r);
        done++;
    }
    return done;
}

static void submit(struct request *r)
{
    struct request **end = &queue;

    pthread_mutex_lock(&lock);
    host.in_flight++;
    if (host.in_flight > host.most_in_flight) {
        host.most_in_flight = host.in_flight;
    }
    if (host.aio == HOST_INLINE) {
        pthread_mutex_unlock(&lock);
        finish(r);
        return;
    }
    while (*end) {
        end = &(*end)->next;
    }
    *end = r;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static struct request *new_request(BlockDriverState *bs, int64_t sector, int nb_sectors, BlkMigCompletion *cb,
                                   void *opaque)
{
    struct request *r = calloc(1, sizeof(*r));

    r->bs = bs;
    r->sector = sector;
    r->nb_sectors = nb_sectors;
    r->cb = cb;
    r->opaque = opaque;
    return r;
}

void *host_aio_read(BlockDriverState *bs, int64_t sector, uint8_t *buf, int nb_sectors, BlkMigCompletion *cb,
                    void *opaque)
{
    struct request *r;

    host.misaligned += (uintptr_t)buf % 4096 != 0;
    if (host_called(H_AIO_READ) || !in_bounds(bs, sector, nb_sectors)) {
        if (host.null_then_cb) {
            cb(opaque, 0);
        }
        return NULL;
    }
    r = new_request(bs, sector, nb_sectors, cb, opaque);
    r->buf = buf;
    if (!host.late_data && bs->data) {
        memcpy(buf, bs->data + sector * SECTOR, (size_t)nb_sectors * SECTOR);
    }
    pthread_mutex_lock(&lock);
    host.overlaps += bs->reading[sector / CHUNK_SECTORS]++ != 0;
    pthread_mutex_unlock(&lock);
    if (host.on_read) {
        host.on_read(bs, sector);
    }
    submit(r);
    return &host;
}

void *host_aio_write(BlockDriverState *bs, int64_t sector, const uint8_t *buf, int nb_sectors, BlkMigCompletion *cb,
                     void *opaque)
{
    struct request *r;

    if (host_called(H_AIO_WRITE) || !in_bounds(bs, sector, nb_sectors)) {
        return NULL;
    }
    r = new_request(bs, sector, nb_sectors, cb, opaque);
    r->data = buf;
    if (host.on_write) {
        host.on_write(bs, sector);
    }
    submit(r);
    return &host;
}

/* Waits until no more than `left` requests are in flight. */
static void wait_for(int left)
{
    if (host.aio != HOST_THREAD) {
        host_complete(host.in_flight - left);
        return;
    }
    pthread_mutex_lock(&lock);
    flushing++;
    pthread_cond_broadcast(&changed);
    while (host.in_flight > left) {
        pthread_cond_wait(&changed, &lock);
    }
    flushing--;
    pthread_mutex_unlock(&lock);
}

void host_aio_flush(void)
{
    host_called(H_FLUSH);
    if (!host.lying_flush) {
        wait_for(0);
    }
}

void host_aio_wait(void)
{
    host_called(H_WAIT);
    pthread_mutex_lock(&lock);
    int before = host.in_flight;
    pthread_mutex_unlock(&lock);
    if (before) {
        wait_for(before - 1);
    }
}

static void *work(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&lock);
    while (!stop_worker) {
        struct request *r = host.hold && !flushing ? NULL : next_request();

        if (!r) {
            pthread_cond_wait(&changed, &lock);
            continue;
        }
        pthread_mutex_unlock(&lock);
        nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
        finish(r);
        pthread_mutex_lock(&lock);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

void host_start_worker(void)
{
    running = 1;
    ok(pthread_create(&worker, NULL, work, NULL));
}

void host_wake_worker(void)
{
    pthread_mutex_lock(&lock);
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

void host_stop_worker(void)
{
    if (!running) {
        return;
    }
    pthread_mutex_lock(&lock);
    stop_worker = 1;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    pthread_join(worker, NULL);
}
