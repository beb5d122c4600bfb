/* SPDX-License-Identifier: GPL-2.0-only */
/* What a hostile peer, or guest, can bring into the log and onto the monitor: no control characters, no lines of its
 * own, and no more lines about progress than 256 a stream. */
#include "host.h"
#include "test.h"

/* What follows is one line, of printable UTF-8. */
static void must_be_plain(const char *text, int lines)
{
    for (const char *p = text; *p; p++) {
        unsigned char c = (unsigned char)*p;

        if (*p == '\n') {
            lines--;
        } else if (c < 0x20 || c == 0x7f) {
            fail("0x%02x in \"%s\"", c, text);
        }
    }
    same(lines, 0);
    /* The escapes of C1, and what turns the direction of the text. */
    check(!strstr(text, "\xc2\x9b") && !strstr(text, "\xe2\x80\xae"));
}

static void load_name(const char *name, const char *shown)
{
    QEMUFile *f = host_file();
    char text[1024];

    host.log[0] = 0;
    host_put_zero(f, name, 0);
    host_put_end(f);
    err(host_load(f), EINVAL);
    must_be_plain(host.log, 1);
    if (!strstr(host.log, shown)) {
        fail("\"%s\" does not show %s", host.log, shown);
    }
    blk_mig_last_error(text, sizeof(text));
    must_be_plain(text, 0);
    check(strstr(text, shown));
    host_file_free(f);
}

/* The same names on this host's own devices: a user may have given them. */
static void migrate_name(const char *name, const char *shown)
{
    BlockDriverState *bs = host.disks;
    QEMUFile *f = host_file();
    char line[1024];

    host.log[0] = 0;
    host.monitor.text[0] = 0;
    bs->name = name;
    bs->read_only = 0;
    host.save_live(host.mon, f, 1, host.opaque);
    ok(f->error);
    must_be_plain(host.monitor.text, 1);
    snprintf(line, sizeof(line), "Start full migration for %s\n", shown);
    ok(strcmp(host.monitor.text, line));
    host.monitor.text[0] = 0;
    host_fail(H_READ_DONE, 1, -EIO);
    host_iterate(f, 2);
    check(f->error < 0);
    must_be_plain(host.log, 1);
    check(strstr(host.log, shown));
    check(strstr(host.monitor.text, shown));
    host.save_live(host.mon, f, -1, host.opaque);

    host.log[0] = 0;
    bs->read_only = 1;
    f->error = 0;
    host.save_live(host.mon, f, 1, host.opaque);
    must_be_plain(host.log, 1);
    check(strstr(host.log, shown));
    host.save_live(host.mon, f, -1, host.opaque);
    host_file_free(f);
}

static QEMUFile *progress_stream(int sections, int records)
{
    QEMUFile *f = host_file();

    for (int i = 0; i < sections; i++) {
        for (int j = 0; j < records; j++) {
            host_put_record(f, (i + j) % 2 ? 99 : 1, 0x04);
        }
        host_put_end(f);
    }
    return f;
}

static void progress_is_bounded(void)
{
    QEMUFile *one = progress_stream(1, 20000), *many = progress_stream(1000, 20), *honest = host_file();

    host.log[0] = 0;
    ok(host_load(one));
    must_be_plain(host.log, 256);
    host.log[0] = 0;
    ok(host_load(many));
    must_be_plain(host.log, 256);

    /* The next stream is heard. */
    host.log[0] = 0;
    for (int i = 0; i <= 100; i++) {
        host_put_record(honest, i, 0x04);
        host_put_end(honest);
    }
    ok(host_load(honest));
    same(host_logged("3 Receiving block device images\n"), 1);
    for (int i = 0; i <= 100; i++) {
        char line[32];

        snprintf(line, sizeof(line), "3 Completed %d %%\n", i);
        same(host_logged(line), 1);
    }
    must_be_plain(host.log, 102);
    host_file_free(one);
    host_file_free(many);
    host_file_free(honest);
}

int main(void)
{
    static const struct { const char *name, *shown; } names[] = {
        { "vd\nx", "vd\\nx" },
        { "1 Completed\r100 %", "1 Completed\\r100 %" },
        { "\x1b[2Jgone\x07", "\\u{1b}[2Jgone\\u{7}" },
        { "\x7f\x01\t", "\\u{7f}\\u{1}\\t" },
        { "a\xc2\x9b" "31mred", "a\\u{9b}31mred" },
        { "\xe2\x80\xae" "adv", "\\u{202e}adv" },
        { "%s%n%1000000d", "%s%n%1000000d" },
        { "fine \"name\" \\ of d\xc3\xbcsk'", "fine \"name\" \\ of d\xc3\xbcsk'" },
        { "\xff\xfe", "\xef\xbf\xbd\xef\xbf\xbd" },
    };

    host_disk("vda", CHUNK_SECTORS);
    host_start();
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        load_name(names[i].name, names[i].shown);
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        migrate_name(names[i].name, names[i].shown);
    }
    progress_is_bounded();
    host_end();
    return 0;
}
