/* SPDX-License-Identifier: GPL-2.0-only */
/* --disk NAME=FILE[,base=FILE][,format=raw][,readonly] and --devices NAME[,NAME]...: ,, stands for a comma. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"

/* Copies up to a single comma or the end, and leaves *text there. */
static char *take_field(const char **text)
{
    const char *from = *text;
    char *field = malloc(strlen(from) + 1), *to = field;
    while (field && *from && (*from != ',' || from[1] == ',')) {
        from += *from == ',';
        *to++ = *from++;
    }
    if (field) {
        *to = '\0';
        *text = from;
    }
    return field;
}

static int parse_field(const char *field, HvDiskSpec *disk)
{
    static const char base[] = "base=";
    if (strcmp(field, "readonly") == 0) {
        disk->read_only = true;
    } else if (strcmp(field, "format=raw") == 0) {
        disk->format_raw = true;
    } else if (strncmp(field, base, sizeof(base) - 1) == 0 && field[sizeof(base) - 1] && !disk->base) {
        disk->base = strdup(field + sizeof(base) - 1);
        return disk->base ? 0 : -ENOMEM;
    } else {
        return hv_fail(-EINVAL, "--disk %s=...: only base=FILE, format=raw or readonly may follow a comma, not '%s'; a "
                       "comma in a file's name is written twice", disk->name, field);
    }
    return 0;
}

int hv_parse_disk(const char *text, HvDiskSpec *disk)
{
    const char *equals = strchr(text, '=');
    if (!equals || equals == text || !equals[1]) {
        return hv_fail(-EINVAL, "--disk takes NAME=FILE, not '%s'", text);
    }
    if (equals - text > 255) {
        return hv_fail(-EINVAL, "a disk's name may have at most 255 bytes: %.40s...", text);
    }
    const char *at = equals + 1;
    disk->name = strndup(text, (size_t)(equals - text));
    disk->path = take_field(&at);
    int ret = disk->name && disk->path ? 0 : -ENOMEM;
    while (ret == 0 && *at == ',') {
        at++;
        char *field = take_field(&at);
        ret = field ? parse_field(field, disk) : -ENOMEM;
        free(field);
    }
    return ret == -ENOMEM ? hv_fail(ret, "out of memory") : ret;
}

static HvDiskSpec *find_disk(HvOptions *options, const char *name)
{
    for (int i = 0; i < options->disk_count; i++) {
        if (strcmp(options->disks[i].name, name) == 0) {
            return &options->disks[i];
        }
    }
    return NULL;
}

static int choose_disk(HvOptions *options, const char *name)
{
    HvDiskSpec *disk = find_disk(options, name);
    if (!disk) {
        return hv_fail(-ENODEV, "--devices: no disk is named '%s'", name);
    }
    if (disk->read_only) {
        return hv_fail(-EINVAL, "--devices: disk %s is readonly, and those are not migrated", name);
    }
    disk->left_out = false;
    return 0;
}

int hv_choose_disks(HvOptions *options)
{
    const char *at = options->devices;
    int ret = 0;
    for (int i = 0; i < options->disk_count; i++) {
        options->disks[i].left_out = true;
    }
    while (ret == 0) {
        char *name = take_field(&at);
        ret = name ? choose_disk(options, name) : hv_fail(-ENOMEM, "out of memory");
        free(name);
        if (ret == 0 && *at++ == '\0') {
            break;
        }
    }
    return ret;
}

void hv_free_disk(HvDiskSpec *disk)
{
    free(disk->name);
    free(disk->path);
    free(disk->base);
}
