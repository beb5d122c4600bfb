/* SPDX-License-Identifier: GPL-2.0-only */
/* A classic host's slow writes: in flight at setup, in the bulk phase and while dirty chunks are sent; all of them
 * arrive. And what may not change behind a device while it is migrated. */
#include "host.h"
#include "test.h"

#define CHUNKS 16

static void write_ends(BlockDriverState *bs, int64_t sector, int nb_sectors, int byte, int seen)
{
    if (seen) {
        host_guest_write(bs, sector, nb_sectors, byte);
    } else {
        memset(bs->data + sector * SECTOR, byte, (size_t)nb_sectors * SECTOR);
    }
}

static void write_begins(int chunk, int byte)
{
    classic_guest_begins(host.disks, chunk * CHUNK_SECTORS + 8, 16, byte, write_ends);
}

/* In each step the writes of the step before end, after some chunks were read, and others begin. Those that were in
 * flight at setup end when all chunks have been read. */
static int step_no;

static void between(QEMUFile *f)
{
    (void)f;
    if (step_no < 40 || blk_mig_bytes_remaining() == 0) {
        classic_guest_ends();
    }
    if (step_no < 40) {
        write_begins(step_no % CHUNKS, 100 + step_no);
        write_begins((step_no * 7 + 3) % CHUNKS, 200 + step_no % 50);
    }
    step_no++;
}

static void migrate_with_writes(int at_setup, int later, size_t limit)
{
    QEMUFile *f = host_file();
    int done = 0;

    f->limit = limit;
    step_no = later ? 0 : 40;
    for (int i = 0; i < at_setup; i++) {
        write_begins(i * 2, 10 + i);
    }
    host.save_live(host.mon, f, 1, host.opaque);
    for (int i = 0; i < 400 && !done; i++) {
        between(f);
        done = host_iterate(f, 1) && step_no > 40;
    }
    check(done && !f->error);
    classic_guest_ends();       /* as a host that stops its guest */
    host_step(f);
    host.save_live(host.mon, f, 3, host.opaque);
    check(host_delivered(f));
    host_file_free(f);
}

static int count_said(const char *text)
{
    int n = 0;

    for (const char *p = host.errors; (p = strstr(p, text)); p++) {
        n++;
    }
    return n;
}

/* The host ends with what it was told: done, and then the last stage fails. */
static void failed_ends(QEMUFile *f)
{
    int done = 0;

    for (int i = 0; i < 20 && !done; i++) {
        host_step(f);
        done = host.save_live(host.mon, f, 2, host.opaque);
    }
    same(done, 1);
    check(f->error);
    same(blk_mig_active(), 0);
    for (int i = 0; i < 10; i++) {
        same(host.save_live(host.mon, f, 2, host.opaque), 1);
        host.save_live(host.mon, f, -1, host.opaque);
    }
    host.save_live(host.mon, f, 3, host.opaque);
    host_file_free(f);
}

static void a_read_error_is_said_once(void)
{
    QEMUFile *f = host_file();
    int said;

    host.errors[0] = 0;
    host.save_live(host.mon, f, 1, host.opaque);
    host_fail(H_READ_DONE, 3, -EIO);
    failed_ends(f);
    said = count_said("Input/output error");
    check(said == 1 || said == 2);      /* error_report's, and log's beside it */
}

/* A savevm in the middle: the migration fails, though no disk is part of the savevm. */
static void savevm_ends_it(void)
{
    QEMUFile *f = host_file(), *other = host_file();

    f->limit = CHUNK;
    host.save_live(host.mon, f, 1, host.opaque);
    host_iterate(f, 2);
    host.set_params(0, 0, host.opaque);
    host.save_live(host.mon, other, 1, host.opaque);
    host.save_live(host.mon, other, 3, host.opaque);
    host_step(f);
    host.save_live(host.mon, f, 2, host.opaque);
    host.save_live(host.mon, f, 3, host.opaque);
    check(f->error);
    host.save_live(host.mon, f, -1, host.opaque);
    host.set_params(1, 0, host.opaque);
    host_file_free(f);
    host_file_free(other);
}

static void media_stay(void)
{
    QEMUFile *f = host_file();

    ok(classic_eject(host.disks));
    host.save_live(host.mon, f, 1, host.opaque);
    err(classic_eject(host.disks), EBUSY);
    host.save_live(host.mon, f, -1, host.opaque);
    ok(classic_eject(host.disks));
    host_file_free(f);
}

static void a_snapshot_ends_it(void)
{
    QEMUFile *f = host_file();
    int done;

    f->limit = CHUNK;
    host.save_live(host.mon, f, 1, host.opaque);
    host_iterate(f, 2);
    classic_snapshot(host.disks, "overlay.qcow2");
    done = host_iterate(f, 400);
    host_step(f);
    host.save_live(host.mon, f, 3, host.opaque);
    check(done && f->error);
    check(host_said("disk"));
    host_file_free(f);
}

int main(void)
{
    host_disk("disk", CHUNKS * CHUNK_SECTORS);
    host.late_data = 0;
    host_start();
    migrate_with_writes(8, 0, 0);
    migrate_with_writes(8, 0, CHUNK);
    migrate_with_writes(0, 1, CHUNK);
    migrate_with_writes(8, 1, 2 * CHUNK);
    a_read_error_is_said_once();
    savevm_ends_it();
    media_stay();
    a_snapshot_ends_it();
    host_end();
    return 0;
}
