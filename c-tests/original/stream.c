/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * stream save FILE: migrates two disks, one with an odd tail, while the guest writes, into a file.
 * stream load FILE: loads such a file and compares the disks with what the guest had written.
 * stream save-extended FILE: as save, but writes the extended stream.
 * stream refuse FILE: tries to load such a file, which must fail before anything is written.
 */
#include "host.h"
#include "test.h"

#define WRITES 8

static BlockDriverState *disks[2];
static int written;

/* The disks have the same content in the end, whatever the module does. */
static void guest_write(void)
{
    BlockDriverState *bs = disks[written % 2];

    host_guest_write(bs, written * 1111 % (bs->sectors - 2), 2, 0x80 + written);
    written++;
}

static void guest(QEMUFile *f)
{
    (void)f;
    if (written < WRITES) {
        guest_write();
    }
}

static void save(const char *path)
{
    QEMUFile *f = host_file();
    FILE *out = fopen(path, "wb");

    f->rate = MIB;
    host.max_downtime = 1;      /* go on until nothing is left */
    check(host_migrate(f, 200, guest));
    if (written < WRITES) {
        fail("the migration ended before the guest had written all");
    }
    check(out && fwrite(f->buf, 1, f->size, out) == f->size);
    ok(fclose(out));
    host_file_free(f);
}

static void load(const char *path)
{
    const BlkMigOptions options = { .struct_size = sizeof(options), .accept_tail_garbage = 1 };
    QEMUFile *f = host_file();
    FILE *in = fopen(path, "rb");
    uint8_t *want[2];

    f->buf = malloc(f->room = 64 * MIB);
    check(in != NULL);
    f->size = fread(f->buf, 1, f->room, in);
    fclose(in);
    while (written < WRITES) {
        guest_write();
    }
    /* The original leaves garbage in a tail. */
    blk_mig_set_options(&options);
    want[0] = host_take(disks[0]);
    want[1] = host_take(disks[1]);
    ok(host_load(f));
    for (int i = 0; i < 2; i++) {
        ok(memcmp(disks[i]->data, want[i], (size_t)(disks[i]->sectors * SECTOR)));
        free(want[i]);
    }
    host_file_free(f);
}

static void save_extended(const char *path)
{
    const BlkMigOptions options = { .struct_size = sizeof(options), .stream = 2 };

    ok(blk_mig_set_options(&options));
    save(path);
}

static void refuse(const char *path)
{
    QEMUFile *f = host_file();
    FILE *in = fopen(path, "rb");

    f->buf = malloc(f->room = 64 * MIB);
    check(in != NULL);
    f->size = fread(f->buf, 1, f->room, in);
    fclose(in);
    check(f->size > MIB);
    err(host_load(f), EINVAL);
    same(f->pos, 8);
    same(disks[0]->writes + disks[1]->writes, 0);
    host_file_free(f);
}

int main(int argc, char **argv)
{
    check(argc == 3);
    disks[0] = host_disk("ide0-hd0", 9 * CHUNK_SECTORS + 3);
    disks[1] = host_disk("virtio0", 2 * CHUNK_SECTORS);
    host_start();
    if (!strcmp(argv[1], "save")) {
        save(argv[2]);
    } else if (!strcmp(argv[1], "save-extended")) {
        save_extended(argv[2]);
    } else if (!strcmp(argv[1], "refuse")) {
        refuse(argv[2]);
    } else {
        load(argv[2]);
    }
    host_end();
    return 0;
}
