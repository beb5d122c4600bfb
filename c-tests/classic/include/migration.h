/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef QEMU_MIGRATION_H
#define QEMU_MIGRATION_H

#include "qemu-common.h"

uint64_t migrate_max_downtime(void);

#endif
