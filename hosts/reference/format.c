/* SPDX-License-Identifier: GPL-2.0-only */
/* Image files that are no raw ones, by what they start with: their bytes are not their guest's disk. */
#include <string.h>
#include <unistd.h>

#include "image.h"

static const struct {
    const char *name;
    size_t offset, size;
    const char *magic;
} formats[] = {
    { "qcow2", 0, 4, "QFI\xfb" },
    { "QED", 0, 4, "QED\0" },
    { "VMDK", 0, 4, "KDMV" },
    { "VMDK", 0, 4, "COWD" },
    { "VMDK", 0, 21, "# Disk DescriptorFile" },
    { "VHDX", 0, 8, "vhdxfile" },
    { "VHD", 0, 8, "conectix" },
    { "VDI", 64, 4, "\x7f\x10\xda\xbe" },
    { "Parallels", 0, 16, "WithoutFreeSpace" },
    { "Parallels", 0, 16, "WithouFreSpacExt" },
};

const char *hv_image_format(int fd)
{
    char start[128] = { 0 };
    if (pread(fd, start, sizeof(start), 0) < 0) {
        return NULL;                       /* whoever reads it in earnest hears of that */
    }
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
        if (memcmp(start + formats[i].offset, formats[i].magic, formats[i].size) == 0) {
            return formats[i].name;
        }
    }
    return NULL;
}
