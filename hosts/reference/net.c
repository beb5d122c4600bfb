/* SPDX-License-Identifier: GPL-2.0-only */
/* Sockets that never wait without a bound, and that a signal wakes. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "net.h"

static atomic_int caught;                  /* the signal's number */
static int wake_fd = -1;                   /* written once and never read: from then on each poll returns at once */

static void on_signal(int number)
{
    int saved = errno;
    uint64_t one = 1;
    if (caught) {
        _exit(128 + number);
    }
    caught = number;
    if (write(wake_fd, &one, sizeof(one)) < 0) {
        _exit(128 + number);
    }
    errno = saved;
}

void hv_catch_signals(void)
{
    struct sigaction action = { .sa_handler = on_signal };
    wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (signal(SIGHUP, SIG_IGN) != SIG_IGN) {              /* else it was started by nohup */
        sigaction(SIGHUP, &action, NULL);
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);              /* the write fails with EFBIG instead */
}

int hv_cancelled(void)
{
    return caught;
}

int hv_poll(int fd, short events, int64_t timeout_ms)
{
    int64_t end = hv_clock_ns() + timeout_ms * 1000000;
    for (;;) {
        struct pollfd fds[2] = { { .fd = fd, .events = events }, { .fd = wake_fd, .events = POLLIN } };
        int64_t left = (end - hv_clock_ns() + 999999) / 1000000;
        int ret = poll(fds, 2, left > 0 ? (int)(left < 1000000 ? left : 1000000) : 0);
        if (caught) {
            return -ECANCELED;
        }
        if (ret < 0 && errno != EINTR) {
            return -errno;
        }
        if (ret > 0 && fds[0].revents) {
            return fds[0].revents;
        }
        if (left <= 0) {
            return 0;
        }
    }
}

/* ---- Addresses ---- */

static const char *unix_path(const char *address)
{
    return strncmp(address, "unix:", 5) == 0 ? address + 5 : NULL;
}

static int unix_address(const char *path, struct sockaddr_un *out)
{
    *out = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (!*path || strlen(path) >= sizeof(out->sun_path)) {
        return hv_fail(-EINVAL, "the socket's path must have 1 to %zu characters: unix:%s",
                       sizeof(out->sun_path) - 1, path);
    }
    strcpy(out->sun_path, path);
    return 0;
}

/* getaddrinfo would take a port modulo 65536. */
static bool is_port(const char *text)
{
    size_t digits = strspn(text, "0123456789");
    return digits > 0 && digits < 6 && !text[digits] && atoi(text) <= 65535;
}

static int resolve(const char *address, int flags, struct addrinfo **out)
{
    char host[256];
    const char *colon = strrchr(address, ':');
    size_t length = colon ? (size_t)(colon - address) : 0;
    if (!colon || !is_port(colon + 1) || length >= sizeof(host)) {
        return hv_fail(-EINVAL, "an address is HOST:PORT or unix:PATH, not '%s'", address);
    }
    memcpy(host, address, length);
    host[length] = '\0';
    char *name = host;
    if (length > 1 && host[0] == '[' && host[length - 1] == ']') {
        host[length - 1] = '\0';
        name = host + 1;
    }
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = flags };
    int ret = getaddrinfo(*name ? name : NULL, colon + 1, &hints, out);
    return ret == 0 ? 0 : hv_fail(-EINVAL, "cannot resolve %s: %s", address, gai_strerror(ret));
}

static int new_socket(int family)
{
    return socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* ---- Listen ---- */

static int try_bind(const struct sockaddr *address, socklen_t size)
{
    int one = 1;
    int fd = new_socket(address->sa_family);
    if (fd < 0) {
        return -errno;
    }
    if (address->sa_family != AF_UNIX) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    }
    if (bind(fd, address, size) < 0 || listen(fd, 1) < 0) {
        int ret = -errno;
        close(fd);
        return ret;
    }
    return fd;
}

/* A socket's file that a process left behind when it was killed: nobody answers there. */
static bool remove_stale(const struct sockaddr_un *address)
{
    struct stat st;
    int fd = new_socket(AF_UNIX);
    bool refused = fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0
                   && errno == ECONNREFUSED;
    if (fd >= 0) {
        close(fd);
    }
    return refused && lstat(address->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) && unlink(address->sun_path) == 0;
}

static int listen_unix(const char *path)
{
    struct sockaddr_un address;
    int ret = unix_address(path, &address);
    if (ret < 0) {
        return ret;
    }
    ret = try_bind((const struct sockaddr *)&address, sizeof(address));
    if (ret == -EADDRINUSE && remove_stale(&address)) {
        ret = try_bind((const struct sockaddr *)&address, sizeof(address));
    }
    return ret;
}

