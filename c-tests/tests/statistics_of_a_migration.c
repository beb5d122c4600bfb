/* SPDX-License-Identifier: GPL-2.0-only */
/* The statistics of a migration that runs, of the last one, and for a caller that knows fewer of them. */
#include "host.h"
#include "test.h"
#include <stddef.h>

static BlkMigStats get(void)
{
    BlkMigStats s = { .struct_size = sizeof(s) };

    ok(blk_mig_get_stats(&s));
    same(s.struct_size, sizeof(s));
    same(s.bytes_transferred + s.bytes_remaining, s.bytes_total);
    return s;
}

int main(void)
{
    QEMUFile *f = host_file(), *broken = host_file();
    BlockDriverState *bs = host_disk("vda", 6 * CHUNK_SECTORS);
    BlkMigStats s = get(), part;

    ok(s.bytes_total);
    host_start();
    host.save_live(host.mon, f, 1, host.opaque);
    same(get().bytes_remaining, 6 * MIB);
    host_iterate(f, 1);
    s = get();
    same(s.reads_in_flight, host.in_flight);
    check(s.buffers_in_use >= s.reads_in_flight);
    host_iterate(f, 100);
    host_guest_write(bs, 0, 1, 1);
    host_step(f);
    host.save_live(host.mon, f, 3, host.opaque);

    s = get();
    same(s.bytes_transferred, 6 * MIB);
    same(s.chunks_sent, 7);
    same(s.chunks_resent, 1);
    same(s.chunks_zero, 0);
    same(s.wire_bytes, f->size);
    same(s.reads_in_flight, 0);
    same(s.buffers_in_use, 0);
    check(s.buffers_peak > 0 && s.buffers_peak <= 64);
    same(s.last_error, 0);
    check(s.elapsed_ns >= 200 * (uint64_t)MS);

    /* No more is filled in than the caller has. */
    memset(&part, 0xee, sizeof(part));
    part.struct_size = offsetof(BlkMigStats, chunks_sent);
    ok(blk_mig_get_stats(&part));
    same(part.bytes_total, 6 * MIB);
    check(part.chunks_sent == 0xeeeeeeeeeeeeeeee && part.elapsed_ns == 0xeeeeeeeeeeeeeeee);
    part.struct_size = 0;
    err(blk_mig_get_stats(&part), EINVAL);
    check(part.chunks_sent == 0xeeeeeeeeeeeeeeee);

    host_fail(H_READ_DONE, 1, -ENXIO);
    check(!host_migrate(broken, 100, NULL));
    same(get().last_error, -ENXIO);
    host_file_free(f);
    host_file_free(broken);
    host_end();
    return 0;
}
