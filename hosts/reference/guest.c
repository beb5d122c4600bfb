/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A guest: one thread that writes 64 KiB at a time. Like most guests it has a hot area, here 16 MiB of each disk, and
 * now and then it touches any other place, the very last sectors of a disk among them.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "hv.h"

#define WRITE_SECTORS 128
#define HOT_SECTORS   (INT64_C(16) << 11)
#define MAX_DISKS     64

static struct {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool started, running, ending, writing;
    double bytes_per_ns;
    atomic_uint_fast64_t written;
    BlockDriverState *disks[MAX_DISKS];
    int count;
} guest = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Every 32nd write is of zeroes: guests do that too. */
static void fill_buffer(uint64_t *random, uint8_t *buf, size_t size)
{
    bool zero = next_random(random) % 32 == 0;
    for (size_t at = 0; at < size; at += sizeof(uint64_t)) {
        uint64_t word = zero ? 0 : next_random(random);
        memcpy(buf + at, &word, sizeof(word));
    }
}

static bool write_once(uint64_t *random)
{
    static uint8_t buf[WRITE_SECTORS * HV_SECTOR_SIZE];
    BlockDriverState *bs = guest.disks[next_random(random) % (uint64_t)guest.count];
    int64_t sectors = hv_disk_getlength(bs) / HV_SECTOR_SIZE;
    int nb = sectors < WRITE_SECTORS ? (int)sectors : WRITE_SECTORS;
    uint64_t kind = next_random(random) % 64;
    int64_t places = (kind < 56 && sectors > HOT_SECTORS ? HOT_SECTORS : sectors) - nb + 1;
    int64_t sector = kind == 63 ? sectors - nb : (int64_t)(next_random(random) % (uint64_t)places);
    fill_buffer(random, buf, sizeof(buf));
    if (hv_disk_write(bs, sector, buf, nb) < 0) {
        return false;
    }
    atomic_fetch_add(&guest.written, (uint64_t)nb * HV_SECTOR_SIZE);
    return true;
}

static void sleep_ms(long ms)
{
    struct timespec time = { .tv_sec = 0, .tv_nsec = ms * 1000000 };
    nanosleep(&time, NULL);
}

/* False: the guest is stopped, or at its end. */
static bool begin_write(void)
{
    pthread_mutex_lock(&guest.lock);
    guest.writing = guest.running && !guest.ending;
    bool may = guest.writing;
    pthread_mutex_unlock(&guest.lock);
    return may;
}

static void end_write(void)
{
    pthread_mutex_lock(&guest.lock);
    guest.writing = false;
    pthread_cond_broadcast(&guest.changed);
    pthread_mutex_unlock(&guest.lock);
}

static bool wait_until_running(void)
{
    pthread_mutex_lock(&guest.lock);
    while (!guest.running && !guest.ending) {
        pthread_cond_wait(&guest.changed, &guest.lock);
    }
    bool ending = guest.ending;
    pthread_mutex_unlock(&guest.lock);
    return !ending;
}

static void *guest_thread(void *unused)
{
    (void)unused;
    uint64_t random = (uint64_t)hv_clock_ns() | 1;
    bool healthy = true;
    while (healthy && wait_until_running()) {
        int64_t start = hv_clock_ns();
        double done = 0;
        while (healthy && begin_write()) {
            bool due = done <= (double)(hv_clock_ns() - start) * guest.bytes_per_ns;
            healthy = !due || write_once(&random);
            done += due ? WRITE_SECTORS * HV_SECTOR_SIZE : 0;
            end_write();
            if (!due) {
                sleep_ms(1);
            }
        }
    }
    return NULL;
}

static void add_disk(void *unused, BlockDriverState *bs)
{
    (void)unused;
    if (!hv_disk_is_read_only(bs) && hv_disk_bytes(bs) > 0 && guest.count < MAX_DISKS) {
        guest.disks[guest.count++] = bs;
    }
}

int hv_guest_start(double mb_per_second)
{
    guest.count = 0;
    guest.running = true;
    guest.ending = false;
    guest.bytes_per_ns = mb_per_second * 1e6 / 1e9;
    atomic_store(&guest.written, 0);
    hv_disk_iterate(add_disk, NULL);
    if (guest.count == 0 || mb_per_second <= 0) {
        return 0;
    }
    int ret = -pthread_create(&guest.thread, NULL, guest_thread, NULL);
    guest.started = ret == 0;
    return ret;
}

static void set_running(bool running, bool ending)
{
    pthread_mutex_lock(&guest.lock);
    guest.running = running;
    guest.ending = ending;
    pthread_cond_broadcast(&guest.changed);
    while (!running && guest.writing) {
        pthread_cond_wait(&guest.changed, &guest.lock);
    }
    pthread_mutex_unlock(&guest.lock);
}

void hv_vm_stop(void)
{
    set_running(false, false);
}

void hv_vm_start(void)
{
    set_running(true, false);
}

void hv_guest_end(void)
{
    set_running(false, true);
    if (guest.started) {
        pthread_join(guest.thread, NULL);
        guest.started = false;
    }
}

uint64_t hv_guest_written(void)
{
    return atomic_load(&guest.written);
}
