/* SPDX-License-Identifier: GPL-2.0-only */
/* What the user is told before and after a migration. */
#include "json.h"
#include "migration.h"

#define MIB 1048576.0

int hv_exit_status(void)
{
    return hv_cancelled() ? 128 + hv_cancelled() : 1;
}

void hv_report_json(const HvOptions *options, const char *event)
{
    hv_json_begin(event);
    hv_json_string("side", options->connect ? "source" : "destination");
}

void hv_report_listening(const HvOptions *options, const char *address)
{
    if (options->json) {
        hv_report_json(options, "listening");
        hv_json_string("address", address);
        hv_json_end();
    } else if (!options->quiet) {
        printf("listening on %s\n", address);
        fflush(stdout);
    }
}

void hv_report_failed(const HvOptions *options)
{
    fprintf(stderr, "blkmig-hv: %s\n", hv_failure());
    if (options->json) {
        hv_report_json(options, "failed");
        hv_json_string("error", hv_failure());
        hv_json_integer("status", (uint64_t)hv_exit_status());
        hv_json_end();
    }
}

/* Not from getrusage, which also counts the process before it executed this program. */
static long peak_memory_kib(void)
{
    char line[128];
    long kib = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof(line), status) && sscanf(line, "VmHWM: %ld", &kib) != 1) {
    }
    if (status) {
        fclose(status);
    }
    return kib;
}

/* Of compression; below 0: there was no data. */
static double ratio(const HvStats *stats)
{
    return stats->payload > 0 ? (double)stats->data / (double)stats->payload : -1;
}

static void source_text(HvMigration *m, const HvStats *stats, double seconds)
{
    if (m->options->raw) {
        printf("sent everything; with --raw, the destination does not confirm that it arrived\n");
    } else {
        printf("migration completed\n");
    }
    printf("  time              %.2f s\n", seconds);
    printf("  rate              %.1f MiB/s\n", (double)stats->total / MIB / seconds);
    printf("  on the wire       %.1f MiB for disks of %.1f MiB\n", (double)hv_file_bytes(m->out) / MIB,
           (double)stats->total / MIB);
    if (m->options->compression) {
        printf("  compression       %.2f : 1 (%.1f MiB of data)\n", ratio(stats), (double)stats->data / MIB);
    }
    if (m->options->extended) {
        printf("  with checksums    %.1f MiB\n", (double)stats->checksummed / MIB);
    }
    printf("  chunks sent again %llu\n", (unsigned long long)stats->resent);
    printf("  guest wrote       %.1f MiB meanwhile\n", (double)hv_guest_written() / MIB);
    printf("  dirty rate        %.1f MiB/s at last\n", (double)stats->dirty_rate / MIB);
    printf("  downtime          %.0f ms (asked for at most %lld ms)\n", (double)(m->end_ns - m->stop_ns) / 1e6,
           (long long)m->options->max_downtime_ms);
}

static void text(HvMigration *m, const HvStats *stats, double seconds)
{
    if (m->options->connect) {
        source_text(m, stats, seconds);
    } else {
        printf("migration completed: the disks belong to this side now\n");
        printf("  time              %.2f s\n", seconds);
        printf("  received          %.1f MiB\n", (double)hv_file_bytes(m->in) / MIB);
    }
    printf("  memory            %ld MiB at most\n", peak_memory_kib() / 1024);
    fflush(stdout);
}

static void json(HvMigration *m, const HvStats *stats, double seconds)
{
    bool source = m->options->connect;
    hv_report_json(m->options, source && m->options->raw ? "sent" : "completed");
    hv_json_number("seconds", seconds);
    hv_json_integer("wire_bytes", hv_file_bytes(source ? m->out : m->in));
    hv_json_integer("memory_kib", (uint64_t)peak_memory_kib());
    hv_json_integer("flushes", (uint64_t)m->flushes);
    if (source) {
        hv_json_integer("bytes_total", stats->total);
        hv_json_integer("chunks_resent", stats->resent);
        hv_json_integer("chunks_zero", stats->zeroes);
        hv_json_integer("dirty_bytes_per_second", stats->dirty_rate);
        hv_json_integer("data_bytes", stats->data);
        hv_json_integer("payload_bytes", stats->payload);
        hv_json_number("compression_ratio", ratio(stats));
        hv_json_integer("checksummed_bytes", stats->checksummed);
        hv_json_integer("guest_bytes", hv_guest_written());
        hv_json_number("downtime_ms", (double)(m->end_ns - m->stop_ns) / 1e6);
        hv_json_integer("max_downtime_ms", (uint64_t)m->options->max_downtime_ms);
    }
    hv_json_end();
}

void hv_report_completed(HvMigration *m)
{
    HvStats stats = { .total = 0 };
    double seconds = (double)(m->end_ns - m->start_ns) / 1e9;
    m->module->get_stats(&stats);
    if (m->options->json) {
        json(m, &stats, seconds);
    } else if (!m->options->quiet) {
        text(m, &stats, seconds);
    }
}
