/* SPDX-License-Identifier: GPL-2.0-only */
/* The outgoing side: what both styles share, from the connection to the last word. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "app.h"

#define SYNC_MS       300000               /* that a destination has to bring everything to stable storage */
#define LAST_WORDS_MS 2000                 /* that one which failed has to say why */
#define MOMENT_MS     500
#define MAX_FLUSHES   5

void hv_put_frame(HvMigration *m, HvFrame frame)
{
    if (!m->options->raw) {
        hv_file_put_byte(m->out, frame);
    }
}

int hv_source_check(HvMigration *m)
{
    if (hv_cancelled()) {
        return -ECANCELED;
    }
    if (hv_file_has_error(m->out)) {
        return hv_file_has_error(m->out);
    }
    int events = hv_poll(m->socket.fd, POLLIN, 0);
    return events < 0 ? events : events > 0 ? -ECONNABORTED : 0;
}

/* Else the guest would stand still until a storage that is slower than the link has taken all that is in memory there. Several
 * times, since meanwhile the guest goes on writing: each time there is less. */
int hv_settle(HvMigration *m)
{
    if (m->options->raw || m->settled) {
        return 1;
    }
    int64_t start = hv_clock_ns();
    hv_put_frame(m, HV_FLUSH);
    hv_file_drain(m->out);
    int ret = hv_file_has_error(m->out);
    ret = ret ? ret : hv_receive_verdict(m, SYNC_MS);
    m->flushes++;
    m->settled = (uint64_t)(hv_clock_ns() - start) <= hv_max_downtime_ns() / 2 || m->flushes == MAX_FLUSHES;
    return ret;
}

void hv_stop_guest(HvMigration *m)
{
    m->stop_ns = hv_clock_ns();
    hv_vm_stop();
}

int hv_hand_over(HvMigration *m)
{
    hv_put_frame(m, HV_END);
    hv_file_drain(m->out);
    int ret = hv_file_has_error(m->out);   /* no check of the peer: it may have its answer ready by now */
    if (ret < 0 || m->options->raw) {
        return ret;
    }
    ret = hv_receive_verdict(m, SYNC_MS);
    ret = ret ? ret : hv_source_check(m);  /* it may have given up since it said that */
    if (ret == 0) {
        hv_put_frame(m, HV_GO);
        hv_file_drain(m->out);
        ret = hv_file_has_error(m->out);
    }
    return ret;
}

/* A connection that failed says little; the destination may have said more before. */
static void explain(HvMigration *m, int ret)
{
    int broken = m->out ? hv_file_channel_error(m->out) : 0;
    broken = ret == -ECONNABORTED ? ret : broken ? broken : m->in ? hv_file_channel_error(m->in) : 0;
    if (!hv_cancelled() && m->in && broken) {
        hv_clear_failure();
        if (m->options->raw || (hv_file_channel_error(m->in) == 0 && hv_receive_verdict(m, LAST_WORDS_MS) == 0)
            || !hv_failure()[0]) {
            hv_fail(ret, broken == -ETIMEDOUT ? "the destination does not answer" : "the destination went away");
        }
    }
    hv_explain(m, ret);
}

static int migrate(HvMigration *m)
{
    const HvSection *section = hv_section();
    m->socket.fd = hv_net_connect(m->options->connect, m->options->timeout_ms);
    if (m->socket.fd < 0) {
        return m->socket.fd;
    }
    m->socket.peer_is_quiet = true;
    int ret = hv_open_streams(m);
    if (ret == 0 && !m->options->raw) {
        ret = hv_send_hello(m);
    }
    if (ret < 0) {
        return ret;
    }
    section->set_params(1, m->options->shared_base, section->opaque);
    hv_file_set_rate_limit(m->out, m->options->bandwidth);
    m->start_ns = hv_clock_ns();
    ret = hv_run(m, m->options->stages ? hv_save_stages : hv_save_threaded);
    m->end_ns = hv_clock_ns();
    hv_progress_end();
    return ret;
}

/* The source is unharmed: shows that its guest runs. */
static void go_on(const HvOptions *options)
{
    uint64_t before = hv_guest_written();
    if (options->json || options->quiet) {
        return;
    }
    if (options->guest_mb > 0) {
        usleep(MOMENT_MS * 1000);
        printf("the guest goes on here: it wrote %.1f MiB in %d ms\n",
               (double)(hv_guest_written() - before) / (1 << 20), MOMENT_MS);
    } else {
        printf("the guest goes on here\n");
    }
    fflush(stdout);
}

int hv_source(HvMigration *m)
{
    int ret = hv_guest_start(m->options->guest_mb);
    if (ret < 0) {
        hv_fail(ret, "cannot start the guest: %s", strerror(-ret));
    } else {
        ret = migrate(m);
    }
    if (ret < 0) {
        explain(m, ret);
        hv_vm_start();
        hv_report_failed(m->options);
        go_on(m->options);
    } else {
        hv_report_completed(m);
    }
    hv_guest_end();
    return ret;
}
