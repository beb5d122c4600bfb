/* SPDX-License-Identifier: GPL-2.0-only */
/* The style of later hypervisors: a thread for the migration, which may block, and a function for each phase. */
#include <errno.h>
#include <poll.h>

#include "migration.h"

#define WINDOW_NS INT64_C(100000000)

typedef struct Speed {
    int64_t since_ns;
    uint64_t since_bytes, bytes_per_second;
} Speed;

static void measure(Speed *speed, QEMUFile *f)
{
    int64_t passed = hv_clock_ns() - speed->since_ns;
    if (passed >= WINDOW_NS) {
        uint64_t bytes = hv_file_bytes(f);
        speed->bytes_per_second = (uint64_t)((double)(bytes - speed->since_bytes) * 1e9 / (double)passed);
        speed->since_bytes = bytes;
        speed->since_ns += passed;
    }
}

static bool can_finish(HvMigration *m, const Speed *speed)
{
    uint64_t limit = (uint64_t)((double)speed->bytes_per_second * (double)hv_max_downtime_ns() / 1e9);
    return m->module->pending(hv_section()->opaque, limit) <= limit;
}

static int iterate(HvMigration *m)
{
    int64_t left_ns = hv_file_step_left_ns(m->out);
    if (hv_file_rate_limit(m->out)) {
        int events = hv_poll(m->socket.fd, POLLIN, left_ns / 1000000 + 1);
        return events < 0 ? events : 0;
    }
    hv_put_frame(m, HV_PART);
    int sent = m->module->iterate(m->out, hv_section()->opaque);
    hv_file_flush(m->out);
    return sent < 0 ? sent : 0;
}

static int complete(HvMigration *m)
{
    hv_stop_guest(m);
    hv_put_frame(m, HV_LAST);
    int ret = m->module->complete(m->out, hv_section()->opaque);
    return ret < 0 ? ret : hv_hand_over(m);
}

/* Until the guest may be stopped. */
static int iterate_all(HvMigration *m)
{
    Speed speed = { .since_ns = hv_clock_ns() };
    int ret = 0;
    while (ret == 0) {
        if (can_finish(m, &speed)) {
            ret = hv_settle(m);
            speed.since_ns = hv_clock_ns();          /* nothing was sent meanwhile, which says nothing of the link */
            speed.since_bytes = hv_file_bytes(m->out);
        } else {
            ret = iterate(m);
            measure(&speed, m->out);
        }
        ret = ret ? ret : hv_source_check(m);
    }
    return ret < 0 ? ret : 0;
}

int hv_save_threaded(HvMigration *m)
{
    void *opaque = hv_section()->opaque;
    hv_put_frame(m, HV_START);
    int ret = m->module->setup(m->out, opaque);
    hv_file_flush(m->out);
    ret = ret ? ret : hv_source_check(m);
    ret = ret ? ret : iterate_all(m);
    ret = ret ? ret : complete(m);
    m->module->cleanup(opaque);
    return ret;
}
