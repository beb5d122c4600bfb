/* SPDX-License-Identifier: GPL-2.0-only */
#include "header.h"

int main(void)
{
    return !use_header();
}
