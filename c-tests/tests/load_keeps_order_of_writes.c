/* SPDX-License-Identifier: GPL-2.0-only */
/* Asynchronous writes complete in any order; of two to the same chunk the later one wins. */
#include "host.h"
#include "test.h"

int main(void)
{
    BlkMigOptions o = { .struct_size = sizeof(o), .max_writes = 3, .max_buffers = 4 };
    BlockDriverState *bs = host_disk("vda", 4 * CHUNK_SECTORS);

    host.async_writes = 1;
    for (host.lifo = 0; host.lifo < 2; host.lifo++) {
        for (host.no_wait = 0; host.no_wait < 2; host.no_wait++) {
            QEMUFile *f = host_file();

            host_start();
            ok(blk_mig_set_options(&o));
            for (int i = 0; i < 24; i++) {
                host_put_block(f, "vda", i * 5 % 7 % 4 * CHUNK_SECTORS, i);
            }
            host_put_end(f);
            host.most_in_flight = 0;
            ok(host_load(f));
            same(host.in_flight, 0);
            check(host.most_in_flight > 1 && host.most_in_flight <= 3);
            for (int i = 23, seen = 0; seen != 15; i--) {
                int chunk = i * 5 % 7 % 4;

                if (!(seen & 1 << chunk)) {
                    same(bs->data[chunk * CHUNK], i);
                    same(bs->data[(chunk + 1) * CHUNK - 1], i);
                    seen |= 1 << chunk;
                }
            }
            host_file_free(f);
        }
    }
    host_end();
    return 0;
}
