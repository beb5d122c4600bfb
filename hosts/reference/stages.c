/* SPDX-License-Identifier: GPL-2.0-only */
/* The style of 2011: one thread for everything, an event loop, and save_live called once for each step. */
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "migration.h"

/* Until a read has ended, the link takes data again, or the next step begins. */
static void wait_for_events(HvMigration *m)
{
    struct pollfd fds[2] = {
        { .fd = hv_aio_fd(), .events = POLLIN },
        { .fd = m->socket.fd, .events = (short)(POLLIN | (hv_file_frozen(m->out) ? POLLOUT : 0)) },
    };
    int64_t left_ns = hv_file_step_left_ns(m->out);
    poll(fds, 2, (int)(left_ns / 1000000) + 1);
    hv_aio_run();
    if (hv_file_frozen(m->out)) {
        hv_file_flush(m->out);
    }
}

/* 1: the module is ready for its last stage. */
static int next_step(HvMigration *m, const HvSection *section)
{
    if (hv_file_rate_limit(m->out)) {
        return 0;
    }
    hv_put_frame(m, HV_PART);
    int done = section->save_live(m->monitor, m->out, 2, section->opaque);
    hv_file_flush(m->out);
    return done && !hv_file_has_error(m->out);
}

/* A link that has taken nothing for so long is as good as dead. */
static int check_stall(HvMigration *m, int64_t *moved_ns)
{
    if (!hv_file_frozen(m->out)) {
        *moved_ns = hv_clock_ns();
    }
    bool dead = hv_clock_ns() - *moved_ns > m->options->timeout_ms * 1000000;
    return dead ? hv_fail(-ETIMEDOUT, "the destination does not answer") : 0;
}

int hv_save_stages(HvMigration *m)
{
    const HvSection *section = hv_section();
    int64_t moved_ns = hv_clock_ns();
    int ready = 0;
    hv_put_frame(m, HV_START);
    section->save_live(m->monitor, m->out, 1, section->opaque);
    hv_file_flush(m->out);
    int ret = hv_source_check(m);
    while (ret == 0 && !ready) {
        if (next_step(m, section)) {
            ret = hv_settle(m);
            ready = ret > 0;
            ret = ready ? 0 : ret;
        } else {
            wait_for_events(m);
            hv_progress(m);
            ret = check_stall(m, &moved_ns);
        }
        ret = ret ? ret : hv_source_check(m);
    }
    if (ret == 0) {
        hv_stop_guest(m);
        hv_put_frame(m, HV_LAST);
        section->save_live(m->monitor, m->out, 3, section->opaque);
        ret = hv_file_has_error(m->out);
        ret = ret ? ret : hv_hand_over(m);
    }
    if (ret < 0) {
        section->save_live(m->monitor, m->out, -1, section->opaque);
    }
    return ret;
}
