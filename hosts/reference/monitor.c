/* SPDX-License-Identifier: GPL-2.0-only */
/* Where text for people goes, and what time it is. */
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "hv.h"

struct Monitor {
    FILE *out;
    bool lines_only;
    size_t used;
    char line[512];
};

Monitor *hv_monitor_open(FILE *out, bool lines_only)
{
    Monitor *mon = calloc(1, sizeof(*mon));
    if (mon) {
        mon->out = out;
        mon->lines_only = lines_only;
    }
    return mon;
}

void hv_monitor_close(Monitor *mon)
{
    free(mon);
}

static void add_character(Monitor *mon, char c)
{
    if (c == '\n' && mon->used > 0) {
        fprintf(mon->out, "%s%.*s\n", isatty(fileno(mon->out)) ? HV_CLEAR_LINE : "", (int)mon->used, mon->line);
    }
    if (c == '\n' || c == '\r') {
        mon->used = 0;
    } else if (mon->used < sizeof(mon->line)) {
        mon->line[mon->used++] = c;
    }
}

void hv_monitor_printf(Monitor *mon, const char *fmt, ...)
{
    char text[512];
    va_list args;
    if (!mon->out) {
        return;
    }
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (!mon->lines_only) {
        fputs(text, mon->out);
        return;
    }
    for (const char *c = text; *c; c++) {
        add_character(mon, *c);
    }
}

void hv_monitor_flush(Monitor *mon)
{
    if (mon->out) {
        fflush(mon->out);
    }
}

static pthread_mutex_t text_lock = PTHREAD_MUTEX_INITIALIZER;
static char failure[1024], info[256];
static int log_level;

static void keep_failure(const char *fmt, va_list args)
{
    pthread_mutex_lock(&text_lock);
    if (!failure[0]) {
        vsnprintf(failure, sizeof(failure), fmt, args);
        failure[strcspn(failure, "\r\n")] = '\0';
    }
    pthread_mutex_unlock(&text_lock);
}

int hv_fail(int ret, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    keep_failure(fmt, args);
    va_end(args);
    return ret;
}

void hv_error_report(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    keep_failure(fmt, args);
    va_end(args);
}

const char *hv_failure(void)
{
    return failure;
}

void hv_clear_failure(void)
{
    pthread_mutex_lock(&text_lock);
    failure[0] = '\0';
    pthread_mutex_unlock(&text_lock);
}

void hv_log(int level, const char *message)
{
    pthread_mutex_lock(&text_lock);
    if (level == 3) {
        snprintf(info, sizeof(info), "%s", message);
        info[strcspn(info, "\r\n")] = '\0';
    }
    if (level <= log_level) {
        fprintf(stderr, "%s\n", message);
    }
    pthread_mutex_unlock(&text_lock);
}

void hv_set_log_level(int level)
{
    log_level = level;
}

void hv_last_info(char *buf, size_t size)
{
    pthread_mutex_lock(&text_lock);
    snprintf(buf, size, "%s", info);
    pthread_mutex_unlock(&text_lock);
}

int64_t hv_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static atomic_uint_fast64_t max_downtime_ns = 300000000;

uint64_t hv_max_downtime_ns(void)
{
    return atomic_load(&max_downtime_ns);
}

void hv_set_max_downtime_ns(uint64_t ns)
{
    atomic_store(&max_downtime_ns, ns);
}
