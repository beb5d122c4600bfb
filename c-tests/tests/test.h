/* SPDX-License-Identifier: GPL-2.0-only */
/* The checks of a test program. Its exit status is 0 for pass, 1 for fail, and 77 for skip. */
#ifndef TEST_H
#define TEST_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define fail(...)                                                              \
    do {                                                                       \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                        \
        fprintf(stderr, __VA_ARGS__);                                          \
        fputc('\n', stderr);                                                   \
        exit(1);                                                               \
    } while (0)

#define skip(why)                                                              \
    do {                                                                       \
        fprintf(stderr, "skipped: %s\n", why);                                 \
        exit(77);                                                              \
    } while (0)

/* The condition must hold. */
#define check(cond)                                                            \
    do {                                                                       \
        if (!(cond)) {                                                         \
            fail("not so: %s", #cond);                                         \
        }                                                                      \
    } while (0)

/* Both numbers must be the same; prints them if not. */
#define same(got, want)                                                        \
    do {                                                                       \
        long long got_ = (long long)(got), want_ = (long long)(want);          \
        if (got_ != want_) {                                                   \
            fail("%s is %lld, should be %s = %lld", #got, got_, #want, want_); \
        }                                                                      \
    } while (0)

/* The call must succeed, or fail with this errno. */
#define ok(call) same(call, 0)
#define err(call, code) same(call, -(code))

#endif
