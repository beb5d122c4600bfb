/* SPDX-License-Identifier: GPL-2.0-only */
/* The source, from the connection to what is said at the end; one of the two styles does what is between. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "migration.h"

#define LAST_WORDS_MS 2000                 /* that one which failed has to say why */
#define MOMENT_MS     500

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
