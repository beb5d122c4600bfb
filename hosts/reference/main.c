/* SPDX-License-Identifier: GPL-2.0-only */
#include "app.h"
#include "blkmig_host.h"

int main(int argc, char **argv)
{
    return hv_main(argc, argv, &hv_blkmig_module);
}
