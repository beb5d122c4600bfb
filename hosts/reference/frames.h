/* SPDX-License-Identifier: GPL-2.0-only */
/* What blkmig-hv sends around the module's sections; protocol.c tells how. */
#ifndef HV_FRAMES_H
#define HV_FRAMES_H

#include <stdint.h>

#define HV_MAGIC    UINT64_C(0x424c4b4d49474856)     /* "BLKMIGHV" */
#define HV_PROTOCOL 2                                /* 1 had no HV_FLUSH; a destination serves such a source, too */

typedef enum HvFrame { HV_START = 'S', HV_PART = 'P', HV_LAST = 'L', HV_END = 'E', HV_GO = 'G', HV_FLUSH = 'Y' } HvFrame;

#endif
