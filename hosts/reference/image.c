/* SPDX-License-Identifier: GPL-2.0-only */
/* Raw image files. A file's holes are what it does not hold: zeroes, or the base image's data if there is one. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image.h"

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static bool is_open_here(int fd)
{
    struct stat st, other;
    for (int i = 0; i < fd; i++) {
        if (fstat(fd, &st) == 0 && fstat(i, &other) == 0 && st.st_dev == other.st_dev && st.st_ino == other.st_ino) {
            return true;
        }
    }
    return false;
}

/* The lock belongs to the open file, not to the process: one that is opened twice is locked out, too. */
int hv_image_lock(int fd, const char *path, bool exclusive)
{
    struct flock lock = { .l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET };
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0) {
        return 0;
    }
    int ret = -errno;
    if (ret != -EAGAIN && ret != -EACCES) {
        return hv_fail(ret, "cannot lock %s: %s", path, strerror(-ret));
    }
    return hv_fail(ret, is_open_here(fd) ? "cannot use %s: the command line names it twice"
                                         : "cannot use %s: another process is using it", path);
}

static int check_file(int fd, const char *path, bool read_only, bool format_raw)
{
    struct stat st;
    if (fstat(fd, &st) < 0) {
        return -errno;
    }
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        return hv_fail(S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL, "cannot use %s: it is not a disk image", path);
    }
    int ret = hv_image_lock(fd, path, !read_only);
    const char *format = ret == 0 && !format_raw ? hv_image_format(fd) : NULL;
    return format ? hv_fail(-EINVAL, "cannot use %s: it looks like a %s image, not a raw one (convert it, or add "
                            ",format=raw to take its bytes as they are)", path, format) : ret;
}

static int open_file(const char *path, bool read_only, bool format_raw, int64_t *bytes)
{
    int fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (fd < 0) {
        return hv_fail(-errno, "cannot open %s: %s", path, strerror(errno));
    }
    int ret = check_file(fd, path, read_only, format_raw);
    if (ret == 0) {
        *bytes = lseek(fd, 0, SEEK_END);
        ret = *bytes < 0 ? hv_fail(-errno, "cannot tell the size of %s: %s", path, strerror(errno)) : 0;
    }
    if (ret < 0) {
        close(fd);
        return ret;
    }
    return fd;
}

static void init(HvImage *image)
{
    *image = (HvImage){ .fd = -1, .base_fd = -1 };
    pthread_mutex_init(&image->copy_on_write, NULL);
    pthread_mutex_init(&image->extent_lock, NULL);
}

static int open_base(HvImage *image, const HvDiskSpec *spec)
{
    if (!spec->base) {
        return 0;
    }
    image->base_fd = open_file(spec->base, true, spec->format_raw, &image->base_bytes);
    return image->base_fd < 0 ? image->base_fd : 0;
}

int hv_image_open(HvImage *image, const HvDiskSpec *spec)
{
    init(image);
    image->fd = open_file(spec->path, spec->read_only, spec->format_raw, &image->bytes);
    return image->fd < 0 ? image->fd : open_base(image, spec);
}

int hv_image_create(HvImage *image, int fd, const HvDiskSpec *spec)
{
    init(image);
    image->fd = fd;
    return image->fd < 0 ? image->fd : open_base(image, spec);
}

int hv_image_set_length(HvImage *image, int64_t bytes)
{
    if (ftruncate(image->fd, bytes) < 0) {
        return -errno;
    }
    image->bytes = bytes;
    return 0;
}

void hv_image_close(HvImage *image)
{
    if (image->fd >= 0) {
        close(image->fd);
    }
    if (image->base_fd >= 0) {
        close(image->base_fd);
    }
    pthread_mutex_destroy(&image->copy_on_write);
    pthread_mutex_destroy(&image->extent_lock);
}

/* How many bytes from offset on are a hole, at most size. Where lseek cannot tell, everything counts as data. */
static int64_t hole_at(int fd, int64_t bytes, int64_t offset, int64_t size)
{
    int64_t data = offset < bytes ? lseek(fd, offset, SEEK_DATA) : bytes;
    if (offset >= bytes || (data < 0 && errno == ENXIO)) {
        return size;
    }
    return data > offset ? min64(size, data - offset) : 0;
}

/* To look for the end of the data may take a walk to the end of the file, so it is remembered. */
static int64_t data_at(HvImage *image, int64_t offset, int64_t size)
{
    pthread_mutex_lock(&image->extent_lock);
    if (offset < image->extent_start || offset >= image->extent_end) {
        int64_t hole = lseek(image->fd, offset, SEEK_HOLE);
        image->extent_start = offset;
        image->extent_end = hole > offset ? hole : offset + size;
    }
    int64_t run = min64(size, image->extent_end - offset);
    pthread_mutex_unlock(&image->extent_lock);
    return run;
}

