/* SPDX-License-Identifier: GPL-2.0-only */
/* The program around the hypervisor: one migration, from the command line to the exit status. */
#ifndef HV_APP_H
#define HV_APP_H

#include "module.h"

int hv_main(int argc, char **argv, const HvModule *module);

#endif
