/*
 * Block migration by the blkmig library: its part of query-migrate
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */

#ifndef MIGRATION_BLOCK_MIGRATION_QUERY_H
#define MIGRATION_BLOCK_MIGRATION_QUERY_H

#include "qapi/qapi-types-migration.h"

/* The disks' numbers while they are migrated, as up to 9.0. */
void blkmig_fill_disk_info(MigrationInfo *info);
/* The same as text, for "info migrate". */
void blkmig_print_disk_info(Monitor *mon, const MigrationInfo *info);

#endif