static int listen_tcp(const char *address)
{
    struct addrinfo *list;
    int ret = resolve(address, AI_PASSIVE, &list);
    if (ret < 0) {
        return ret;
    }
    ret = -EADDRNOTAVAIL;
    for (struct addrinfo *at = list; at && ret < 0; at = at->ai_next) {
        ret = try_bind(at->ai_addr, at->ai_addrlen);
    }
    freeaddrinfo(list);
    return ret;
}

/* Port 0 asks for any free one. */
static void actual_address(int fd, const char *address, char *out, size_t size)
{
    struct sockaddr_storage bound;
    socklen_t length = sizeof(bound);
    char port[16];
    snprintf(out, size, "%s", address);
    if (!unix_path(address) && getsockname(fd, (struct sockaddr *)&bound, &length) == 0
        && getnameinfo((struct sockaddr *)&bound, length, NULL, 0, port, sizeof(port), NI_NUMERICSERV) == 0) {
        snprintf(out, size, "%.*s:%s", (int)(strrchr(address, ':') - address), address, port);
    }
}

int hv_net_listen(const char *address, char *actual, size_t size)
{
    const char *path = unix_path(address);
    int fd = path ? listen_unix(path) : listen_tcp(address);
    if (fd < 0) {
        return hv_fail(fd, "cannot listen on %s: %s", address, strerror(-fd));
    }
    actual_address(fd, address, actual, size);
    return fd;
}

void hv_net_unlink(const char *address)
{
    if (unix_path(address)) {
        unlink(unix_path(address));
    }
}

static int ready(int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));   /* fails on a unix socket, which has no delay */
    return fd;
}

int hv_net_accept(int listener, const char *address, int64_t timeout_ms)
{
    int events = hv_poll(listener, POLLIN, timeout_ms);
    if (events == 0) {
        return hv_fail(-ETIMEDOUT, "no source came to %s within %lld s", address, (long long)(timeout_ms / 1000));
    }
    int fd = events < 0 ? events : accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        int ret = events < 0 ? events : -errno;
        return hv_fail(ret, "cannot accept on %s: %s", address, strerror(-ret));
    }
    return ready(fd);
}

/* ---- Connect ---- */

static int try_connect(const struct sockaddr *address, socklen_t size, int64_t timeout_ms)
{
    int fd = new_socket(address->sa_family);
    if (fd < 0) {
        return -errno;
    }
    int ret = connect(fd, address, size) < 0 ? -errno : 0;
    if (ret == -EINPROGRESS || ret == -EAGAIN) {
        int error = 0;
        socklen_t length = sizeof(error);
        int events = hv_poll(fd, POLLOUT, timeout_ms);
        ret = events < 0 ? events : events == 0 ? -ETIMEDOUT
            : getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0 ? -errno : -error;
    }
    if (ret < 0) {
        close(fd);
        return ret;
    }
    return fd;
}

int hv_net_connect(const char *address, int64_t timeout_ms)
{
    const char *path = unix_path(address);
    int fd;
    if (path) {
        struct sockaddr_un un;
        fd = unix_address(path, &un);
        fd = fd < 0 ? fd : try_connect((const struct sockaddr *)&un, sizeof(un), timeout_ms);
    } else {
        struct addrinfo *list;
        fd = resolve(address, 0, &list);
        if (fd == 0) {
            fd = -EADDRNOTAVAIL;
            for (struct addrinfo *at = list; at && fd < 0 && fd != -ECANCELED; at = at->ai_next) {
                fd = try_connect(at->ai_addr, at->ai_addrlen, timeout_ms);
            }
            freeaddrinfo(list);
        }
    }
    return fd < 0 ? hv_fail(fd, "cannot connect to %s: %s", address, strerror(-fd)) : ready(fd);
}

/* ---- The stream's channel ---- */

static ssize_t socket_writev(void *opaque, const struct iovec *iov, int count)
{
    HvSocket *s = opaque;
    struct msghdr message = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)count };
    ssize_t sent;
    do {
        sent = sendmsg(s->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

static ssize_t socket_readv(void *opaque, const struct iovec *iov, int count)
{
    HvSocket *s = opaque;
    ssize_t got;
    do {
        got = readv(s->fd, iov, count);
    } while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

static int socket_wait(void *opaque, bool for_write)
{
    HvSocket *s = opaque;
    short events = for_write ? (short)(POLLOUT | (s->peer_is_quiet ? POLLIN : 0)) : POLLIN;
    int got = hv_poll(s->fd, events, s->timeout_ms);
    if (got <= 0) {
        return got < 0 ? got : -ETIMEDOUT;
    }
    return for_write && s->peer_is_quiet && (got & POLLIN) ? -ECONNABORTED : 0;
}

HvChannel hv_net_channel(HvSocket *socket)
{
    return (HvChannel){ .writev = socket_writev, .readv = socket_readv, .wait = socket_wait, .opaque = socket };
}
