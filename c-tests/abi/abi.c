/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Programs that were built with any header since 1.0 must work with this library: what blkmig.h declares has not
 * changed since then, and a struct has only grown at its end. All of it is checked when this file is compiled; that
 * the lists are complete is checked by lists_are_complete.py. Another list goes to the end here and in meson.build.
 */
#include <blkmig.h>

#if __SIZEOF_POINTER__ == 8

#define CONSTANT(name, value) _Static_assert((name) == (value), #name " has another value");
#define FIELD(type, offset, name, ...)                                                                         \
    _Static_assert(offsetof(type, name) == (offset), #type "." #name " has moved");                            \
    _Static_assert(__builtin_types_compatible_p(__typeof__(((type *)0)->name), __VA_ARGS__),                   \
                   #type "." #name " has another type");
#define FUNCTION(name, ...)                                                                                    \
    _Static_assert(__builtin_types_compatible_p(__typeof__(name), __VA_ARGS__), #name " has another type");

#define STRUCT(type, size) _Static_assert(sizeof(type) >= (size), #type " has become smaller");
#include "1.0.h"
#undef STRUCT

/* The present one. */
#define STRUCT(type, size) _Static_assert(sizeof(type) == (size), #type " has another size");
#include "1.1.h"

int main(void)
{
    return 0;
}

#else

int main(void)
{
    return 77;      /* skipped: the lists are for 64 bits */
}

#endif
