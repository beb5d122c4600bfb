/* SPDX-License-Identifier: GPL-2.0-only */
/* Hosts of the original's time go on calling stage 2 after an error, ten times a second: it is told once. */
#include "host.h"
#include "test.h"

static int count(const char *text, const char *part)
{
    int n = 0;

    while ((text = strstr(text, part))) {
        text += strlen(part);
        n++;
    }
    return n;
}

/* A migration that fails, and is not cancelled until it has been called a hundred times more. */
static void told_once(const char *text, int fail_after)
{
    QEMUFile *f = host_file();

    host.log[0] = 0;
    host.errors[0] = 0;
    host.monitor.text[0] = 0;
    f->fail_after = fail_after;
    check(!host_migrate(f, 100, NULL));
    for (int i = 0; i < 100; i++) {
        int error = f->error;

        f->error = i % 2 ? error : 0;
        ok(host.save_live(host.mon, f, i < 99 ? 2 : 3, host.opaque));
        same(f->error, error);
    }
    same(host_logged(text), 1);
    same(host_logged("1 "), 1);
    same(count(host.monitor.text, text), 1);
    ok(blk_mig_active());
    host.save_live(host.mon, f, -1, host.opaque);
    same(host_logged("1 "), 1);
    host_file_free(f);
}

int main(void)
{
    QEMUFile *f = host_file();

    host_disk("vda", 4 * CHUNK_SECTORS);
    host_start();
    host_fail(H_READ_DONE, 2, -EIO);
    told_once("device vda: Input/output error", 0);
    host_fail(H_AIO_READ, 1, -EIO);
    told_once("device vda: Input/output error", 0);
    told_once("the migration stream failed: Broken pipe", 5);
    check(host_migrate(f, 100, NULL));
    check(host_delivered(f));
    host_file_free(f);
    host_end();
    return 0;
}
