/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guest of the migration tests: the only program of its initramfs.
 *
 * Its disk is an array of records. First it writes them all, says "READY" on
 * the serial line and then overwrites records at random, each with a sequence
 * number of its own that it remembers in memory. Memory moves with the guest,
 * so after a migration it knows what the disk must hold. The commands, each a
 * character on the serial line:
 *   v   stop writing, read the whole disk, say "VERIFY OK ..." or "VERIFY BAD
 *       ..." and go on writing
 *   p   power off
 * The kernel's command line may give pause=MICROSECONDS between two writes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#define WORDS 512                       /* a record: 4 KiB */
#define BATCH 256                       /* records in one large request: 1 MiB */
#define MAGIC 0x626c6b6d69676f6bULL

typedef struct Record {
    uint64_t word[WORDS];               /* magic, index, sequence, filling, checksum */
} Record;

static const char *const modules[] = {
    "virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev",
    "virtio_pci", "virtio_blk",
};

static int serial = -1;
static int disk = -1;
static uint64_t records;
static uint64_t *sequence;              /* what each record must hold */
static uint64_t writes;

static void say(const char *format, ...)
{
    char line[256];
    va_list args;
    int length;

    va_start(args, format);
    length = vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    if (write(serial, line, length) != length) {
        perror("serial");
    }
}

static void stop(const char *what)
{
    say("GUEST BAD %s: %s\r\n", what, strerror(errno));
    for (;;) {
        pause();
    }
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static uint64_t checksum(const Record *record)
{
    uint64_t sum = 0;

    for (int i = 0; i < WORDS - 1; i++) {
        sum = (sum << 1 | sum >> 63) ^ record->word[i];
    }
    return sum;
}

static void fill(Record *record, uint64_t index)
{
    uint64_t state = index * 2654435761u + sequence[index] + 1;

    record->word[0] = MAGIC;
    record->word[1] = index;
    record->word[2] = sequence[index];
    for (int i = 3; i < WORDS - 1; i++) {
        record->word[i] = next_random(&state);
    }
    record->word[WORDS - 1] = checksum(record);
}

static void write_records(const Record *record, uint64_t index, uint64_t count)
{
    size_t size = count * sizeof(*record);

    if (pwrite(disk, record, size, index * sizeof(*record)) != (ssize_t)size) {
        stop("write");
    }
    writes++;
}

/* Reads and compares every record with what memory knows of it. */
static void verify(Record *batch)
{
    Record want;

    for (uint64_t first = 0; first < records; first += BATCH) {
        uint64_t count = records - first < BATCH ? records - first : BATCH;
        ssize_t size = count * sizeof(*batch);

        if (pread(disk, batch, size, first * sizeof(*batch)) != size) {
            stop("read");
        }
        for (uint64_t i = 0; i < count; i++) {
            fill(&want, first + i);
            if (memcmp(&batch[i], &want, sizeof(want)) != 0) {
                say("VERIFY BAD record %llu: sequence %llu, should be %llu; checksum %s\r\n",
                    (unsigned long long)(first + i),
                    (unsigned long long)batch[i].word[2],
                    (unsigned long long)sequence[first + i],
                    checksum(&batch[i]) == batch[i].word[WORDS - 1] ? "right" : "wrong");
                return;
            }
        }
    }
    say("VERIFY OK records=%llu writes=%llu\r\n", (unsigned long long)records,
        (unsigned long long)writes);
}

static void load_modules(void)
{
    for (size_t i = 0; i < sizeof(modules) / sizeof(modules[0]); i++) {
        char path[64];
        int fd;

        snprintf(path, sizeof(path), "/modules/%s.ko", modules[i]);
        fd = open(path, O_RDONLY);
        if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) < 0) {
            stop(path);
        }
        close(fd);
    }
}

static void open_serial(void)
{
    struct termios mode;

    serial = open("/dev/ttyS0", O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (tcgetattr(serial, &mode) == 0) {
        cfmakeraw(&mode);
        tcsetattr(serial, TCSANOW, &mode);
    }
}

static unsigned pause_us(void)
{
    char line[1024] = "";
    int fd = open("/proc/cmdline", O_RDONLY);
    char *value;

    if (read(fd, line, sizeof(line) - 1) < 0) {
        stop("/proc/cmdline");
    }
    close(fd);
    value = strstr(line, "pause=");
    return value ? strtoul(value + 6, NULL, 10) : 0;
}

static void open_disk(void)
{
    uint64_t bytes = 0;

    for (int i = 0; i < 100 && disk < 0; i++) {
        disk = open("/dev/vda", O_RDWR | O_DIRECT);
        usleep(50000);
    }
    if (disk < 0 || ioctl(disk, BLKGETSIZE64, &bytes) < 0) {
        stop("/dev/vda");
    }
    records = bytes / sizeof(Record);
    sequence = calloc(records, sizeof(*sequence));
    if (!sequence) {
        stop("memory");
    }
}

int main(void)
{
    uint64_t state = 88172645463325252ULL;
    unsigned wait;
    Record *batch;

    mount("dev", "/dev", "devtmpfs", 0, "");
    mount("proc", "/proc", "proc", 0, "");
    open_serial();
    load_modules();
    open_disk();
    wait = pause_us();
    if (posix_memalign((void **)&batch, 4096, BATCH * sizeof(Record)) != 0) {
        stop("memory");
    }

    for (uint64_t first = 0; first < records; first += BATCH) {
        uint64_t count = records - first < BATCH ? records - first : BATCH;

        for (uint64_t i = 0; i < count; i++) {
            fill(&batch[i], first + i);
        }
        write_records(batch, first, count);
    }
    say("READY records=%llu\r\n", (unsigned long long)records);

    for (;;) {
        uint64_t index = next_random(&state) % records;
        char command;

        sequence[index]++;
        fill(batch, index);
        write_records(batch, index, 1);
        if (read(serial, &command, 1) == 1) {
            if (command == 'v') {
                verify(batch);
            } else if (command == 'p') {
                reboot(RB_POWER_OFF);
                stop("power off");
            }
        }
        usleep(wait);
    }
}
