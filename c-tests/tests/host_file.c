/* SPDX-License-Identifier: GPL-2.0-only */
/* The stream of the hypervisor in memory, and an independent reader of what it holds. */
#include "host_parts.h"
#include "test.h"
#include <pthread.h>

/* A buffer that put_buffer_nocopy keeps. Its bytes go to the stream on release only, so that a buffer which the
 * module reuses too early shows. */
struct held {
    struct held *next;
    size_t at;
    const uint8_t *buf;
    size_t size;
    void (*release)(void *opaque);
    void *opaque;
};

QEMUFile *host_file(void)
{
    QEMUFile *f = calloc(1, sizeof(*f));

    f->rate = 16 * MIB;
    return f;
}

void host_file_free(QEMUFile *f)
{
    same(f->held, 0);
    free(f->buf);
    free(f);
}

/* Makes room for size bytes at the stream's end; NULL when nothing is to be kept. */
static uint8_t *grow(QEMUFile *f, size_t size)
{
    size_t at = f->size;

    if (f->fail_after && --f->fail_after == 0) {
        f->error = -EPIPE;
    }
    if (f->error) {
        return NULL;
    }
    f->size += size;
    f->sent += size;
    if (f->discard) {
        return NULL;
    }
    if (f->size > f->room) {
        f->room = f->size * 2;
        f->buf = realloc(f->buf, f->room);
    }
    return f->buf + at;
}

static void put_buffer(QEMUFile *f, const uint8_t *buf, int size)
{
    uint8_t *to = grow(f, (size_t)size);

    if (to && size) {
        memcpy(to, buf, (size_t)size);
    }
}

static void put_byte(QEMUFile *f, int v)
{
    put_buffer(f, &(uint8_t){ (uint8_t)v }, 1);
}

static void put_be64(QEMUFile *f, uint64_t v)
{
    uint8_t b[8];

    for (int i = 0; i < 8; i++) {
        b[i] = (uint8_t)(v >> (56 - 8 * i));
    }
    put_buffer(f, b, 8);
}

void host_put_buffer_nocopy(QEMUFile *f, const uint8_t *buf, int size, void (*release)(void *opaque), void *opaque)
{
    struct held *h = calloc(1, sizeof(*h));
    uint8_t *to = grow(f, (size_t)size);

    h->at = to ? (size_t)(to - f->buf) : (size_t)-1;
    h->buf = buf;
    h->size = (size_t)size;
    h->release = release;
    h->opaque = opaque;
    h->next = f->kept;
    f->kept = h;
    f->held++;
}

static void *release_all(void *opaque)
{
    QEMUFile *f = opaque;

    while (f->kept) {
        struct held *h = f->kept;

        f->kept = h->next;
        if (h->at != (size_t)-1) {
            memcpy(f->buf + h->at, h->buf, h->size);
        }
        h->release(h->opaque);
        f->held--;
        free(h);
    }
    return NULL;
}

void host_release(QEMUFile *f, int on_thread)
{
    pthread_t thread;

    if (!on_thread) {
        release_all(f);
        return;
    }
    ok(pthread_create(&thread, NULL, release_all, f));
    pthread_join(thread, NULL);
}

static int get_buffer(QEMUFile *f, uint8_t *buf, int size)
{
    size_t left = f->size - f->pos, n = (size_t)size < left ? (size_t)size : left;

    if (n) {
        memcpy(buf, f->buf + f->pos, n);
    }
    f->pos += n;
    if (n < (size_t)size) {
        f->error = -EIO;
    }
    return (int)n;
}

static int get_byte(QEMUFile *f)
{
    uint8_t b = 0;

    get_buffer(f, &b, 1);
    return b;
}

static uint64_t get_be64(QEMUFile *f)
{
    uint64_t v = 0;

    for (int i = 0; i < 8; i++) {
        v = v << 8 | (uint8_t)get_byte(f);
    }
    return v;
}

static int rate_limit(QEMUFile *f)
{
    return f->error != 0 || (f->limit && f->sent >= f->limit);
}

static int64_t get_rate_limit(QEMUFile *f)
{
    return f->rate;
}

static int has_error(QEMUFile *f)
{
    return f->error;
}

static void set_error(QEMUFile *f, int ret)
{
    if (!f->error) {
        f->error = ret;
    }
}

BlkMigFileOps host_file_ops = {
    .struct_size = sizeof(host_file_ops), .put_buffer = put_buffer, .put_byte = put_byte, .put_be64 = put_be64,
    .get_buffer = get_buffer, .get_byte = get_byte, .get_be64 = get_be64, .rate_limit = rate_limit,
    .get_rate_limit = get_rate_limit, .has_error = has_error, .set_error = set_error,
};

