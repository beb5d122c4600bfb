/* SPDX-License-Identifier: GPL-2.0-only */
/* What the user sees while a migration runs: on a terminal one line that changes, elsewhere a line now and then. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "estimate.h"
#include "json.h"
#include "migration.h"

#define BAR_NS      INT64_C(200000000)
#define LINE_NS     INT64_C(1000000000)
#define MAX_LINE_NS INT64_C(60000000000)
#define BAR_SIZE    24
#define FIELDS_SIZE 51                     /* of what is beside the bar, in most cases */
#define SMALL_BAR   8
#define MIB         1048576.0

static struct {
    HvEstimate estimate;
    HvStats stats;
    int64_t shown_ns;
    bool started, bar_drawn, advised;
} shown;

typedef struct Line {
    size_t width;
    char text[256];
} Line;

static size_t terminal_width(void)
{
    struct winsize size;
    const char *columns = getenv("COLUMNS");
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        return size.ws_col;
    }
    return columns && atoi(columns) > 0 ? (size_t)atoi(columns) : 80;
}

/* A field that would make the line too long is left out. */
static void __attribute__((format(printf, 2, 3))) add(Line *line, const char *fmt, ...)
{
    char field[256];
    size_t used = strlen(line->text);
    va_list args;
    va_start(args, fmt);
    vsnprintf(field, sizeof(field), fmt, args);
    va_end(args);
    const char *gap = used == 0 || line->text[used - 1] == ' ' ? "" : "   ";
    if (field[0] && used + strlen(gap) + strlen(field) <= line->width) {
        strcat(strcat(line->text, gap), field);
    }
}

static void add_bar(Line *line, double part)
{
    char bar[BAR_SIZE + 1] = "";
    size_t room = line->width > FIELDS_SIZE ? line->width - FIELDS_SIZE : 0;
    size_t size = room < BAR_SIZE ? room : BAR_SIZE;
    if (size >= SMALL_BAR) {
        memset(bar, '.', size);
        memset(bar, '#', (size_t)(part * (double)size));
        add(line, "[%s] ", bar);
    }
}

static void add_time(Line *line, double seconds)
{
    if (seconds >= 3600) {
        add(line, "%.1f h left", seconds / 3600);
    } else if (seconds >= 120) {
        add(line, "%.0f min left", seconds / 60 + 0.5);
    } else if (seconds >= 0) {
        add(line, "%.0f s left", seconds + 0.5);
    }
}

static void source_line(Line *line)
{
    double part = shown.stats.total > 0 ? (double)shown.stats.transferred / (double)shown.stats.total : 1;
    HvState state = hv_estimate_state(&shown.estimate);
    add_bar(line, part);
    add(line, "%3d %%", (int)(part * 100));
    add(line, "%.0f MiB/s", shown.estimate.rate / MIB);
    add(line, "%s", state == HV_STALLED ? "stalled" : state == HV_NOT_CONVERGING ? "not converging" : "");
    add_time(line, hv_estimate_seconds(&shown.estimate, hv_max_downtime_ns()));
    add(line, "dirty %.0f MiB", (double)shown.stats.dirty / MIB);
}

static void destination_line(HvMigration *m, Line *line)
{
    char info[128];
    hv_last_info(info, sizeof(info));
    add(line, "received %.0f MiB", (double)hv_file_bytes(m->in) / MIB);
    add(line, "%.0f MiB/s", shown.estimate.rate / MIB);
    add(line, "%s", info);
}

static void print_json(HvMigration *m)
{
    static const char *const states[] = { "running", "not converging", "stalled" };
    hv_report_json(m->options, "progress");
    hv_json_number("seconds", (double)(shown.estimate.at_ns - m->start_ns) / 1e9);
    hv_json_integer("wire_bytes", shown.estimate.bytes);
    hv_json_integer("bytes_per_second", (uint64_t)shown.estimate.rate);
    if (m->options->connect) {
        hv_json_integer("bytes_total", shown.stats.total);
        hv_json_integer("bytes_transferred", shown.stats.transferred);
        hv_json_integer("bytes_remaining", shown.stats.remaining);
        hv_json_integer("dirty_bytes", shown.stats.dirty);
        hv_json_integer("dirty_bytes_per_second", shown.stats.dirty_rate);
        hv_json_string("state", states[hv_estimate_state(&shown.estimate)]);
        hv_json_number("seconds_left", hv_estimate_seconds(&shown.estimate, hv_max_downtime_ns()));
    }
    hv_json_end();
}

/* Says once what to do about a guest that writes faster than the link sends. */
static void advise(HvMigration *m)
{
    if (m->options->connect && !shown.advised && hv_estimate_state(&shown.estimate) == HV_NOT_CONVERGING) {
        shown.advised = true;
        hv_progress_end();
        printf("not converging: the guest writes as fast as the data is sent; use %sa larger --max-downtime or "
               "--bandwidth, or a guest that writes less\n", m->options->extended ? "" : "--stream extended, ");
    }
}

static void print_text(HvMigration *m, bool terminal)
{
    Line line = { .width = terminal ? terminal_width() - 1 : sizeof(line.text) - 1 };
    line.width = line.width < sizeof(line.text) ? line.width : sizeof(line.text) - 1;
    advise(m);
    if (m->options->connect) {
        source_line(&line);
    } else {
        destination_line(m, &line);
    }
    printf(terminal ? HV_CLEAR_LINE "%s" : "%s\n", line.text);
    fflush(stdout);
    shown.bar_drawn = terminal;
}

/* The longer it takes, the fewer lines, since they mostly go to a log. */
static int64_t interval(HvMigration *m, bool terminal, int64_t now)
{
    int64_t tenth = (now - m->start_ns) / 10;
    if (terminal) {
        return BAR_NS;
    }
    return m->options->json || tenth < LINE_NS ? LINE_NS : tenth < MAX_LINE_NS ? tenth : MAX_LINE_NS;
}

void hv_progress(HvMigration *m)
{
    int64_t now = hv_clock_ns();
    bool terminal = !m->options->json && isatty(STDOUT_FILENO);
    if (m->options->quiet || (shown.started && now - shown.estimate.at_ns < BAR_NS)) {
        return;
    }
    m->module->get_stats(&shown.stats);
    if (m->options->connect && shown.stats.total == 0) {
        return;                            /* not begun */
    }
    uint64_t left = shown.stats.remaining + shown.stats.dirty;
    if (!shown.started) {
        shown.started = true;
        shown.shown_ns = m->start_ns;
        hv_estimate_start(&shown.estimate, m->start_ns, shown.stats.total);
    }
    hv_estimate_update(&shown.estimate, now, hv_file_bytes(m->options->connect ? m->out : m->in), left);
    if (now - shown.shown_ns < interval(m, terminal, now)) {
        return;
    }
    shown.shown_ns = now;
    if (m->options->json) {
        print_json(m);
    } else {
        print_text(m, terminal);
    }
}

void hv_progress_end(void)
{
    if (shown.bar_drawn) {
        printf(HV_CLEAR_LINE);
        fflush(stdout);
        shown.bar_drawn = false;
    }
}
