/* SPDX-License-Identifier: GPL-2.0-only */
/* How fast a migration gets on, and when it may end. */
#ifndef HV_ESTIMATE_H
#define HV_ESTIMATE_H

#include <stdint.h>

typedef enum HvState { HV_RUNNING, HV_NOT_CONVERGING, HV_STALLED } HvState;

typedef struct HvEstimate {
    int64_t at_ns, lowest_ns;
    uint64_t bytes, left;                  /* on the wire, and still to be sent, at at_ns */
    uint64_t lowest_bytes, lowest;         /* the same when least was left, at lowest_ns */
    double rate, fall;                     /* bytes a second: on the wire, and by which what is left gets less */
} HvEstimate;

void hv_estimate_start(HvEstimate *e, int64_t now, uint64_t left);
void hv_estimate_update(HvEstimate *e, int64_t now, uint64_t bytes, uint64_t left);
HvState hv_estimate_state(const HvEstimate *e);
/* Until no more is left than the link takes in max_downtime_ns; < 0: there is no telling. */
double hv_estimate_seconds(const HvEstimate *e, uint64_t max_downtime_ns);

#endif
