/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef BLOCK_MIGRATION_H
#define BLOCK_MIGRATION_H

void blk_mig_init(void);
int blk_mig_active(void);
uint64_t blk_mig_bytes_transferred(void);
uint64_t blk_mig_bytes_remaining(void);
uint64_t blk_mig_bytes_total(void);

#endif
