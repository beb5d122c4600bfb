/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is sent around the module's sections. First the source says which disks it has, and the destination agrees or
 * says why not. One byte, an HvFrame, precedes each section. After HV_FLUSH the destination writes what it has to
 * stable storage and says that it is ready, while the guest keeps running. After HV_END it does so for the last time.
 * Only HV_GO from the source then makes it the owner of the disks, so that there are never two owners.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "migration.h"

enum { SAYS_READY = 'R', SAYS_FAILED = 'F' };

/* ---- The list of disks ---- */

typedef struct Seen {
    BlockDriverState *disks[HV_MAX_DISKS];
    uint64_t bytes[HV_MAX_DISKS];          /* on the source */
    int count;
} Seen;

static void add_migrating(void *opaque, BlockDriverState *bs)
{
    Seen *seen = opaque;
    if (hv_disk_migrates(bs)) {
        seen->disks[seen->count++] = bs;
    }
}

static void put_string(QEMUFile *f, const char *text)
{
    size_t length = strlen(text);
    hv_file_put_byte(f, (int)length);
    hv_file_put_buffer(f, (const uint8_t *)text, (int)length);
}

static void get_string(QEMUFile *f, char text[256])
{
    int length = hv_file_get_byte(f);
    length = hv_file_get_buffer(f, (uint8_t *)text, length);
    text[length] = '\0';
}

int hv_send_hello(HvMigration *m)
{
    Seen all = { .count = 0 };
    hv_disk_iterate(add_migrating, &all);
    hv_file_put_be64(m->out, HV_MAGIC);
    hv_file_put_byte(m->out, HV_PROTOCOL);
    hv_file_put_byte(m->out, m->options->shared_base);
    hv_file_put_byte(m->out, all.count);
    for (int i = 0; i < all.count; i++) {
        put_string(m->out, hv_disk_name(all.disks[i]));
        hv_file_put_be64(m->out, (uint64_t)hv_disk_bytes(all.disks[i]));
        hv_file_put_byte(m->out, hv_disk_has_base(all.disks[i]));
    }
    hv_file_drain(m->out);
    if (hv_file_has_error(m->out)) {
        return hv_file_has_error(m->out);
    }
    uint64_t magic = hv_file_get_be64(m->in);
    if (!hv_file_has_error(m->in) && magic != HV_MAGIC) {
        return hv_fail(-EPROTO, "%s is not a blkmig-hv that listens", m->options->connect);
    }
    return hv_receive_verdict(m, m->options->timeout_ms);
}

static bool contains(const Seen *seen, const BlockDriverState *bs)
{
    for (int i = 0; i < seen->count; i++) {
        if (seen->disks[i] == bs) {
            return true;
        }
    }
    return false;
}

/* The same line is printed on both sides. */
static int compare(const char *name, uint64_t bytes, bool has_base, bool shared, BlockDriverState *bs)
{
    if (!bs || hv_disk_is_read_only(bs)) {
        return hv_fail(-ENODEV, bs ? "disk %s is read-only on the destination" : "disk %s is not on the destination",
                       name);
    }
    if (!hv_disk_has_no_length(bs) && bytes != (uint64_t)hv_disk_bytes(bs)) {
        return hv_fail(-EINVAL, "disk %s has %llu bytes on the source, %lld on the destination: make them the same, or "
                       "let the destination create its file", name, (unsigned long long)bytes,
                       (long long)hv_disk_bytes(bs));
    }
    if (shared && has_base != hv_disk_has_base(bs)) {
        return hv_fail(-EINVAL, "disk %s has a base image only on the %s", name, has_base ? "source" : "destination");
    }
    return 0;
}

static int receive_disk(QEMUFile *f, bool shared, Seen *there)
{
    char name[256];
    get_string(f, name);
    uint64_t bytes = hv_file_get_be64(f);
    bool has_base = hv_file_get_byte(f);
    BlockDriverState *bs = hv_disk_find(name);
    int ret = hv_file_has_error(f);
    ret = ret ? ret : compare(name, bytes, has_base, shared, bs);
    if (ret == 0 && contains(there, bs)) {
        ret = hv_fail(-EPROTO, "disk %s comes twice from the source", name);
    } else if (ret == 0) {
        there->bytes[there->count] = bytes;
        there->disks[there->count++] = bs;
    }
    return ret;
}

