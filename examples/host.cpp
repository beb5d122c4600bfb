// SPDX-License-Identifier: GPL-2.0-only
//
// A complete host of libblkmig in C++ (17 or later): as host.c, but the guest has its own thread, and reads complete on
// another thread. Source and destination are processes with a socket between them. At the end the disks are compared.
//
//     c++ -std=c++20 -pthread host.cpp $(pkg-config --cflags --libs blkmig) -o host && ./host
#include <blkmig.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <iostream>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

constexpr int64_t SECTOR = 512, CHUNK_SECTORS = 2048;

// ---- Disks. The library only knows the names of this type and of the stream's: they hold what the host needs. ----

struct BlockDriverState {
    std::string name;
    int64_t sectors;                       // any number: the last chunk may be shorter than the others
    std::vector<bool> dirty{};             // for each chunk: has the guest written to it? Empty: nobody wants to know
    uint8_t *data = nullptr;

    size_t bytes() const { return static_cast<size_t>(sectors * SECTOR); }

    void change(int64_t sector, int nb_sectors, bool is_dirty)
    {
        for (auto chunk = sector / CHUNK_SECTORS; chunk <= (sector + nb_sectors - 1) / CHUNK_SECTORS; chunk++) {
            dirty.at(static_cast<size_t>(chunk)) = is_dirty;
        }
    }
};

static std::array<BlockDriverState, 2> disks{{{"system", 20 * CHUNK_SECTORS + 3}, {"data", 9 * CHUNK_SECTORS}}};
static std::mutex disks_lock;              // of data and dirty bits; never held while the library is called

static int disk_read(BlockDriverState *bs, int64_t sector, uint8_t *buf, int nb_sectors)
{
    std::lock_guard guard(disks_lock);
    std::memcpy(buf, bs->data + sector * SECTOR, static_cast<size_t>(nb_sectors * SECTOR));
    return 0;
}

// The guest's writes, and on the destination the library's. The bit is set after the data: if it was set before them,
// it could be reset, and the old data read, in between.
static int disk_write(BlockDriverState *bs, int64_t sector, const uint8_t *buf, int nb_sectors)
{
    std::lock_guard guard(disks_lock);
    std::memcpy(bs->data + sector * SECTOR, buf, static_cast<size_t>(nb_sectors * SECTOR));
    if (!bs->dirty.empty()) {
        bs->change(sector, nb_sectors, true);
    }
    return 0;
}

// A thread that does what it is asked, one thing after the other.
class Worker {
public:
    ~Worker() { add(nullptr), thread.join(); }

    void add(std::function<void()> job)
    {
        std::lock_guard guard(lock);
        jobs.push_back(std::move(job));
        changed.notify_all();
    }

    void flush()                           // returns when every job has ended, its completion included
    {
        std::unique_lock guard(lock);
        changed.wait(guard, [this] { return jobs.empty(); });
    }

private:
    void work()
    {
        std::unique_lock guard(lock);
        while (changed.wait(guard, [this] { return !jobs.empty(); }), jobs.front()) {
            auto job = jobs.front();
            guard.unlock();
            job();
            guard.lock();
            jobs.pop_front();
            changed.notify_all();
        }
    }

    std::mutex lock;
    std::condition_variable changed;
    std::deque<std::function<void()>> jobs;
    std::thread thread{&Worker::work, this};   // last: it uses the others
};
static std::unique_ptr<Worker> worker;     // made after fork, which copies no threads

// ---- The stream: a socket behind stdio. Once it has failed it stays failed. ----

struct QEMUFile {
    std::FILE *in, *out;
    int error = 0;

    explicit QEMUFile(int socket) : in(fdopen(socket, "rb")), out(fdopen(dup(socket), "wb"))
    {
        if (!in || !out) {
            throw std::system_error(errno, std::generic_category(), "the socket");
        }
    }
    QEMUFile(const QEMUFile &) = delete;
    QEMUFile &operator=(const QEMUFile &) = delete;
    ~QEMUFile() { std::fclose(in), std::fclose(out); }

