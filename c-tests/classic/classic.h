/* SPDX-License-Identifier: GPL-2.0-only */
/* A hypervisor of 2011 (include/) that stands on whatever host has filled the tables of blkmig.h. */
#ifndef CLASSIC_H
#define CLASSIC_H

#include <blkmig.h>

/* Takes the host underneath; as blk_mig_set_host, but keeps the tables' pointers. Returns 0. */
int classic_set_host(const BlkMigHost *host);

#endif
