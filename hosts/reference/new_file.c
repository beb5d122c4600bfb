/* SPDX-License-Identifier: GPL-2.0-only */
/* A file that a migration creates. Until all of its data is there it has a name that nobody takes for a finished
 * one. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image.h"
#include "new_file.h"

#define SUFFIX ".blkmig-part"

static bool is_at(int fd, const char *path)
{
    struct stat one, other;
    return fstat(fd, &one) == 0 && lstat(path, &other) == 0 && one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

/* What a process that was killed has left there is overwritten. */
static int open_part(const char *part)
{
    int fd = open(part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0) {
        return hv_fail(-errno, "cannot create %s: %s", part, strerror(errno));
    }
    int ret = hv_image_lock(fd, part, true);
    if (ret == 0 && !is_at(fd, part)) {    /* renamed since it was opened: it is somebody's finished file */
        ret = hv_fail(-EAGAIN, "cannot create %s: another process is using it", part);
    }
    if (ret < 0) {
        close(fd);
        return ret;
    }
    return fd;
}

int hv_new_file_open(HvNewFile *file, const char *path)
{
    struct stat st;
    if (lstat(path, &st) == 0) {
        return hv_fail(-ENOENT, "cannot create %s: it is a symbolic link to a file that does not exist", path);
    }
    char *copy = strdup(path);
    char *part = malloc(strlen(path) + sizeof(SUFFIX));
    int fd = copy && part ? open_part(strcat(strcpy(part, path), SUFFIX)) : -ENOMEM;
    if (fd < 0) {
        free(copy);
        free(part);
        return fd;
    }
    *file = (HvNewFile){ .path = copy, .part = part };
    return fd;
}

static int sync_folder(const char *path)
{
    char *folder = strdup(path);
    char *slash = folder ? strrchr(folder, '/') : NULL;
    if (slash) {
        slash[slash == folder] = '\0';
    }
    int fd = folder ? open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int ret = fd < 0 || (fsync(fd) < 0 && errno != EINVAL) ? -errno : 0;   /* EINVAL: a file system that need not */
    if (fd >= 0) {
        close(fd);
    }
    free(folder);
    return ret;
}

int hv_new_file_place(HvNewFile *file)
{
    struct stat st;
    int ret = lstat(file->path, &st) == 0 ? -EEXIST : rename(file->part, file->path) < 0 ? -errno : 0;
    if (ret == 0) {
        file->placed = true;
        ret = sync_folder(file->path);
    }
    return ret < 0 ? hv_fail(ret, "cannot rename %s to %s: %s", file->part, file->path, strerror(-ret)) : 0;
}

void hv_new_file_keep(HvNewFile *file)
{
    free(file->path);
    free(file->part);
    *file = (HvNewFile){ .path = NULL };
}

void hv_new_file_discard(HvNewFile *file)
{
    if (file->placed) {
        /* The source may have said that it is complete, and what it said may have been lost. */
        rename(file->path, file->part);
    } else if (file->path) {
        unlink(file->part);
    }
    hv_new_file_keep(file);
}
