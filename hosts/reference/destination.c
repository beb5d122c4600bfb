/* SPDX-License-Identifier: GPL-2.0-only */
/* The incoming side. It owns the disks only after the source's last word. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migration.h"

#define DRAIN_MS         2000              /* that the source has to read why it failed */
#define WRITE_BACK_BYTES (UINT64_C(16) << 20)

static void write_back(void *unused, BlockDriverState *bs)
{
    (void)unused;
    hv_disk_write_back(bs);
}

static void sync_disk(void *opaque, BlockDriverState *bs)
{
    int *ret = opaque;
    if (*ret == 0 && !hv_disk_is_read_only(bs)) {
        *ret = hv_disk_sync(bs);
        if (*ret < 0) {
            hv_fail(*ret, "disk %s cannot be brought to stable storage: %s", hv_disk_name(bs), strerror(-*ret));
        }
    }
}

static void place_disk(void *opaque, BlockDriverState *bs)
{
    int *ret = opaque;
    *ret = *ret ? *ret : hv_disk_place(bs);
}

static void keep_disk(void *unused, BlockDriverState *bs)
{
    (void)unused;
    hv_disk_keep(bs);
}

static int load_section(HvMigration *m, uint64_t *written_back)
{
    const HvSection *section = hv_section();
    int ret = section->load(m->in, section->opaque, section->version_id);
    if (ret == 0) {
        ret = hv_file_has_error(m->in);
    }
    /* Little by little, so that the guest need not wait for all of it at the end. */
    if (hv_file_bytes(m->in) - *written_back > WRITE_BACK_BYTES) {
        *written_back = hv_file_bytes(m->in);
        hv_disk_iterate(write_back, NULL);
    }
    if (m->options->stages) {              /* else another thread shows it */
        hv_progress(m);
    }
    return hv_cancelled() ? -ECANCELED : ret;
}

static int load_raw(HvMigration *m)
{
    uint64_t written_back = 0;
    int ret = 0;
    while (ret == 0 && !hv_file_at_end(m->in)) {
        ret = load_section(m, &written_back);
    }
    ret = ret ? ret : hv_file_has_error(m->in);
    if (ret == 0) {
        hv_disk_iterate(sync_disk, &ret);
    }
    return ret;
}

/* What the source asks for before it stops its guest. */
static int flush(HvMigration *m)
{
    int ret = 0;
    hv_disk_iterate(sync_disk, &ret);
    if (ret == 0) {
        m->flushes++;
        hv_send_ready(m);
        ret = hv_file_has_error(m->out);
    }
    return ret;
}

static int load_sections(HvMigration *m)
{
    uint64_t written_back = 0;
    bool last = false;
    for (;;) {
        int frame = hv_file_get_byte(m->in);
        int ret = hv_file_has_error(m->in);
        if (ret == 0 && frame == HV_END && last) {
            return 0;
        }
        bool known = frame == HV_START || frame == HV_PART || frame == HV_LAST || frame == HV_FLUSH;
        if (ret == 0 && (!known || last)) {
            ret = hv_fail(-EPROTO, "the source sent something unknown (0x%02x)", frame);
        }
        ret = ret ? ret : frame == HV_FLUSH ? flush(m) : load_section(m, &written_back);
        if (ret < 0) {
            return ret;
        }
        last = frame == HV_LAST;
    }
}

static int take_over(HvMigration *m)
{
    int ret = load_sections(m);
    if (ret == 0) {
        hv_disk_iterate(sync_disk, &ret);
        hv_disk_iterate(place_disk, &ret);
    }
    if (ret < 0) {
        return ret;
    }
    hv_send_ready(m);
    int word = hv_file_get_byte(m->in);
    ret = hv_file_has_error(m->out) ? hv_file_has_error(m->out) : hv_file_has_error(m->in);
    if (ret < 0 || word != HV_GO) {
        return ret < 0 ? ret : hv_fail(-EPROTO, "the source sent something unknown (0x%02x)", word);
    }
    hv_disk_iterate(keep_disk, NULL);
    return 0;
}

static void find_placed(void *opaque, BlockDriverState *bs)
{
    const char **part = opaque;
    *part = *part ? *part : hv_disk_placed(bs);
}

static void explain(HvMigration *m, int ret)
{
    int broken = m->in ? hv_file_channel_error(m->in) : 0;
    const char *part = NULL;
    hv_disk_iterate(find_placed, &part);
    if (!hv_cancelled() && broken && part) {
        hv_clear_failure();
        hv_fail(ret, "the source's last word did not come; all data is in %s: rename it if the source said \"completed\"", part);
    } else if (!hv_cancelled() && broken) {
        hv_clear_failure();
        hv_fail(ret, broken == -ETIMEDOUT ? "the source does not send any more" : "the source went away before the end");
    }
    hv_explain(m, ret);
}

/* A socket closed with unread data takes back what was sent last: lets the source read it first. */
static void say_why(HvMigration *m)
{
    static uint8_t swallowed[65536];
    int64_t end = hv_clock_ns() + DRAIN_MS * INT64_C(1000000);
    hv_send_failure(m, hv_failure());
    for (int64_t left; (left = (end - hv_clock_ns()) / 1000000) > 0; ) {
        struct pollfd fd = { .fd = m->socket.fd, .events = POLLIN };
        if (poll(&fd, 1, (int)left) > 0 && recv(fd.fd, swallowed, sizeof(swallowed), 0) <= 0 && errno != EINTR) {
            return;
        }
    }
}

static int open_connection(HvMigration *m)
{
    char actual[300];
    const char *address = m->options->listen;
    int listener = hv_net_listen(address, actual, sizeof(actual));
    if (listener < 0) {
        return listener;
    }
    hv_report_listening(m->options, actual);
    m->socket.fd = hv_net_accept(listener, actual, m->options->wait_ms);
    close(listener);
    hv_net_unlink(address);
    return m->socket.fd < 0 ? m->socket.fd : hv_open_streams(m);
}

static int receive(HvMigration *m)
{
    int ret = open_connection(m);
    if (ret == 0 && !m->options->raw) {
        ret = hv_receive_hello(m);
    }
    if (ret < 0) {
        return ret;
    }
    m->start_ns = hv_clock_ns();
    ret = hv_run(m, m->options->raw ? load_raw : take_over);
    m->end_ns = hv_clock_ns();
    hv_progress_end();
    return ret;
}

int hv_destination(HvMigration *m)
{
    int ret = receive(m);
    if (ret < 0) {
        explain(m, ret);
        hv_report_failed(m->options);
        if (m->in && !m->options->raw) {
            say_why(m);
        }
    } else {
        hv_report_completed(m);
    }
    return ret;
}
