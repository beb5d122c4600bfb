/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * LD_PRELOAD: storage that stalls. Each read waits while the file $HOLD_READS
 * exists, each write while $HOLD_WRITES does. Only calls with an offset are
 * meant: sockets and pipes have none.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static void wait_while_held(const char *variable)
{
    const char *path = getenv(variable);

    while (path && access(path, F_OK) == 0) {
        usleep(10000);
    }
}

#define HOLD(name, variable, buffer, length)                                   \
    ssize_t name(int fd, buffer data, length size, off_t offset)               \
    {                                                                          \
        ssize_t (*real)(int, buffer, length, off_t) = dlsym(RTLD_NEXT, #name); \
                                                                               \
        wait_while_held(variable);                                             \
        return real(fd, data, size, offset);                                   \
    }

HOLD(pread, "HOLD_READS", void *, size_t)
HOLD(pread64, "HOLD_READS", void *, size_t)
HOLD(preadv, "HOLD_READS", const struct iovec *, int)
HOLD(preadv64, "HOLD_READS", const struct iovec *, int)
HOLD(pwrite, "HOLD_WRITES", const void *, size_t)
HOLD(pwrite64, "HOLD_WRITES", const void *, size_t)
HOLD(pwritev, "HOLD_WRITES", const struct iovec *, int)
HOLD(pwritev64, "HOLD_WRITES", const struct iovec *, int)