    void fail(int ret) { error = error ? error : ret; }

    void put(const uint8_t *bytes, size_t size)
    {
        if (!error && std::fwrite(bytes, 1, size, out) != size) {
            fail(-errno);
        }
    }

    void put_number(uint64_t v, int bytes)
    {
        for (int shift = 8 * bytes - 8; shift >= 0; shift -= 8) {
            auto byte = static_cast<uint8_t>(v >> shift);
            put(&byte, 1);
        }
    }

    uint64_t get_number(int bytes)
    {
        uint64_t v = 0;
        while (bytes-- > 0) {
            int byte = std::fgetc(in);
            v = v << 8 | static_cast<uint8_t>(byte == EOF ? 0 : byte);
        }
        return v;
    }

    void flush()
    {
        if (std::fflush(out) != 0) {
            fail(-errno);
        }
    }
};

// ---- The tables. A lambda that captures nothing is a function for C; none of them may throw. A function not set
// is NULL: the header says which may be. (With C++20's designated initializers g++ -Wextra asks for all of them.) ----

template <class Table> static Table table()
{
    Table t{};
    t.struct_size = sizeof(t);
    return t;
}

static BlkMigBdrvOps device_functions()
{
    auto bdrv = table<BlkMigBdrvOps>();
    bdrv.iterate = [](BlkMigDeviceVisitor *it, void *opaque) {
        for (auto &disk : disks) {
            it(opaque, &disk);
        }
    };
    bdrv.find = [](const char *name) {
        auto found = std::find_if(disks.begin(), disks.end(), [=](auto &disk) { return disk.name == name; });
        return found == disks.end() ? nullptr : &*found;
    };
    bdrv.get_device_name = [](BlockDriverState *bs) { return bs->name.c_str(); };
    bdrv.getlength = [](BlockDriverState *bs) { return bs->sectors * SECTOR; };
    bdrv.is_read_only = [](BlockDriverState *) { return 0; };
    // There are no backing files here, so all of a disk is in its own image.
    bdrv.is_allocated = [](BlockDriverState *, int64_t, int nb_sectors, int *pnum) { return *pnum = nb_sectors, 1; };
    bdrv.read = disk_read;
    bdrv.write = disk_write;
    // Other than NULL means that it was started. The callback is called exactly once, here on the worker's thread.
    bdrv.aio_read = [](BlockDriverState *bs, int64_t sector, uint8_t *buf, int nb_sectors, BlkMigCompletion *cb,
                       void *opaque) -> void * {
        worker->add([=] { cb(opaque, disk_read(bs, sector, buf, nb_sectors)); });
        return bs;
    };
    bdrv.aio_flush = [] { worker->flush(); };
    return bdrv;
}

static BlkMigDirtyOps dirty_functions()
{
    auto dirty = table<BlkMigDirtyOps>();
    dirty.set_tracking = [](BlockDriverState *bs, int enable) {
        std::lock_guard guard(disks_lock);
        bs->dirty.assign(enable ? static_cast<size_t>((bs->sectors + CHUNK_SECTORS - 1) / CHUNK_SECTORS) : 0, false);
        return 0;
    };
    dirty.get = [](BlockDriverState *bs, int64_t sector) {
        std::lock_guard guard(disks_lock);
        return bs->dirty.at(static_cast<size_t>(sector / CHUNK_SECTORS)) ? 1 : 0;
    };
    dirty.reset = [](BlockDriverState *bs, int64_t sector, int nb_sectors) {
        std::lock_guard guard(disks_lock);
        bs->change(sector, nb_sectors, false);
    };
    dirty.get_count = [](BlockDriverState *bs) {
        std::lock_guard guard(disks_lock);
        return static_cast<int64_t>(std::count(bs->dirty.begin(), bs->dirty.end(), true));
    };
    return dirty;
}

