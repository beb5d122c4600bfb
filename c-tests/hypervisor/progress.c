/* SPDX-License-Identifier: GPL-2.0-only */
/* What the user sees of a migration: a bar on a terminal, a line a second elsewhere, and a summary. */
#include <string.h>
#include <unistd.h>

#include "app.h"

#define BAR_NS   INT64_C(200000000)
#define LINE_NS  INT64_C(1000000000)
#define BAR_SIZE 24
#define MIB      1048576.0

static struct {
    int64_t shown_ns;
    uint64_t shown_bytes;
    double rate;                           /* bytes a second on the wire, smoothed */
    bool bar_drawn;
} shown;

static void update_rate(uint64_t bytes, int64_t now, int64_t passed)
{
    double rate = (double)(bytes - shown.shown_bytes) * 1e9 / (double)passed;
    shown.rate = shown.rate > 0 ? (shown.rate + rate) / 2 : rate;
    shown.shown_ns = now;
    shown.shown_bytes = bytes;
}

static void source_line(HvMigration *m, char *text, size_t size)
{
    HvStats stats = { .total = 0 };
    char left[32] = "", bar[BAR_SIZE + 1];
    m->module->get_stats(&stats);
    double part = stats.total > 0 ? (double)stats.transferred / (double)stats.total : 1;
    int filled = (int)(part * BAR_SIZE);
    memset(bar, '.', BAR_SIZE);
    memset(bar, '#', (size_t)filled);
    bar[BAR_SIZE] = '\0';
    if (shown.rate > 0) {
        snprintf(left, sizeof(left), "   %.0f s left", (double)(stats.remaining + stats.dirty) / shown.rate + 0.5);
    }
    snprintf(text, size, "[%s] %3d %%   %.0f MiB/s   dirty %.0f MiB%s", bar, (int)(part * 100), shown.rate / MIB,
             (double)stats.dirty / MIB, left);
}

static void destination_line(HvMigration *m, char *text, size_t size)
{
    char info[128];
    hv_last_info(info, sizeof(info));
    snprintf(text, size, "received %.0f MiB   %.0f MiB/s%s%s", (double)hv_file_bytes(m->in) / MIB, shown.rate / MIB,
             info[0] ? "   " : "", info);
}

void hv_progress(HvMigration *m)
{
    char text[256];
    bool terminal = isatty(STDOUT_FILENO);
    int64_t now = hv_clock_ns();
    int64_t passed = now - (shown.shown_ns ? shown.shown_ns : m->start_ns);
    if (passed < (terminal ? BAR_NS : LINE_NS)) {
        return;
    }
    update_rate(hv_file_bytes(m->options->connect ? m->out : m->in), now, passed);
    if (m->options->connect) {
        source_line(m, text, sizeof(text));
    } else {
        destination_line(m, text, sizeof(text));
    }
    printf(terminal ? HV_CLEAR_LINE "%s" : "%s\n", text);
    fflush(stdout);
    shown.bar_drawn = terminal;
}

void hv_progress_end(void)
{
    if (shown.bar_drawn) {
        printf(HV_CLEAR_LINE);
        fflush(stdout);
    }
}

/* Not getrusage: that counts what the process was before it became this program. */
static long peak_memory_mib(void)
{
    char line[128];
    long kib = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof(line), status) && sscanf(line, "VmHWM: %ld", &kib) != 1) {
    }
    if (status) {
        fclose(status);
    }
    return kib / 1024;
}

static void source_summary(HvMigration *m, double seconds)
{
    HvStats stats = { .total = 0 };
    m->module->get_stats(&stats);
    if (m->options->raw) {
        printf("sent everything; with --raw, nobody has said that it arrived\n");
    } else {
        printf("migration completed\n");
    }
    printf("  time              %.2f s\n", seconds);
    printf("  rate              %.1f MiB/s\n", (double)stats.total / MIB / seconds);
    printf("  on the wire       %.1f MiB for disks of %.1f MiB\n", (double)hv_file_bytes(m->out) / MIB,
           (double)stats.total / MIB);
    printf("  chunks sent again %llu\n", (unsigned long long)stats.resent);
    printf("  guest wrote       %.1f MiB meanwhile\n", (double)hv_guest_written() / MIB);
    printf("  downtime          %.0f ms (asked for at most %lld ms)\n", (double)(m->end_ns - m->stop_ns) / 1e6,
           (long long)m->options->max_downtime_ms);
}

void hv_summary(HvMigration *m)
{
    double seconds = (double)(m->end_ns - m->start_ns) / 1e9;
    if (m->options->connect) {
        source_summary(m, seconds);
    } else {
        printf("migration completed: the disks belong to this side now\n");
        printf("  time              %.2f s\n", seconds);
        printf("  received          %.1f MiB\n", (double)hv_file_bytes(m->in) / MIB);
    }
    printf("  memory            %ld MiB at most\n", peak_memory_mib());
    fflush(stdout);
}
