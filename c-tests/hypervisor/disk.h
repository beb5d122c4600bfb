/* SPDX-License-Identifier: GPL-2.0-only */
/* What the block layer's own files share. */
#ifndef HV_DISK_H
#define HV_DISK_H

#include <pthread.h>
#include <stdatomic.h>

#include "hv.h"

typedef struct HvDirty {
    pthread_mutex_t lock;
    uint64_t *bits;                        /* NULL: not tracking */
    int64_t chunks, count;
} HvDirty;

/* Raw bytes: one file, perhaps on top of another. Ranges lie within the file's own size. */
typedef struct HvImage {
    int fd, base_fd;                       /* base_fd -1: none */
    int64_t bytes, base_bytes;
    pthread_mutex_t copy_on_write;         /* two writes may share a cluster */
    pthread_mutex_t extent_lock;
    int64_t extent_start, extent_end;      /* the data found last: with a base, it never becomes a hole again */
} HvImage;

/* A file that this process has created (new_file.c). */
typedef struct HvNewFile {
    char *path, *part;                     /* NULL: it is none, or is to stay */
    bool placed;                           /* at path, not at part any more */
} HvNewFile;

struct BlockDriverState {
    char *name;
    uint8_t *memory;                       /* NULL: image is used */
    HvImage image;
    HvNewFile file;
    int64_t bytes;
    bool read_only, listed;
    bool has_no_length;                    /* until hv_disk_set_length: it is a new one */
    atomic_int refs;
    HvDirty dirty;
    HvFault *fault;
    void *fault_opaque;
    BlockDriverState *next;
};

int hv_image_open(HvImage *image, const HvDiskSpec *spec);
int hv_image_create(HvImage *image, const HvDiskSpec *spec, HvNewFile *file);
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

int hv_new_file_open(HvNewFile *file, const char *path);     /* its descriptor, locked */
int hv_new_file_place(HvNewFile *file);
void hv_new_file_keep(HvNewFile *file);
void hv_new_file_discard(HvNewFile *file);                   /* unless it is to stay */

void hv_dirty_mark(BlockDriverState *bs, int64_t sector, int nb_sectors);

#endif