/* Called only when both sides have agreed: before that, nothing may change on the disks. */
static int prepare_disks(const Seen *agreed, bool shared)
{
    int ret = 0;
    for (int i = 0; i < agreed->count && ret == 0; i++) {
        BlockDriverState *bs = agreed->disks[i];
        if (hv_disk_has_no_length(bs)) {
            ret = hv_disk_set_length(bs, agreed->bytes[i]);
        }
        if (ret == 0 && shared) {
            ret = hv_disk_clear(bs);
        }
    }
    return ret;
}

static int agree(QEMUFile *f)
{
    Seen here = { .count = 0 }, there = { .count = 0 };
    bool shared = hv_file_get_byte(f);
    int count = hv_file_get_byte(f);
    int ret = hv_file_has_error(f);
    for (int i = 0; i < count && ret == 0; i++) {
        ret = receive_disk(f, shared, &there);
    }
    hv_disk_iterate(add_migrating, &here);
    for (int i = 0; i < here.count && ret == 0; i++) {
        if (!contains(&there, here.disks[i])) {
            ret = hv_fail(-ENODEV, "disk %s does not come from the source, where it is read-only or missing",
                          hv_disk_name(here.disks[i]));
        }
    }
    return ret ? ret : prepare_disks(&there, shared);
}

int hv_receive_hello(HvMigration *m)
{
    QEMUFile *f = m->in;
    uint64_t magic = hv_file_get_be64(f);
    int protocol = hv_file_get_byte(f);
    int ret = hv_file_has_error(f);
    if (ret == 0 && magic != HV_MAGIC) {
        return hv_fail(-EPROTO, "the peer is not a blkmig-hv that connects");
    }
    if (ret == 0 && (protocol < 1 || protocol > HV_PROTOCOL)) {
        return hv_fail(-EPROTO, "the source has version %d of the protocol, this side only up to %d", protocol,
                       HV_PROTOCOL);
    }
    ret = ret ? ret : agree(f);
    if (ret == 0) {
        hv_file_put_be64(m->out, HV_MAGIC);
        hv_send_ready(m);
        ret = hv_file_has_error(m->out);
    }
    return ret;
}

/* ---- Around the sections ---- */

void hv_put_frame(HvMigration *m, HvFrame frame)
{
    if (!m->options->raw) {
        hv_file_put_byte(m->out, frame);
    }
}

/* ---- What the destination answers ---- */

void hv_send_ready(HvMigration *m)
{
    hv_file_put_byte(m->out, SAYS_READY);
    hv_file_drain(m->out);
}

/* Sent directly to the socket, and it may fail: after Ctrl-C, the stream does not wait any more. The answer to the
 * greeting starts with the magic number. */
void hv_send_failure(HvMigration *m, const char *text)
{
    uint8_t message[8 + 2 + 255];
    size_t at = 0, length = strlen(text) < 255 ? strlen(text) : 255;
    for (int i = 0; i < 8 && hv_file_bytes(m->out) == 0; i++) {
        message[at++] = (uint8_t)(HV_MAGIC >> (56 - 8 * i));
    }
    message[at++] = SAYS_FAILED;
    message[at++] = (uint8_t)length;
    memcpy(message + at, text, length);
    if (send(m->socket.fd, message, at + length, MSG_NOSIGNAL | MSG_DONTWAIT) > 0) {
        shutdown(m->socket.fd, SHUT_WR);
    }
}

int hv_receive_verdict(HvMigration *m, int64_t timeout_ms)
{
    char text[256];
    int64_t usual_ms = m->socket.timeout_ms;
    m->socket.timeout_ms = timeout_ms;
    int word = hv_file_get_byte(m->in);
    if (word == SAYS_FAILED) {
        get_string(m->in, text);
    }
    m->socket.timeout_ms = usual_ms;
    if (hv_file_has_error(m->in)) {
        return hv_file_has_error(m->in);
    }
    if (word == SAYS_READY) {
        return 0;
    }
    return word == SAYS_FAILED ? hv_fail(-EREMOTEIO, "the destination failed: %s", text)
                               : hv_fail(-EPROTO, "the destination said something unknown (%d)", word);
}