static BlkMigFileOps file_functions()
{
    auto file = table<BlkMigFileOps>();
    file.put_buffer = [](QEMUFile *f, const uint8_t *buf, int size) { f->put(buf, static_cast<size_t>(size)); };
    file.put_byte = [](QEMUFile *f, int v) { f->put_number(static_cast<uint8_t>(v), 1); };
    file.put_be64 = [](QEMUFile *f, uint64_t v) { f->put_number(v, 8); };
    file.get_buffer = [](QEMUFile *f, uint8_t *buf, int size) {
        return static_cast<int>(std::fread(buf, 1, static_cast<size_t>(size), f->in));
    };
    file.get_byte = [](QEMUFile *f) { return static_cast<int>(f->get_number(1)); };
    file.get_be64 = [](QEMUFile *f) { return f->get_number(8); };
    file.rate_limit = [](QEMUFile *) { return 0; };
    file.get_rate_limit = [](QEMUFile *) { return int64_t{0}; };
    file.has_error = [](QEMUFile *f) { return f->error; };
    file.set_error = [](QEMUFile *f, int ret) { f->fail(ret); };
    file.flush = [](QEMUFile *f) { f->flush(); };
    return file;
}

static BlkMigSystemOps system_functions()
{
    auto sys = table<BlkMigSystemOps>();
    // Hosts that call blk_mig_init get their callbacks here; this one calls the functions itself.
    sys.register_savevm_live = [](void *, const char *, int, int, BlkMigSetParams *, BlkMigSaveLive *, void *,
                                  BlkMigLoad *, void *) { return 0; };
    sys.clock_ns = [] {
        auto now = std::chrono::steady_clock::now().time_since_epoch();
        return int64_t{std::chrono::duration_cast<std::chrono::nanoseconds>(now).count()};
    };
    sys.max_downtime_ns = [] { return uint64_t{300'000'000}; };
    sys.log = [](int level, const char *text) {
        if (level <= 2) {
            std::cerr << "blkmig: " << text << '\n';
        }
    };
    return sys;
}

static int set_host()
{
    const auto bdrv = device_functions();
    const auto dirty = dirty_functions();
    const auto file = file_functions();
    const auto sys = system_functions();
    auto host = table<BlkMigHost>();
    host.abi_version = BLK_MIG_ABI_VERSION;
    host.flags = BLK_MIG_HOST_THREADED;    // completions come on another thread: iterate may block for one
    host.bdrv = &bdrv;
    host.dirty = &dirty;
    host.file = &file;
    host.system = &sys;
    // 8 MiB of memory on each side. A chunk of zeroes takes a few bytes, which QEMU's original of 2011 can't read.
    auto options = table<BlkMigOptions>();
    options.max_buffers = 8;
    options.zero_blocks = 1;
    int ret = blk_mig_set_host(&host);     // copies the tables
    return ret < 0 ? ret : blk_mig_set_options(&options);
}

