/* SPDX-License-Identifier: GPL-2.0-only */
/* What both sides need: their streams, a thread for the migration in the threaded style, and the reason of a
 * failure. */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "migration.h"

#define TICK_NS 100000000

int hv_open_streams(HvMigration *m)
{
    HvChannel channel = hv_net_channel(&m->socket);
    m->in = hv_file_open(&channel, true);
    m->out = hv_file_open(&channel, !m->options->stages);
    return m->in && m->out ? 0 : -ENOMEM;
}

void hv_explain(HvMigration *m, int ret)
{
    char text[1024];
    if (hv_cancelled()) {
        hv_clear_failure();
        hv_fail(ret, "cancelled");
    } else if (!hv_failure()[0] && m->module->last_error && m->module->last_error(text, sizeof(text)) > 0) {
        hv_fail(ret, "%s", text);
    }
    hv_fail(ret, "migration failed: %s", strerror(-ret));
}

/* ---- A flow on a thread of its own ---- */

typedef struct Flow {
    HvMigration *m;
    int (*run)(HvMigration *m);
    int ret;
    bool ended;
    pthread_mutex_t lock;
    pthread_cond_t change;
} Flow;

static void *flow_thread(void *opaque)
{
    Flow *flow = opaque;
    int ret = flow->run(flow->m);
    pthread_mutex_lock(&flow->lock);
    flow->ret = ret;
    flow->ended = true;
    pthread_cond_signal(&flow->change);
    pthread_mutex_unlock(&flow->lock);
    return NULL;
}

static void wait_for_flow(Flow *flow)
{
    pthread_mutex_lock(&flow->lock);
    while (!flow->ended) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += TICK_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&flow->change, &flow->lock, &until);
        if (!flow->ended) {
            hv_progress(flow->m);
        }
    }
    pthread_mutex_unlock(&flow->lock);
}

int hv_run(HvMigration *m, int (*run)(HvMigration *m))
{
    if (m->options->stages) {
        return run(m);
    }
    Flow flow = { .m = m, .run = run, .lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER };
    pthread_t thread;
    int ret = -pthread_create(&thread, NULL, flow_thread, &flow);
    if (ret < 0) {
        return ret;
    }
    wait_for_flow(&flow);
    pthread_join(thread, NULL);
    return flow.ret;
}
