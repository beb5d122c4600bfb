/*
 * Block migration by the blkmig library: the stream
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block-migration-host.h"

/* What qemu-file.c buffers at most; the install script checks it. */
#define QEMU_FILE_BUFFER 32768

/* The stream's error is the library's, and not the channel's. */
static bool error_is_ours;

static void file_ops_put_buffer(QEMUFile *f, const uint8_t *buf, int size)
{
    qemu_put_buffer(f, buf, size);
}

/* Once flushed, the buffer is the kernel's or the TLS session's, or lost. */
static void file_ops_put_buffer_nocopy(QEMUFile *f, const uint8_t *buf,
                                       int size, void (*release)(void *opaque),
                                       void *opaque)
{
    qemu_put_buffer_async(f, buf, size, false);
    qemu_fflush(f);
    release(opaque);
}

/* A stream's buffer that was full and has been taken whole is bypassed. */
static int file_ops_get_buffer(QEMUFile *f, uint8_t *buf, int size)
{
    QIOChannel *ioc = qemu_file_get_ioc(f);
    Error *local_err = NULL;
    int done = qemu_get_buffer(f, buf, MIN(size, QEMU_FILE_BUFFER));
    int buffered = done;

    while (done < size && buffered == QEMU_FILE_BUFFER) {
        ssize_t len = qio_channel_read(ioc, (char *)buf + done, size - done,
                                       &local_err);

        if (len > 0) {
            done += len;
        } else if (len != QIO_CHANNEL_ERR_BLOCK) {
            qemu_file_set_error_obj(f, -EIO, local_err);
            break;
        } else if (qemu_in_coroutine()) {
            qio_channel_yield(ioc, G_IO_IN);
        } else {
            qio_channel_wait(ioc, G_IO_IN);
        }
    }
    qemu_file_credit_transfer(f, done - buffered);
    return done;
}

static int file_ops_rate_limit(QEMUFile *f)
{
    return migration_rate_exceeded(f);
}

static int64_t file_ops_get_rate_limit(QEMUFile *f)
{
    return migration_rate_get();
}

static void file_ops_set_error(QEMUFile *f, int ret)
{
    blkmig_fail_stream(f, ret);
}

static void file_ops_flush(QEMUFile *f)
{
    qemu_fflush(f);
}

const BlkMigFileOps blkmig_file_ops = {
    .struct_size = sizeof(blkmig_file_ops),
    .put_buffer = file_ops_put_buffer,
    .put_byte = qemu_put_byte,
    .put_be64 = qemu_put_be64,
    .get_buffer = file_ops_get_buffer,
    .get_byte = qemu_get_byte,
    .get_be64 = qemu_get_be64,
    .rate_limit = file_ops_rate_limit,
    .get_rate_limit = file_ops_get_rate_limit,
    .has_error = qemu_file_get_error,
    .set_error = file_ops_set_error,
    .flush = file_ops_flush,
    .put_buffer_nocopy = file_ops_put_buffer_nocopy,
};

void blkmig_start_stream(void)
{
    error_is_ours = false;
}

void blkmig_fail_stream(QEMUFile *f, int ret)
{
    if (!qemu_file_get_error(f)) {
        error_is_ours = true;
        qemu_file_set_error(f, ret);
    }
}

/* From 8.2 on QEMU makes up an error of the channel when there is only ours. */
Error *blkmig_get_failure(QEMUFile *f)
{
    Error *err = NULL;
    char text[512];

    if (blkmig_cause) {
        return error_copy(blkmig_cause);
    }
    if (!error_is_ours) {
        qemu_file_get_error_obj(f, &err);
    }
    if (!err) {
        blk_mig_last_error(text, sizeof(text));
        error_setg(&err, "Block migration: %s", text);
    }
    return err;
}