static void guest(const std::atomic<bool> &runs)
{
    std::minstd_rand random;
    std::array<uint8_t, 8 * SECTOR> block;
    while (runs) {
        auto &disk = disks.at(random() % disks.size());
        block.fill(static_cast<uint8_t>(random()));
        // In the first quarter of a disk: what it makes dirty fits the limit below, however slow the link is.
        disk_write(&disk, random() % (disk.sectors / 4), block.data(), 8);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

// ---- Both sides. The library writes and reads sections; what lies between them is the host's own. ----

enum Mark { SECTION = 1, END = 2, RECEIVED = 3 };

static int migrate(QEMUFile *f)
{
    const uint64_t limit = 16 << 20;       // the bytes that the link takes within the downtime that the user allows
    std::atomic<bool> guest_runs = true;
    std::thread guest_thread(guest, std::cref(guest_runs));
    f->put_number(SECTION, 1);
    int ret = blk_mig_save_setup(f, nullptr);
    while (ret >= 0 && blk_mig_save_pending_switchover(nullptr, limit) > limit) {
        f->put_number(SECTION, 1);
        ret = blk_mig_save_iterate(f, nullptr);
    }
    // No write may be under way when the last stage begins. After an error, a real guest would continue.
    guest_runs = false;
    guest_thread.join();
    if (ret >= 0) {
        f->put_number(SECTION, 1);
        ret = blk_mig_save_complete(f, nullptr);
    }
    blk_mig_save_cleanup(nullptr);         // always, also after an error
    if (ret < 0) {
        return ret;
    }
    f->put_number(END, 1);
    f->flush();
    // Only the destination knows that all has arrived. Until it says so the guest must not run there.
    return f->error ? f->error : f->get_number(1) == RECEIVED ? 0 : -EIO;
}

static int receive(QEMUFile *f)
{
    int ret = 0;
    uint64_t mark = 0;
    while (ret == 0 && (mark = f->get_number(1)) == SECTION) {
        ret = blk_mig_load(f, nullptr, 1);
    }
    if (ret < 0 || mark != END) {          // with no END the source has gone, and what is here is not all of it
        return ret < 0 ? ret : -EPIPE;
    }
    f->put_number(RECEIVED, 1);
    f->flush();
    return f->error;
}

// One side, in its own process: 0 if all went well.
static int run(const char *side, int socket, int (*work)(QEMUFile *f))
{
    QEMUFile f(socket);
    worker = std::make_unique<Worker>();
    int ret = set_host();
    ret = ret < 0 ? ret : work(&f);
    worker.reset();
    if (ret < 0) {
        std::string text(blk_mig_last_error(nullptr, 0) + 1, '\0');
        blk_mig_last_error(text.data(), text.size());
        std::cerr << side << ": " << (text[0] ? text.c_str() : std::strerror(-ret)) << '\n';
    }
    return ret < 0;
}

int main()
{
    int sockets[2], status;
    std::array<uint8_t *, disks.size()> from, to;
    std::signal(SIGPIPE, SIG_IGN);         // a peer that is gone is an error of the stream and not our end
    for (size_t i = 0; i < disks.size(); i++) {
        for (auto *memory : {&from[i], &to[i]}) {
            auto *shared = mmap(nullptr, disks[i].bytes(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
            if (shared == MAP_FAILED) {
                return std::perror("mmap"), 1;
            }
            *memory = static_cast<uint8_t *>(shared);
        }
        std::memset(from[i], 0xd5, disks[i].bytes() / 2);
        std::memset(to[i], 0xee, disks[i].bytes());   // what the destination held before
    }
    auto child = socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) < 0 ? -1 : fork();
    if (child < 0) {
        return std::perror("socketpair or fork"), 1;
    }
    close(sockets[child == 0]);            // or nobody would see the end of the other process
    for (size_t i = 0; i < disks.size(); i++) {
        disks[i].data = child == 0 ? to[i] : from[i];
    }
    if (child == 0) {
        return run("destination", sockets[0], receive);
    }
    int ret = run("source", sockets[1], migrate);
    if (waitpid(child, &status, 0) < 0 || status != 0 || ret) {
        return 1;
    }
    auto stats = table<BlkMigStats>();
    blk_mig_get_stats(&stats);
    std::cout << "sent " << stats.chunks_sent << " chunks: " << stats.chunks_zero << " zero ones, "
              << stats.chunks_resent << " that the guest wrote to again\n";
    for (size_t i = 0; i < disks.size(); i++) {
        bool same = std::memcmp(from[i], to[i], disks[i].bytes()) == 0;
        std::cout << "disk " << disks[i].name << ": " << (same ? "the same on both sides" : "DIFFERS") << '\n';
        ret |= !same;
    }
    return ret;
}