bool hv_image_is_data(HvImage *image, int64_t offset, int64_t size, int64_t *run)
{
    *run = hole_at(image->fd, image->bytes, offset, size);
    if (*run > 0) {
        return false;
    }
    *run = data_at(image, offset, size);
    return true;
}

bool hv_image_is_zero(HvImage *image, int64_t offset, int64_t size, int64_t *run)
{
    int64_t hole = hole_at(image->fd, image->bytes, offset, size);
    if (hole > 0 && image->base_fd >= 0) {
        hole = hole_at(image->base_fd, image->base_bytes, offset, hole);
    }
    *run = hole > 0 ? hole : size;
    return hole > 0;
}

/* Past the file's end there are zeroes. */
static int read_file(int fd, int64_t offset, uint8_t *buf, int64_t size)
{
    while (size > 0) {
        ssize_t got = pread(fd, buf, (size_t)size, offset);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return -errno;
        }
        if (got == 0) {
            memset(buf, 0, (size_t)size);
            return 0;
        }
        buf += got;
        offset += got;
        size -= got;
    }
    return 0;
}

int hv_image_read(HvImage *image, int64_t offset, uint8_t *buf, int64_t size)
{
    int64_t run;
    int ret = 0;
    if (image->base_fd < 0) {
        return read_file(image->fd, offset, buf, size);
    }
    for (; size > 0 && ret == 0; offset += run, buf += run, size -= run) {
        bool own = hv_image_is_data(image, offset, size, &run);
        ret = read_file(own ? image->fd : image->base_fd, offset, buf, run);
    }
    return ret;
}

static int write_file(int fd, int64_t offset, const uint8_t *buf, int64_t size)
{
    while (size > 0) {
        ssize_t done = pwrite(fd, buf, (size_t)size, offset);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            return done < 0 ? -errno : -EIO;
        }
        buf += done;
        offset += done;
        size -= done;
    }
    return 0;
}

/* Writes whole clusters, filled up with what they read as so far: the file system's own blocks would be filled up
 * with zeroes, and those would hide the base image. */
static int write_copying(HvImage *image, int64_t offset, const uint8_t *buf, int64_t size)
{
    int64_t start = offset - offset % HV_CLUSTER_SIZE;
    int64_t end = min64((offset + size + HV_CLUSTER_SIZE - 1) / HV_CLUSTER_SIZE * HV_CLUSTER_SIZE, image->bytes);
    if (start == offset && end == offset + size) {
        return write_file(image->fd, offset, buf, size);
    }
    uint8_t *bounce = malloc((size_t)(end - start));
    if (!bounce) {
        return -ENOMEM;
    }
    int64_t tail = offset + size - start;
    int ret = hv_image_read(image, start, bounce, offset - start);
    if (ret == 0) {
        ret = hv_image_read(image, start + tail, bounce + tail, end - start - tail);
    }
    if (ret == 0) {
        memcpy(bounce + (offset - start), buf, (size_t)size);
        ret = write_file(image->fd, start, bounce, end - start);
    }
    free(bounce);
    return ret;
}

int hv_image_write(HvImage *image, int64_t offset, const uint8_t *buf, int64_t size)
{
    if (image->base_fd < 0) {
        return write_file(image->fd, offset, buf, size);
    }
    pthread_mutex_lock(&image->copy_on_write);
    int ret = write_copying(image, offset, buf, size);
    pthread_mutex_unlock(&image->copy_on_write);
    return ret;
}

int hv_image_punch(HvImage *image, int64_t offset, int64_t size)
{
    int ret;
    pthread_mutex_lock(&image->extent_lock);
    image->extent_end = image->extent_start = 0;
    pthread_mutex_unlock(&image->extent_lock);
    do {
        ret = fallocate(image->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : 0;
}

int hv_image_write_zeroes(HvImage *image, int64_t offset, int64_t size)
{
    static const uint8_t zeroes[1 << 20];
    int ret = -EOPNOTSUPP;
    if (image->base_fd < 0) {              /* a hole on top of a base would show the base */
        ret = hv_image_punch(image, offset, size);
    }
    if (ret != -EOPNOTSUPP) {
        return ret;
    }
    ret = 0;
    for (int64_t run; size > 0 && ret == 0; offset += run, size -= run) {
        run = min64(size, (int64_t)sizeof(zeroes));
        ret = hv_image_write(image, offset, zeroes, run);
    }
    return ret;
}
