/* SPDX-License-Identifier: GPL-2.0-only */
/* An error at the nth call, whichever, ends the migration with an error; the guest's disk and the next one are fine. */
#include "host.h"
#include "test.h"

static BlockDriverState *bs;

static void guest(QEMUFile *f)
{
    static int steps;

    if (f->size < 1000) {
        steps = 0;
    }
    if (steps++ < 12) {
        host_guest_write(bs, 2100, 1, (int)f->size);
    }
}

/* Plants the fault; 1 if it struck. */
static int strikes(enum host_call call, int nth, int puts)
{
    QEMUFile *f = host_file();
    int before = host.calls[call], struck;

    if (puts) {
        f->fail_after = nth;
    } else {
        host_fail(call, nth, -EIO);
    }
    struck = !host_migrate(f, 100, guest);
    if (struck != (puts ? f->fail_after == 0 : host.calls[call] >= before + nth)) {
        fail("call %d, fault at the %dth of %d: %s", call, nth, host.calls[call] - before, struck ? "failed" : "went well");
    }
    if (struck) {
        check(f->error < 0);
        host.save_live(host.mon, f, -1, host.opaque);
    } else {
        check(host_delivered(f));
    }
    ok(blk_mig_active());
    host_file_free(f);
    return struck;
}

int main(void)
{
    static const enum host_call calls[] = { H_TRACK, H_AIO_READ, H_READ_DONE };
    QEMUFile *f = host_file();
    int n;

    bs = host_disk("vda", 4 * CHUNK_SECTORS + 1);
    host_disk("vdb", CHUNK_SECTORS);
    host_start();
    for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        for (n = 1; strikes(calls[i], n, 0); n++) {
        }
        check(n > 2);
        host_fail(calls[i], 0, 0);
    }
    for (n = 1; strikes(H_CALLS - 1, n, 1); n++) {
    }
    check(n > 12);
    check(host_migrate(f, 100, NULL));
    check(host_delivered(f));
    host_file_free(f);
    host_end();
    return 0;
}
