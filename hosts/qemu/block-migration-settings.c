/*
 * Block migration by the blkmig library: what the user can set, at /blkmig
 *
 * SPDX-License-Identifier: GPL-2.0-only
 *
 * qom-list path=/blkmig tells what there is, qom-get and qom-set use it.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "hw/qdev-core.h"
#include "qom/object.h"
#include "block-migration-host.h"

/* What few reads bring stays in the CPU's cache on its way. */
#define DEFAULT_MAX_READS 4

/* Where a switch is QEMU's own, it is kept there and nowhere else. */
#ifdef BLKMIG_LOADABLE
/* -plugin sets these before QEMU has got its own. */
static bool enabled, zero_blocks;
#define ENABLED (&enabled)
#define ZERO_BLOCKS (&zero_blocks)
#else
#define ENABLED (&migration_capability(MIGRATION_CAPABILITY_BLOCK))
#define ZERO_BLOCKS (&migration_capability(MIGRATION_CAPABILITY_ZERO_BLOCKS))
#endif
/* The parameter is gone. */
#if QEMU_AT_LEAST(9, 1)
static bool shared_base;
#define SHARED_BASE (&shared_base)
#else
#define SHARED_BASE (&migrate_get_current()->parameters.block_incremental)
#endif

/* What is dirty is sent in these units where the stream can say so. */
#define EXTENDED_UNIT (16 * KiB)

static bool accept_tail_garbage, extended;
static int32_t compression;
static uint32_t max_buffers, max_reads, max_writes;
/* As the user gave them: separated by commas. */
static char *chosen_devices;

bool blkmig_is_enabled(void)
{
    return *ENABLED;
}

bool blkmig_shares_base(void)
{
    return *SHARED_BASE;
}

int blkmig_apply_options(void)
{
    BlkMigOptions options = {
        .struct_size = sizeof(options),
        .max_buffers = max_buffers,
        .max_reads = max_reads ?: DEFAULT_MAX_READS,
        .max_writes = max_writes,
        .zero_blocks = *ZERO_BLOCKS,
        .accept_tail_garbage = accept_tail_garbage,
        .stream = extended ? 2 : 1,
        .compression = compression,
    };

    return blk_mig_set_options(&options);
}

uint32_t blkmig_dirty_unit(void)
{
    return extended ? EXTENDED_UNIT : CHUNK;
}

static char *last_error(void)
{
    size_t size = blk_mig_last_error(NULL, 0) + 1;
    char *text = g_malloc0(size);

    blk_mig_last_error(text, size);
    return text;
}

/* Whether the library takes the options as they are now; else says why not. */
static bool options_are_good(Error **errp)
{
    g_autofree char *text = NULL;

    if (blkmig_apply_options() == 0) {
        return true;
    }
    text = last_error();
    error_setg(errp, "%s", text);
    return false;
}

static bool check_settable(Error **errp)
{
    /* With -plugin: there is no migration before there is a machine. */
    if (!phase_check(PHASE_MACHINE_CREATED)) {
        return true;
    }
    switch (migrate_get_current()->state) {
    case MIGRATION_STATUS_NONE:
    case MIGRATION_STATUS_CANCELLED:
    case MIGRATION_STATUS_COMPLETED:
    case MIGRATION_STATUS_FAILED:
        /* The devices are those of an incoming one. */
        if (!blkmig_has_devices()) {
            return true;
        }
        break;
    default:
        break;
    }
    error_setg(errp, "There's a migration process in progress");
    return false;
}

#define BOOL_PROPERTY(property, where)                                 \
static bool get_##property(Object *obj, Error **errp)                  \
{                                                                      \
    return *(where);                                                   \
}                                                                      \
static void set_##property(Object *obj, bool value, Error **errp)      \
{                                                                      \
    if (check_settable(errp)) {                                        \
        *(where) = value;                                              \
    }                                                                  \
}

BOOL_PROPERTY(enabled, ENABLED)
BOOL_PROPERTY(shared_base, SHARED_BASE)
BOOL_PROPERTY(zero_blocks, ZERO_BLOCKS)
BOOL_PROPERTY(accept_tail_garbage, &accept_tail_garbage)

static void get_number(Object *obj, Visitor *v, const char *name, void *opaque,
                       Error **errp)
{
    visit_type_uint32(v, name, opaque, errp);
}

static void set_number(Object *obj, Visitor *v, const char *name, void *opaque,
                       Error **errp)
{
    uint32_t *where = opaque;
    uint32_t before = *where;
    uint32_t value;

    if (!visit_type_uint32(v, name, &value, errp) || !check_settable(errp)) {
        return;
    }
    *where = value;
    if (!options_are_good(errp)) {
        *where = before;
    }
}

static char *get_stream(Object *obj, Error **errp)
{
    return g_strdup(extended ? "extended" : "classic");
}

static void set_stream(Object *obj, const char *value, Error **errp)
{
    bool before = extended;

    if (!check_settable(errp)) {
        return;
    }
    if (strcmp(value, "classic") && strcmp(value, "extended")) {
        error_setg(errp, "'stream' is 'classic' or 'extended', not '%s'",
                   value);
        return;
    }
    extended = !strcmp(value, "extended");
    if (!options_are_good(errp)) {
        extended = before;
    }
}

