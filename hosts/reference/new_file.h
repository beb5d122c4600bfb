/* SPDX-License-Identifier: GPL-2.0-only */
/* A file that this process has created. */
#ifndef HV_NEW_FILE_H
#define HV_NEW_FILE_H

#include <stdbool.h>

typedef struct HvNewFile {
    char *path, *part;                     /* NULL: there is no new file, or it is to stay */
    bool placed;                           /* at path, not at part any more */
} HvNewFile;

int hv_new_file_open(HvNewFile *file, const char *path);     /* its descriptor, locked */
int hv_new_file_place(HvNewFile *file);
void hv_new_file_keep(HvNewFile *file);
void hv_new_file_discard(HvNewFile *file);                   /* unless it is to stay */

#endif
