/* SPDX-License-Identifier: GPL-2.0-only */
/* What a source does in either style: it looks after the peer, flushes the destination, and hands the disks over. */
#include <errno.h>
#include <poll.h>

#include "migration.h"

#define SYNC_MS     300000                 /* that a destination has to bring everything to stable storage */
#define MAX_FLUSHES 5

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

/* Else the guest would stand still until a storage that is slower than the link has taken all that is in memory
 * there. Several times, since meanwhile the guest goes on writing: each time there is less. */
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
