/* SPDX-License-Identifier: GPL-2.0-only */
/* A hypervisor of 2011 (include/) that stands on whatever host has filled the tables of blkmig.h. */
#ifndef CLASSIC_H
#define CLASSIC_H

#include <blkmig.h>

/* Takes the host underneath; as blk_mig_set_host, but keeps the tables' pointers. Returns 0. */
int classic_set_host(const BlkMigHost *host);

/* What a write of the guest does when it ends; seen: the dirty bit is set. */
typedef void ClassicWriteEnds(BlockDriverState *host_bs, int64_t sector, int nb_sectors, int byte, int seen);

/* A write of the guest begins. It stays in flight until classic_guest_ends or a flush, and as in 2011 it sets the
 * dirty bit only when it ends, and only if there was a bitmap when it began. */
void classic_guest_begins(BlockDriverState *host_bs, int64_t sector, int nb_sectors, int byte, ClassicWriteEnds *ends);
void classic_guest_ends(void);

/* Another file is behind the device, as after a snapshot. */
void classic_snapshot(BlockDriverState *host_bs, const char *filename);

/* eject or change without force: 0 or -EBUSY. */
int classic_eject(BlockDriverState *host_bs);

#endif
