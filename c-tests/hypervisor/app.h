/* SPDX-License-Identifier: GPL-2.0-only */
/* The program around the hypervisor: one migration, from the command line to the exit status. */
#ifndef HV_APP_H
#define HV_APP_H

#include "hv.h"

#define HV_MAX_DISKS 64

typedef struct HvStats {
    uint64_t total, transferred, remaining, dirty, resent, zeroes;   /* the last two in chunks, the others in bytes */
} HvStats;

typedef struct HvOptions HvOptions;

/* What migrates the disks. It registers its section with hv_register_savevm_live in init. */
typedef struct HvModule {
    const char *name;
    int (*init)(const HvOptions *options);                                   /* 0, or -errno with hv_fail */
    int (*setup)(QEMUFile *f, void *opaque);                                 /* NULL: knows the stages alone */
    int (*iterate)(QEMUFile *f, void *opaque);
    int (*complete)(QEMUFile *f, void *opaque);
    uint64_t (*pending)(void *opaque, uint64_t threshold);                   /* more than threshold: the guest runs on */
    void (*cleanup)(void *opaque);
    void (*get_stats)(HvStats *stats);
    size_t (*last_error)(char *buf, size_t size);                            /* NULL: keeps none */
} HvModule;

int hv_main(int argc, char **argv, const HvModule *module);

/* ---- Command line (options.c, disk_option.c) ---- */

struct HvOptions {
    const char *connect, *listen;
    HvDiskSpec disks[HV_MAX_DISKS];
    int disk_count;
    int64_t bandwidth;                     /* bytes a second; 0: no limit */
    int64_t max_downtime_ms, timeout_ms, wait_ms;
    double guest_mb;
    uint32_t max_buffers;                  /* 0: the module's default */
    bool zero_blocks, zero_blocks_given, accept_tail_garbage, shared_base, stages, raw, json, quiet, verbose;
};

/* 1: go on; 0: help or version was printed; -EINVAL with hv_fail. */
int hv_parse_options(int argc, char **argv, HvOptions *options);
void hv_free_options(HvOptions *options);
int hv_parse_disk(const char *text, HvDiskSpec *disk);
void hv_free_disk(HvDiskSpec *disk);

/* ---- Sockets, and Ctrl-C (net.c) ---- */

typedef struct HvSocket {
    int fd;
    int64_t timeout_ms;                    /* that a read or write waits for the peer at most */
    bool peer_is_quiet;                    /* a word from the peer ends writes: it can only mean failure */
} HvSocket;

void hv_catch_signals(void);
int hv_cancelled(void);                    /* the signal, or 0 */

/* Waits for poll events; 0: none in time; -ECANCELED. */
int hv_poll(int fd, short events, int64_t timeout_ms);
int hv_net_listen(const char *address, char *actual, size_t size);
int hv_net_accept(int listener, const char *address, int64_t timeout_ms);
int hv_net_connect(const char *address, int64_t timeout_ms);
void hv_net_unlink(const char *address);
HvChannel hv_net_channel(HvSocket *socket);

/* ---- What the two sides say to each other around the module's sections (protocol.c) ---- */

typedef enum HvFrame { HV_START = 'S', HV_PART = 'P', HV_LAST = 'L', HV_END = 'E', HV_GO = 'G', HV_FLUSH = 'Y' } HvFrame;

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

int hv_send_hello(HvMigration *m);         /* and reads the answer */
int hv_receive_hello(HvMigration *m);      /* and answers, unless it fails */
void hv_send_ready(HvMigration *m);
void hv_send_failure(HvMigration *m, const char *text);
int hv_receive_verdict(HvMigration *m, int64_t timeout_ms);   /* 0: ready; else with hv_fail if there was one */

/* ---- The flow of each side: 0, or -errno with the reason in hv_failure() and the guest running again ---- */

int hv_source(HvMigration *m);             /* source.c */
int hv_save_stages(HvMigration *m);        /* stages.c */
int hv_save_threaded(HvMigration *m);      /* threaded.c */
int hv_destination(HvMigration *m);        /* destination.c */

void hv_put_frame(HvMigration *m, HvFrame frame);
int hv_source_check(HvMigration *m);       /* 0, or why to stop */
/* When the module could finish: 1: the guest may be stopped; 0: the destination has brought what it had to stable storage,
 * so ask the module again. */
int hv_settle(HvMigration *m);
void hv_stop_guest(HvMigration *m);        /* from here on it is downtime */
int hv_hand_over(HvMigration *m);

int hv_open_streams(HvMigration *m);
/* On this thread, or on one of its own while this one shows the progress: whatever the style says. */
int hv_run(HvMigration *m, int (*flow)(HvMigration *m));
/* Sees to it that hv_failure() says why, from what is known. */
void hv_explain(HvMigration *m, int ret);

/* ---- What a migration looks like (estimate.c) ---- */

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

/* ---- What it says: text or JSON on stdout, errors on stderr ---- */

void hv_progress(HvMigration *m);          /* progress.c: shows it, if it is time to */
void hv_progress_end(void);

/* report.c */
void hv_report_listening(const HvOptions *options, const char *address);
void hv_report_completed(HvMigration *m);
void hv_report_failed(const HvOptions *options);
int hv_exit_status(void);                  /* of a failure */

/* json.c: an object a line */
void hv_json_begin(const HvOptions *options, const char *event);
void hv_json_string(const char *key, const char *text);
void hv_json_integer(const char *key, uint64_t value);
void hv_json_number(const char *key, double value);          /* < 0: null */
void hv_json_end(void);

#endif
