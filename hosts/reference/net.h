/* SPDX-License-Identifier: GPL-2.0-only */
/* Sockets, and Ctrl-C. */
#ifndef HV_NET_H
#define HV_NET_H

#include "hv.h"

typedef struct HvSocket {
    int fd;
    int64_t timeout_ms;                    /* that a read or write waits for the peer at most */
    bool peer_is_quiet;                    /* a word from the peer ends writes: it can only mean failure */
} HvSocket;

void hv_catch_signals(void);
int hv_cancelled(void);                    /* the signal, or 0 */

/* Waits for poll events; 0: none in time; -ECANCELED. */
int hv_poll(int fd, short events, int64_t timeout_ms);
int hv_net_listen(const char *address, char *actual, size_t size);
int hv_net_accept(int listener, const char *address, int64_t timeout_ms);
int hv_net_connect(const char *address, int64_t timeout_ms);
void hv_net_unlink(const char *address);
HvChannel hv_net_channel(HvSocket *socket);

#endif
