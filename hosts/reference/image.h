/* SPDX-License-Identifier: GPL-2.0-only */
/* Raw bytes: one file, perhaps on top of another. Offsets and sizes are in bytes and lie within the image. */
#ifndef HV_IMAGE_H
#define HV_IMAGE_H

#include <pthread.h>

#include "hv.h"

typedef struct HvImage {
    int fd, base_fd;                       /* base_fd -1: none */
    int64_t bytes, base_bytes;
    pthread_mutex_t copy_on_write;         /* two writes may share a cluster */
    pthread_mutex_t extent_lock;
    int64_t extent_start, extent_end;      /* the data found last: with a base, it never becomes a hole again */
} HvImage;

int hv_image_open(HvImage *image, const HvDiskSpec *spec);
int hv_image_create(HvImage *image, int fd, const HvDiskSpec *spec);   /* on a new file; fd < 0: fails with it */
int hv_image_set_length(HvImage *image, int64_t bytes);
int hv_image_lock(int fd, const char *path, bool exclusive);
const char *hv_image_format(int fd);       /* format.c: what it looks like, NULL for a raw one */
void hv_image_close(HvImage *image);
int hv_image_read(HvImage *image, int64_t offset, uint8_t *buf, int64_t size);
int hv_image_write(HvImage *image, int64_t offset, const uint8_t *buf, int64_t size);
int hv_image_write_zeroes(HvImage *image, int64_t offset, int64_t size);
int hv_image_punch(HvImage *image, int64_t offset, int64_t size);

/* With a base: is the byte at offset data in the file itself? *run: how far the same answer holds, at most size. */
bool hv_image_is_data(HvImage *image, int64_t offset, int64_t size, int64_t *run);
/* Is it known to read as zeroes, base included? *run: how far "yes" holds; with "no", how far nothing is known. */
bool hv_image_is_zero(HvImage *image, int64_t offset, int64_t size, int64_t *run);

#endif
