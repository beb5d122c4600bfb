/* SPDX-License-Identifier: GPL-2.0-only */
/* A pool of threads that do reads and writes, and the two ways to hear of their end. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "hv.h"

#define MAX_THREADS 8

typedef struct Request {
    BlockDriverState *bs;
    bool write;
    int64_t sector;
    uint8_t *buf;
    int nb_sectors, ret;
    HvCompletion *cb;
    void *opaque;
    struct Request *next;
} Request;

typedef struct Queue {
    Request *head, **end;
} Queue;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    pthread_t threads[MAX_THREADS];
    int started, idle, in_flight, event_fd;
    uint64_t completions;
    bool threaded, ending;
    Queue waiting, finished;               /* finished: event loop style alone */
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER,
           .event_fd = -1 };

static void push(Queue *queue, Request *request)
{
    request->next = NULL;
    *queue->end = request;
    queue->end = &request->next;
}

static Request *pop(Queue *queue)
{
    Request *request = queue->head;
    if (request && !(queue->head = request->next)) {
        queue->end = &queue->head;
    }
    return request;
}

/* Called and returns with the lock held; the callback itself runs without it. A request counts as in flight until its
 * callback has returned, so that nothing is left running after a flush. */
static void complete(Request *request)
{
    pthread_mutex_unlock(&pool.lock);
    request->cb(request->opaque, request->ret);
    free(request);
    pthread_mutex_lock(&pool.lock);
    pool.in_flight--;
    pool.completions++;
    pthread_cond_broadcast(&pool.done);
}

static void hand_over(Request *request)
{
    uint64_t one = 1;
    push(&pool.finished, request);
    pthread_cond_broadcast(&pool.done);
    if (write(pool.event_fd, &one, sizeof(one)) < 0) {
        return;                            /* the counter is full: it is readable all the same */
    }
}

static void *worker(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        Request *request = pop(&pool.waiting);
        if (!request && pool.ending) {
            break;
        }
        if (!request) {
            pool.idle++;
            pthread_cond_wait(&pool.work, &pool.lock);
            pool.idle--;
            continue;
        }
        pthread_mutex_unlock(&pool.lock);
        request->ret = request->write
            ? hv_disk_write(request->bs, request->sector, request->buf, request->nb_sectors)
            : hv_disk_read(request->bs, request->sector, request->buf, request->nb_sectors);
        pthread_mutex_lock(&pool.lock);
        if (pool.threaded) {
            complete(request);
        } else {
            hand_over(request);
        }
    }
    pthread_mutex_unlock(&pool.lock);
    return NULL;
}

int hv_aio_start(bool threaded)
{
    pool.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pool.event_fd < 0) {
        return -errno;
    }
    pool.threaded = threaded;
    pool.ending = false;
    pool.waiting = (Queue){ .end = &pool.waiting.head };
    pool.finished = (Queue){ .end = &pool.finished.head };
    return 0;
}

void hv_aio_stop(void)
{
    if (pool.event_fd < 0) {
        return;
    }
    hv_aio_flush();
    pthread_mutex_lock(&pool.lock);
    pool.ending = true;
    pthread_cond_broadcast(&pool.work);
    pthread_mutex_unlock(&pool.lock);
    while (pool.started > 0) {
        pthread_join(pool.threads[--pool.started], NULL);
    }
    close(pool.event_fd);
    pool.event_fd = -1;
}

static void *submit(Request request)
{
    Request *copy = malloc(sizeof(*copy));
    if (!copy) {
        return NULL;
    }
    *copy = request;
    pthread_mutex_lock(&pool.lock);
    if (pool.idle == 0 && pool.started < MAX_THREADS
        && pthread_create(&pool.threads[pool.started], NULL, worker, NULL) == 0) {
        pool.started++;
    }
    if (pool.started == 0) {
        pthread_mutex_unlock(&pool.lock);
        free(copy);
        return NULL;
    }
    push(&pool.waiting, copy);
    pool.in_flight++;
    pthread_cond_signal(&pool.work);
    pthread_mutex_unlock(&pool.lock);
    return copy;
}

void *hv_aio_read(BlockDriverState *bs, int64_t sector, uint8_t *buf, int nb_sectors, HvCompletion *cb, void *opaque)
{
    return submit((Request){ .bs = bs, .write = false, .sector = sector, .buf = buf, .nb_sectors = nb_sectors,
                             .cb = cb, .opaque = opaque });
}

void *hv_aio_write(BlockDriverState *bs, int64_t sector, const uint8_t *buf, int nb_sectors, HvCompletion *cb,
                   void *opaque)
{
    return submit((Request){ .bs = bs, .write = true, .sector = sector, .buf = (uint8_t *)buf,
                             .nb_sectors = nb_sectors, .cb = cb, .opaque = opaque });
}

/* With the lock held. */
static void run_finished(void)
{
    uint64_t count;
    if (read(pool.event_fd, &count, sizeof(count)) < 0) {
        count = 0;                         /* nothing was written since the last time */
    }
    for (Request *request; (request = pop(&pool.finished)) != NULL; ) {
        complete(request);
    }
}

void hv_aio_run(void)
{
    pthread_mutex_lock(&pool.lock);
    run_finished();
    pthread_mutex_unlock(&pool.lock);
}

/* With the lock held: until a callback has run since `seen`, or nothing is left that could. */
static void wait_beyond(uint64_t seen)
{
    while (pool.in_flight > 0 && pool.completions == seen) {
        if (pool.finished.head) {
            run_finished();
        } else {
            pthread_cond_wait(&pool.done, &pool.lock);
        }
    }
}

void hv_aio_wait(void)
{
    pthread_mutex_lock(&pool.lock);
    wait_beyond(pool.completions);
    pthread_mutex_unlock(&pool.lock);
}

void hv_aio_flush(void)
{
    pthread_mutex_lock(&pool.lock);
    while (pool.in_flight > 0) {
        wait_beyond(pool.completions);
    }
    pthread_mutex_unlock(&pool.lock);
}

int hv_aio_fd(void)
{
    return pool.event_fd;
}
