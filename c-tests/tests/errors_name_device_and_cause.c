/* SPDX-License-Identifier: GPL-2.0-only */
/* An error of the source names the device, and blk_mig_last_error returns it until a call succeeds. */
#include "host.h"
#include "test.h"

int main(void)
{
    QEMUFile *f = host_file(), *again = host_file();
    char text[256], cut[8];
    size_t length;

    host_disk("virtio-disk3", 2 * CHUNK_SECTORS);
    host_start();
    host_fail(H_READ_DONE, 1, -EIO);
    check(!host_migrate(f, 100, NULL));
    same(f->error, -EIO);
    length = blk_mig_last_error(text, sizeof(text));
    same(length, strlen(text));
    check(strstr(text, "virtio-disk3") && strstr(text, strerror(EIO)));
    check(host_said("virtio-disk3"));

    /* The text is cut to the size of the buffer, with a NUL at its end. */
    memset(cut, 'x', sizeof(cut));
    same(blk_mig_last_error(cut, 5), length);
    same(strlen(cut), 4);
    ok(strncmp(cut, text, 4));
    same(cut[5], 'x');
    same(blk_mig_last_error(cut, 1), length);
    same(cut[0], 0);

    check(host_migrate(again, 100, NULL));
    same(blk_mig_last_error(text, sizeof(text)), 0);
    same(text[0], 0);
    host_file_free(f);
    host_file_free(again);
    host_end();
    return 0;
}
