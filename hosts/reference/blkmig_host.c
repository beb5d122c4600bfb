/* SPDX-License-Identifier: GPL-2.0-only */
/* The table file: all that a hypervisor adds to its own tree to use libblkmig. */
#include "blkmig_host.h"

#define FINE_BYTES 65536                   /* what a dirty bit stands for with the extended stream */

enum { CLASSIC_STREAM = 1, EXTENDED_STREAM = 2 };   /* for BlkMigOptions.stream */

static void fill_device_table(BlkMigBdrvOps *bdrv)
{
    *bdrv = (BlkMigBdrvOps){
        .struct_size = sizeof(*bdrv),
        .iterate = hv_disk_iterate,
        .find = hv_disk_find,
        .get_device_name = hv_disk_name,
        .getlength = hv_disk_getlength,
        .is_read_only = hv_disk_is_read_only,
        .is_allocated = hv_disk_is_allocated,
        .read = hv_disk_read,
        .write = hv_disk_write,
        .aio_read = hv_aio_read,
        .aio_flush = hv_aio_flush,
        .ref = hv_disk_ref,
        .unref = hv_disk_unref,
        .aio_write = hv_aio_write,
        .aio_wait = hv_aio_wait,
        .write_zeroes = hv_disk_write_zeroes,
        .is_zero = hv_disk_is_zero,
        .cluster_size = hv_disk_cluster_size,
        .activate = hv_disk_activate,
        .flush = hv_disk_flush,
    };
}

void hv_fill_tables(HvTables *t, bool threaded)
{
    fill_device_table(&t->bdrv);
    t->dirty = (BlkMigDirtyOps){
        .struct_size = sizeof(t->dirty),
        .set_tracking = hv_disk_set_tracking,
        .get = hv_disk_get_dirty,
        .reset = hv_disk_reset_dirty,
        .get_count = hv_disk_dirty_count,
        .next = hv_disk_next_dirty,
        .granularity = hv_disk_granularity,
    };
    t->file = (BlkMigFileOps){
        .struct_size = sizeof(t->file),
        .put_buffer = hv_file_put_buffer,
        .put_byte = hv_file_put_byte,
        .put_be64 = hv_file_put_be64,
        .get_buffer = hv_file_get_buffer,
        .get_byte = hv_file_get_byte,
        .get_be64 = hv_file_get_be64,
        .rate_limit = hv_file_rate_limit,
        .get_rate_limit = hv_file_get_rate_limit,
        .has_error = hv_file_has_error,
        .set_error = hv_file_set_error,
        .flush = hv_file_flush,
        .put_buffer_nocopy = hv_file_put_buffer_nocopy,
    };
    t->monitor = (BlkMigMonitorOps){
        .struct_size = sizeof(t->monitor),
        .printf = hv_monitor_printf,
        .flush = hv_monitor_flush,
    };
    t->system = (BlkMigSystemOps){
        .struct_size = sizeof(t->system),
        .register_savevm_live = hv_register_savevm_live,
        .clock_ns = hv_clock_ns,
        .max_downtime_ns = hv_max_downtime_ns,
        .error_report = hv_error_report,
        .log = hv_log,
    };
    t->host = (BlkMigHost){
        .struct_size = sizeof(t->host),
        .abi_version = BLK_MIG_ABI_VERSION,
        .flags = threaded ? BLK_MIG_HOST_THREADED : 0,
        .bdrv = &t->bdrv,
        .dirty = &t->dirty,
        .file = &t->file,
        .monitor = &t->monitor,
        .system = &t->system,
    };
}

static int choose_devices(const HvOptions *o)
{
    const char *names[HV_MAX_DISKS];
    size_t count = 0;
    for (int i = 0; i < o->disk_count; i++) {
        if (!o->disks[i].left_out) {
            names[count++] = o->disks[i].name;
        }
    }
    return blk_mig_set_devices(o->devices ? names : NULL, count);
}

static int init(const HvOptions *o)
{
    char text[256];
    HvTables tables;
    BlkMigOptions options = { .struct_size = sizeof(options), .max_buffers = o->max_buffers,
                              .zero_blocks = o->zero_blocks, .accept_tail_garbage = o->accept_tail_garbage,
                              .stream = o->extended ? EXTENDED_STREAM : CLASSIC_STREAM,
                              .compression = o->compression };
    hv_disk_set_granularity(o->extended ? FINE_BYTES : HV_CHUNK_SECTORS * HV_SECTOR_SIZE);
    hv_fill_tables(&tables, !o->stages);
    int ret = blk_mig_set_host(&tables.host);
    if (ret == 0) {
        ret = blk_mig_set_options(&options);
    }
    if (ret == 0) {
        ret = choose_devices(o);
    }
    if (ret == 0) {
        blk_mig_init();
        ret = hv_section() ? 0 : -1;
    }
    if (ret < 0) {
        blk_mig_last_error(text, sizeof(text));
        hv_fail(ret, "libblkmig: %s", text);
    }
    return ret;
}

static void get_stats(HvStats *out)
{
    BlkMigStats stats = { .struct_size = sizeof(stats) };
    blk_mig_get_stats(&stats);
    *out = (HvStats){ .total = stats.bytes_total, .transferred = stats.bytes_transferred,
                      .remaining = stats.bytes_remaining, .dirty = stats.dirty_bytes,
                      .resent = stats.chunks_resent, .zeroes = stats.chunks_zero, .dirty_rate = stats.dirty_rate,
                      .data = stats.data_bytes, .payload = stats.payload_bytes,
                      .checksummed = stats.checksummed_bytes };
}

const HvModule hv_blkmig_module = {
    .name = "libblkmig",
    .init = init,
    .setup = blk_mig_save_setup,
    .iterate = blk_mig_save_iterate,
    .complete = blk_mig_save_complete,
    .pending = blk_mig_save_pending_switchover,
    .cleanup = blk_mig_save_cleanup,
    .get_stats = get_stats,
    .last_error = blk_mig_last_error,
};