static void get_compression(Object *obj, Visitor *v, const char *name,
                            void *opaque, Error **errp)
{
    visit_type_int32(v, name, &compression, errp);
}

static void set_compression(Object *obj, Visitor *v, const char *name,
                            void *opaque, Error **errp)
{
    int32_t before = compression;
    int32_t value;

    if (!visit_type_int32(v, name, &value, errp) || !check_settable(errp)) {
        return;
    }
    compression = value;
    if (!options_are_good(errp)) {
        compression = before;
    }
}

static char *get_devices(Object *obj, Error **errp)
{
    return g_strdup(chosen_devices ?: "");
}

static void set_devices(Object *obj, const char *value, Error **errp)
{
    g_auto(GStrv) names = g_strsplit(value, ",", -1);
    g_autofree char *text = NULL;

    if (!check_settable(errp)) {
        return;
    }
    for (char **name = names; *name; name++) {
        if (!**name) {
            error_setg(errp, "'devices' has an empty name");
            return;
        }
    }
    if (blk_mig_set_devices((const char *const *)names,
                            g_strv_length(names)) < 0) {
        text = last_error();
        error_setg(errp, "%s", text);
        return;
    }
    g_free(chosen_devices);
    chosen_devices = g_strdup(value);
}

static char *get_last_error(Object *obj, Error **errp)
{
    return last_error();
}

static bool visit_stats(Visitor *v, BlkMigStats *stats, Error **errp)
{
    return visit_type_uint64(v, "bytes-total", &stats->bytes_total, errp) &&
        visit_type_uint64(v, "bytes-transferred", &stats->bytes_transferred,
                          errp) &&
        visit_type_uint64(v, "bytes-remaining", &stats->bytes_remaining,
                          errp) &&
        visit_type_uint64(v, "chunks-sent", &stats->chunks_sent, errp) &&
        visit_type_uint64(v, "chunks-resent", &stats->chunks_resent, errp) &&
        visit_type_uint64(v, "chunks-zero", &stats->chunks_zero, errp) &&
        visit_type_uint64(v, "wire-bytes", &stats->wire_bytes, errp) &&
        visit_type_uint64(v, "dirty-bytes", &stats->dirty_bytes, errp) &&
        visit_type_uint32(v, "reads-in-flight", &stats->reads_in_flight,
                          errp) &&
        visit_type_uint32(v, "buffers-in-use", &stats->buffers_in_use, errp) &&
        visit_type_uint32(v, "buffers-peak", &stats->buffers_peak, errp) &&
        visit_type_int32(v, "last-error", &stats->last_error, errp) &&
        visit_type_uint64(v, "bandwidth", &stats->bandwidth, errp) &&
        visit_type_uint64(v, "expected-downtime-ns",
                          &stats->expected_downtime_ns, errp) &&
        visit_type_uint64(v, "elapsed-ns", &stats->elapsed_ns, errp) &&
        visit_type_uint64(v, "dirty-rate", &stats->dirty_rate, errp) &&
        visit_type_uint64(v, "data-bytes", &stats->data_bytes, errp) &&
        visit_type_uint64(v, "payload-bytes", &stats->payload_bytes, errp) &&
        visit_type_uint64(v, "checksummed-bytes", &stats->checksummed_bytes,
                          errp);
}

static void get_stats(Object *obj, Visitor *v, const char *name, void *opaque,
                      Error **errp)
{
    BlkMigStats stats = { .struct_size = sizeof(stats) };

    blk_mig_get_stats(&stats);
    if (!visit_start_struct(v, name, NULL, 0, errp)) {
        return;
    }
    if (visit_stats(v, &stats, errp)) {
        visit_check_struct(v, errp);
    }
    visit_end_struct(v, NULL);
}

static void add_number(Object *obj, const char *name, uint32_t *where)
{
    object_property_add(obj, name, "uint32", get_number, set_number, NULL,
                        where);
}

void blkmig_add_settings(void)
{
    Object *obj = object_new("container");

    object_property_add_bool(obj, "enabled", get_enabled, set_enabled);
    object_property_add_bool(obj, "shared-base", get_shared_base,
                             set_shared_base);
    object_property_add_bool(obj, "zero-blocks", get_zero_blocks,
                             set_zero_blocks);
    object_property_add_bool(obj, "accept-tail-garbage",
                             get_accept_tail_garbage,
                             set_accept_tail_garbage);
    object_property_add_str(obj, "devices", get_devices, set_devices);
    object_property_add_str(obj, "stream", get_stream, set_stream);
    object_property_add(obj, "compression", "int32", get_compression,
                        set_compression, NULL, NULL);
    add_number(obj, "max-buffers", &max_buffers);
    add_number(obj, "max-reads", &max_reads);
    add_number(obj, "max-writes", &max_writes);
    object_property_add(obj, "stats", "BlkMigStats", get_stats, NULL, NULL,
                        NULL);
    object_property_add_str(obj, "last-error", get_last_error, NULL);
    object_property_add_child(object_get_root(), "blkmig", obj);
    object_unref(obj);
}
