/* SPDX-License-Identifier: GPL-2.0-only */
/* What blkmig-hv sends around the module's sections; see protocol.c. */
#ifndef HV_FRAMES_H
#define HV_FRAMES_H

#include <stdint.h>

#define HV_MAGIC    UINT64_C(0x424c4b4d49474856)     /* "BLKMIGHV" */
/* Version 1 had no HV_FLUSH. A destination accepts it, too. */
#define HV_PROTOCOL 2

typedef enum HvFrame {
    HV_START = 'S', HV_PART = 'P', HV_LAST = 'L',   /* a section follows */
    HV_FLUSH = 'Y', HV_END = 'E', HV_GO = 'G',
} HvFrame;

#endif
