/* SPDX-License-Identifier: GPL-2.0-only */
/* Streams and savevm handlers of 2011. */
#ifndef QEMU_HW_H
#define QEMU_HW_H

#include "qemu-common.h"

void qemu_put_buffer(QEMUFile *f, const uint8_t *buf, int size);
void qemu_put_byte(QEMUFile *f, int v);
void qemu_put_be64(QEMUFile *f, uint64_t v);
int qemu_get_buffer(QEMUFile *f, uint8_t *buf, int size);
int qemu_get_byte(QEMUFile *f);
uint64_t qemu_get_be64(QEMUFile *f);
int qemu_file_rate_limit(QEMUFile *f);
int64_t qemu_file_get_rate_limit(QEMUFile *f);
int qemu_file_has_error(QEMUFile *f);
void qemu_file_set_error(QEMUFile *f);

typedef void SaveSetParamsHandler(int blk_enable, int shared, void *opaque);
typedef void SaveStateHandler(QEMUFile *f, void *opaque);
typedef int SaveLiveStateHandler(Monitor *mon, QEMUFile *f, int stage, void *opaque);
typedef int LoadStateHandler(QEMUFile *f, void *opaque, int version_id);

int register_savevm_live(DeviceState *dev, const char *idstr, int instance_id, int version_id,
                         SaveSetParamsHandler *set_params, SaveLiveStateHandler *save_live_state,
                         SaveStateHandler *save_state, LoadStateHandler *load_state, void *opaque);

#endif
