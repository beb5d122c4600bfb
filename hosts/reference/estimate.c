/* SPDX-License-Identifier: GPL-2.0-only */
/* How fast a migration gets on, and whether it gets on at all while the guest writes. */
#include <stdbool.h>

#include "estimate.h"

#define SMOOTH_NS   1e9                    /* what happened so long ago counts little */
#define PATIENCE_NS INT64_C(3000000000)
#define CHUNK       (UINT64_C(1) << 20)
#define NOTHING     65536                  /* bytes on the wire in that time: no data among them */

void hv_estimate_start(HvEstimate *e, int64_t now, uint64_t left)
{
    *e = (HvEstimate){ .at_ns = now, .lowest_ns = now, .left = left, .lowest = left };
}

static void smooth(double *average, double value, double passed_ns, bool first)
{
    double weight = first ? 1 : passed_ns / (passed_ns + SMOOTH_NS);
    *average += (value - *average) * weight;
}

void hv_estimate_update(HvEstimate *e, int64_t now, uint64_t bytes, uint64_t left)
{
    double passed = (double)(now - e->at_ns);
    bool first = e->bytes == 0;
    if (passed <= 0) {
        return;
    }
    smooth(&e->rate, (double)(bytes - e->bytes) * 1e9 / passed, passed, first);
    smooth(&e->fall, ((double)e->left - (double)left) * 1e9 / passed, passed, first);
    if (left + CHUNK <= e->lowest) {
        e->lowest = left;
        e->lowest_ns = now;
        e->lowest_bytes = bytes;
    }
    e->at_ns = now;
    e->bytes = bytes;
    e->left = left;
}

HvState hv_estimate_state(const HvEstimate *e)
{
    if (e->at_ns - e->lowest_ns < PATIENCE_NS || e->left < CHUNK) {
        return HV_RUNNING;
    }
    return e->bytes - e->lowest_bytes < NOTHING ? HV_STALLED : HV_NOT_CONVERGING;
}

double hv_estimate_seconds(const HvEstimate *e, uint64_t max_downtime_ns)
{
    double more = (double)e->left - e->rate * (double)max_downtime_ns / 1e9;
    if (hv_estimate_state(e) != HV_RUNNING || e->fall <= 0) {
        return -1;
    }
    return more > 0 ? more / e->fall : 0;
}
