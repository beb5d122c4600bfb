/* SPDX-License-Identifier: GPL-2.0-only */
/* A valid stream cut at any point: an error unless the cut is between sections, and only whole blocks are written. */
#include "host.h"
#include "test.h"

/* The stream's shape: section, block, block, progress, end. */
static const size_t first = 8, block = 8 + 1 + 3 + CHUNK;

static int interesting(size_t at, size_t size)
{
    size_t in_block = at > first ? (at - first) % block : 0;

    return in_block < 64 || in_block + 64 > block || at + 64 > size || in_block % 65536 == 1;
}

int main(void)
{
    const BlkMigOptions options = { .struct_size = sizeof(options), .accept_tail_garbage = 1 };
    QEMUFile *f = host_file();
    BlockDriverState *bs = host_disk("vda", CHUNK_SECTORS + 9);
    size_t size;

    host.async_writes = 1;
    host_start();
    /* The blocks of this test are full up to the end of the chunk, as those of old sources may be. */
    blk_mig_set_options(&options);
    host_put_end(f);
    host_put_block(f, "vda", 0, 0x21);
    host_put_block(f, "vda", CHUNK_SECTORS, 0x22);
    host_put_record(f, 100, 0x04);
    host_put_end(f);
    size = f->size;
    for (size_t cut = 0; cut <= size; cut++) {
        int whole = cut == first || cut == size || cut == 0;

        if (!interesting(cut, size)) {
            continue;
        }
        f->size = cut;
        f->error = 0;
        bs->writes = 0;
        same(host_load(f), whole ? 0 : -EIO);
        same(bs->writes, (cut >= first + block ? CHUNK_SECTORS : 0) + (cut >= first + 2 * block ? 9 : 0));
        same(host.in_flight, 0);
    }
    host_file_free(f);
    host_end();
    return 0;
}