/* ---- streams by hand ---- */

void host_put_record(QEMUFile *f, int64_t sector, int flags)
{
    put_be64(f, (uint64_t)sector << 9 | (uint64_t)flags);
}

static void put_name(QEMUFile *f, const char *name)
{
    put_byte(f, (int)strlen(name));
    put_buffer(f, (const uint8_t *)name, (int)strlen(name));
}

void host_put_block(QEMUFile *f, const char *name, int64_t sector, int byte)
{
    uint8_t *payload = malloc(CHUNK);

    memset(payload, byte, CHUNK);
    host_put_record(f, sector, 0x01);
    put_name(f, name);
    put_buffer(f, payload, CHUNK);
    free(payload);
}

void host_put_zero(QEMUFile *f, const char *name, int64_t sector)
{
    host_put_record(f, sector, 0x09);
    put_name(f, name);
}

void host_put_end(QEMUFile *f)
{
    host_put_record(f, 0, 0x02);
}

/* ---- reading a stream back ---- */

struct image {
    const BlockDriverState *bs;
    uint8_t *bytes;
};

struct reader {
    QEMUFile f;                 /* a copy: reading changes no stream */
    struct image images[16];
    struct replay result;
};

static void open_images(struct reader *r)
{
    int n = 0;

    for (const BlockDriverState *bs = host.disks; bs; bs = bs->next) {
        size_t size = (size_t)(bs->sectors * SECTOR);

        if (!bs->data || bs->read_only || bs->ref_result < 0 || bs->length <= 0) {
            continue;
        }
        r->images[n].bs = bs;
        r->images[n].bytes = malloc(size);
        for (size_t i = 0; i < size; i++) {
            r->images[n].bytes[i] = bs->base ? bs->base[i] : (uint8_t)~bs->data[i];
        }
        n++;
    }
}

static struct image *image_named(struct reader *r, const char *name)
{
    for (int i = 0; r->images[i].bs; i++) {
        if (!strcmp(r->images[i].bs->name, name)) {
            return &r->images[i];
        }
    }
    fail("the stream has a block for \"%s\", which is no disk that is migrated", name);
}

static void apply_block(struct reader *r, int64_t sector, int zero)
{
    static uint8_t payload[CHUNK];
    char name[256] = "";
    struct image *image;
    int64_t bytes;

    get_buffer(&r->f, (uint8_t *)name, get_byte(&r->f));
    image = image_named(r, name);
    if (sector % CHUNK_SECTORS || sector >= image->bs->sectors) {
        fail("%s: a block at sector %lld", name, (long long)sector);
    }
    bytes = (image->bs->sectors - sector) * SECTOR;
    bytes = bytes < CHUNK ? bytes : CHUNK;
    memset(payload, 0, CHUNK);
    if (!zero) {
        get_buffer(&r->f, payload, CHUNK);
    }
    for (int64_t i = bytes; i < CHUNK; i++) {
        if (payload[i]) {
            r->result.padding++;
            break;
        }
    }
    memcpy(image->bytes + sector * SECTOR, payload, (size_t)bytes);
    r->result.blocks++;
    r->result.zero_blocks += zero;
}

static void close_images(struct reader *r)
{
    for (struct image *i = r->images; i->bs; i++) {
        r->result.differs += memcmp(i->bytes, i->bs->data, (size_t)(i->bs->sectors * SECTOR)) != 0;
        free(i->bytes);
    }
}

struct replay host_replay(const QEMUFile *f)
{
    struct reader r = { .f = *f };
    int64_t progress = -1;

    r.f.pos = 0;
    r.f.error = 0;
    open_images(&r);
    while (r.f.pos < r.f.size && !r.f.error) {
        uint64_t record = get_be64(&r.f);
        int64_t value = (int64_t)(record >> 9);
        int flags = record & 511;

        r.result.complete = 0;
        if (flags == 0x01 || flags == 0x09) {
            apply_block(&r, value, flags == 0x09);
        } else if (flags == 0x04 && value <= 100) {
            progress = value;
        } else if (flags == 0x02 && value == 0) {
            r.result.sections++;
            r.result.complete = progress == 100;
        } else {
            fail("the stream has a record %llx", (unsigned long long)record);
        }
    }
    r.result.complete = r.result.complete && !r.f.error;
    close_images(&r);
    return r.result;
}

int host_delivered(const QEMUFile *f)
{
    struct replay r = host_replay(f);

    if (r.complete && !r.differs) {
        return 1;
    }
    fprintf(stderr, "stream: complete %d, %d blocks, %d disks differ\n", r.complete, r.blocks, r.differs);
    return 0;
}
