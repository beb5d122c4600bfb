/*
 * Block migration by the blkmig library: how it gets into a QEMU that is built
 *
 * SPDX-License-Identifier: GPL-2.0-only
 *
 * QEMU loads it as a TCG plugin with -plugin, which it does with every
 * accelerator, before it makes the machine.  Nothing of the plugin API is used
 * besides; the functions are QEMU's own.  The plugin's arguments are /blkmig's
 * properties.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-machine.h"
#include "qapi/qapi-commands-control.h"
#include "qemu/error-report.h"
#include "qemu/qemu-plugin.h"
#include "block-migration-host.h"

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

/* As --version prints it. */
static char *running_qemu(void)
{
    g_autoptr(VersionInfo) info = qmp_query_version(&error_abort);
    g_autofree char *package = g_strdup(g_strstrip(info->package));
    g_autofree char *shown = *package == '(' ? g_strdup(package) :
                             *package ? g_strdup_printf("(%s)", package) : NULL;

    return g_strdup_printf("QEMU %" PRId64 ".%" PRId64 ".%" PRId64 "%s%s",
                           info->qemu->major, info->qemu->minor,
                           info->qemu->micro, shown ? " " : "", shown ?: "");
}

/*
 * QEMU's structs differ from version to version.  This runs before QEMU looks
 * at the version of the plugin API, which would say less.
 */
static void __attribute__((constructor)) check_version(void)
{
    g_autofree char *running = running_qemu();

    if (strcmp(running, BLKMIG_QEMU)) {
        error_report("blkmig: this object is for " BLKMIG_QEMU
                     ", but this is %s", running);
        exit(1);
    }
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id,
                                           const qemu_info_t *info,
                                           int argc, char **argv)
{
    Object *settings;

    blkmig_init_host();
    settings = object_resolve_path("/blkmig", NULL);
    for (int i = 0; i < argc; i++) {
        g_auto(GStrv) pair = g_strsplit(argv[i], "=", 2);

        /* Ends QEMU, as a wrong argument of its own does. */
        object_property_parse(settings, pair[0], pair[1] ?: "on",
                              &error_fatal);
    }
    return 0;
}
