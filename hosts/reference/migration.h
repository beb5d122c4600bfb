/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One migration. The sections stand from the bottom to the top: the functions of one call only those of the sections
 * above it, and those of the headers that are included here.
 */
#ifndef HV_MIGRATION_H
#define HV_MIGRATION_H

#include "frames.h"
#include "module.h"
#include "net.h"

typedef struct HvMigration {
    const HvOptions *options;
    const HvModule *module;
    HvSocket socket;
    QEMUFile *out, *in;
    Monitor *monitor;
    int64_t start_ns, stop_ns, end_ns;
    int flushes;                           /* while the guest ran */
    bool settled;                          /* the last of them took little time */
} HvMigration;

/* ---- What the user sees: text or JSON on stdout, errors on stderr (report.c, progress.c) ---- */

void hv_report_listening(const HvOptions *options, const char *address);
void hv_report_completed(HvMigration *m);
void hv_report_failed(const HvOptions *options);
int hv_exit_status(void);                  /* of a failure */
void hv_report_json(const HvOptions *options, const char *event);   /* begins an object */
void hv_progress(HvMigration *m);          /* shows it, if it is time to */
void hv_progress_end(void);

/* ---- What both sides need to run (flow.c) ---- */

int hv_open_streams(HvMigration *m);
/* On this thread, or on one of its own while this one shows the progress: whatever the style says. */
int hv_run(HvMigration *m, int (*flow)(HvMigration *m));
/* Sees to it that hv_failure() says why, from what is known. */
void hv_explain(HvMigration *m, int ret);

/* ---- What the two sides say to each other around the module's sections (protocol.c) ---- */

int hv_send_hello(HvMigration *m);         /* and reads the answer */
int hv_receive_hello(HvMigration *m);      /* and answers, unless it fails */
void hv_send_ready(HvMigration *m);
void hv_send_failure(HvMigration *m, const char *text);
int hv_receive_verdict(HvMigration *m, int64_t timeout_ms);   /* 0: ready; else with hv_fail if there was one */
void hv_put_frame(HvMigration *m, HvFrame frame);

/* ---- The source's steps, in either style (handover.c) ---- */

int hv_source_check(HvMigration *m);       /* 0, or why to stop */
/* When the module could finish: 1: the guest may be stopped; 0: the destination has brought what it had to stable
 * storage, so ask the module again. */
int hv_settle(HvMigration *m);
void hv_stop_guest(HvMigration *m);        /* from here on it is downtime */
int hv_hand_over(HvMigration *m);

/* ---- The flow of each side: 0, or -errno with the reason in hv_failure() and the guest running again ---- */

int hv_save_stages(HvMigration *m);        /* stages.c */
int hv_save_threaded(HvMigration *m);      /* threaded.c */
int hv_source(HvMigration *m);             /* source.c: one of these two */
int hv_destination(HvMigration *m);        /* destination.c */

#endif
