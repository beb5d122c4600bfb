// SPDX-License-Identifier: GPL-2.0-only
//! Real threads: a host whose completions come on threads of their own, a guest that writes meanwhile, and threads that
//! query. What the simulator can't show, since it has none.

#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use blkmig::buffers::Buffer;
use blkmig::call::CallContext;
use blkmig::device_name::DeviceName;
use blkmig::error::Errno;
use blkmig::geometry::{Geometry, Sector, Sectors};
use blkmig::host::{Device, Extent, Host, Stream};
use blkmig::instance::Instance;
use blkmig::request::{ReadRequest, WriteRequest};
use blkmig::settings::Options;

const CHUNK: usize = 4 * 512;
const CHUNKS: usize = 200;

/// A disk: its data, and its dirty chunks while they are tracked.
type Disk = Arc<Mutex<(Vec<u8>, Vec<bool>, bool)>>;

enum Job {
    Read(ReadRequest),
    Write(WriteRequest),
}

/// What is in flight, and the threads that work on it.
#[derive(Default)]
struct Queue {
    jobs: Mutex<(VecDeque<Job>, usize)>,
    changed: Condvar,
    closed: AtomicBool,
    /// Nothing completes while this is set, and a flush does not wait for it.
    held: AtomicBool,
    delay: Duration,
    /// A flush returns this long before the last completion has been called.
    flush_is_early: Duration,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, (VecDeque<Job>, usize)> {
        self.jobs.lock().expect("no panic with the lock")
    }

    fn add(&self, job: Job) {
        let mut jobs = self.lock();
        jobs.0.push_back(job);
        jobs.1 += 1;
        drop(jobs);
        self.changed.notify_all();
    }

    /// A thread that completes what comes, until the queue is closed and empty.
    fn work(&self, disk: &Disk, began: Instant) {
        loop {
            let mut jobs = self.lock();
            let job = loop {
                if !self.held.load(Relaxed) {
                    if let Some(job) = jobs.0.pop_front() {
                        break job;
                    }
                }
                if self.closed.load(Relaxed) {
                    return;
                }
                jobs = self.changed.wait_timeout(jobs, Duration::from_millis(5)).expect("no panic with the lock").0;
            };
            drop(jobs);
            thread::sleep(self.delay);
            if !self.flush_is_early.is_zero() {
                self.ended();
                thread::sleep(self.flush_is_early);
            }
            match job {
                Job::Read(mut request) => {
                    let at = request.sectors().start.0 as usize * 512;
                    let bytes = request.sectors().bytes();
                    request.data().copy_from_slice(&disk.lock().expect("no panic with the lock").0[at..at + bytes]);
                    request.complete(began.elapsed().as_nanos() as i64, Ok(()));
                }
                Job::Write(request) => {
                    let at = request.sectors().start.0 as usize * 512;
                    let data = request.data();
                    disk.lock().expect("no panic with the lock").0[at..at + data.len()].copy_from_slice(data);
                    request.complete(Ok(()));
                }
            }
            if self.flush_is_early.is_zero() {
                self.ended();
            }
        }
    }

    fn ended(&self) {
        self.lock().1 -= 1;
        self.changed.notify_all();
    }
}

#[derive(Clone)]
struct ThreadHost {
    disk: Disk,
    queue: Arc<Queue>,
    threaded: bool,
    began: Instant,
}

impl ThreadHost {
    fn new(queue: Queue, threaded: bool) -> ThreadHost {
        let disk = Arc::new(Mutex::new((vec![0; CHUNK * CHUNKS], vec![false; CHUNKS], false)));
        ThreadHost { disk, queue: Arc::new(queue), threaded, began: Instant::now() }
    }

    fn disk(&self) -> MutexGuard<'_, (Vec<u8>, Vec<bool>, bool)> {
        self.disk.lock().expect("no panic with the lock")
    }

    /// Data and dirty bit together.
    fn guest_writes(&self, chunk: usize, byte: u8) {
        let mut disk = self.disk();
        let at = chunk * CHUNK + usize::from(byte) % 4 * 512;
        disk.0[at..at + 512].fill(byte);
        disk.1[chunk] |= disk.2;
    }

    /// Runs `f` with a number of threads that complete requests.
    fn with_workers<T>(&self, count: usize, f: impl FnOnce() -> T) -> T {
        thread::scope(|scope| {
            for _ in 0..count {
                scope.spawn(|| self.queue.work(&self.disk, self.began));
            }
            // Also when `f` panics: the scope waits for the workers, and a failure must not look like a hang.
            let _closing = Closing(&self.queue);
            f()
        })
    }

    fn module(&self, options: Options) -> Instance<ThreadHost> {
        let instance = Instance::new(Geometry::new(4).expect("it is in range"));
        instance.set_options(options).expect("nothing runs");
        instance.set_host(self.clone()).expect("nothing runs");
        instance
    }
}

/// Lets the workers go when it is dropped.
struct Closing<'a>(&'a Queue);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.held.store(false, Relaxed);
        self.0.closed.store(true, Relaxed);
        self.0.changed.notify_all();
    }
}

impl Host for ThreadHost {
    type Device = ThreadHost;

    fn devices(&self) -> Vec<ThreadHost> {
        vec![self.clone()]
    }

    fn find(&self, name: &DeviceName) -> Option<ThreadHost> {
        (name.as_bytes() == b"disk").then(|| self.clone())
    }

    fn drain(&self) {
        let mut jobs = self.queue.lock();
        while jobs.1 > 0 && !self.queue.held.load(Relaxed) {
            jobs = self.queue.changed.wait(jobs).expect("no panic with the lock");
        }
    }

    fn threaded(&self) -> bool {
        self.threaded
    }

    fn now_ns(&self) -> i64 {
        self.began.elapsed().as_nanos() as i64
    }

    fn max_downtime_ns(&self) -> u64 {
        1_000_000
    }
}

impl Device for ThreadHost {
    fn is_same(&self, _other: &ThreadHost) -> bool {
        true
    }

    fn name(&self) -> DeviceName {
        "disk".into()
    }
    fn length(&self) -> Result<i64, Errno> {
        Ok((CHUNK * CHUNKS) as i64)
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn allocated(&self, range: Sectors) -> Result<Extent, Errno> {
        Ok(Extent { holds: true, sectors: range.count.into() })
    }
    fn read(&self, request: ReadRequest) -> Result<(), Errno> {
        self.queue.add(Job::Read(request));
        Ok(())
    }
    fn write(&self, _start: Sector, _data: &[u8]) -> Result<(), Errno> {
        Err(Errno::NOT_SUPPORTED)
    }
    fn has_write_async(&self) -> bool {
        true
    }
    fn write_async(&self, request: WriteRequest) -> Result<(), Errno> {
        self.queue.add(Job::Write(request));
        Ok(())
    }
    fn set_tracking(&self, on: bool) -> Result<(), Errno> {
        let mut disk = self.disk();
        disk.1.fill(false);
        disk.2 = on;
        Ok(())
    }
    fn is_dirty(&self, sector: Sector) -> bool {
        self.disk().1[sector.0 as usize / 4]
    }
    fn reset_dirty(&self, range: Sectors) {
        self.disk().1[range.start.0 as usize / 4] = false;
    }
    fn dirty_chunks(&self) -> Result<u64, Errno> {
        Ok(self.disk().1.iter().filter(|&&dirty| dirty).count() as u64)
    }
}

/// A stream that releases what it was lent on a thread of its own.
struct Pipe {
    bytes: VecDeque<u8>,
    error: Option<Errno>,
    lent: mpsc::Sender<Buffer>,
    releaser: thread::JoinHandle<()>,
}

impl Pipe {
    fn new() -> Pipe {
        let (lent, received) = mpsc::channel::<Buffer>();
        let releaser = thread::spawn(move || {
            for buffer in received {
                thread::sleep(Duration::from_micros(30));
                drop(buffer);
            }
        });
        Pipe { bytes: VecDeque::new(), error: None, lent, releaser }
    }

    /// Returns when everything that was lent has been released.
    fn close(self) {
        drop(self.lent);
        self.releaser.join().expect("it does not panic");
    }
}

impl Stream for Pipe {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }
    fn put_owned(&mut self, buffer: Buffer) -> Result<(), Buffer> {
        self.bytes.extend(buffer.iter());
        self.lent.send(buffer).map_err(|back| back.0)
    }
    fn get(&mut self, into: &mut [u8]) -> usize {
        let got = into.len().min(self.bytes.len());
        for (byte, from) in into.iter_mut().zip(self.bytes.drain(..got)) {
            *byte = from;
        }
        got
    }
    fn is_rate_limited(&mut self) -> bool {
        false
    }
    fn rate_limit(&mut self) -> Option<u64> {
        None
    }
    fn error(&mut self) -> Option<Errno> {
        self.error
    }
    fn set_error(&mut self, errno: Errno) {
        self.error = Some(errno);
    }
}

fn context(stream: &mut Pipe) -> CallContext<'_> {
    CallContext { stream, monitor: None }
}

/// How long `f` took.
fn timed<T>(f: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let result = f();
    (began.elapsed(), result)
}

#[test]
fn row_25_iterate_waits_for_a_completion_and_returns_when_it_comes() {
    let host = ThreadHost::new(Queue { held: AtomicBool::new(true), ..Queue::default() }, true);
    let instance = host.module(Options::default());
    let mut pipe = Pipe::new();
    host.with_workers(1, || {
        instance.setup(&mut context(&mut pipe)).unwrap();
        let queue = Arc::clone(&host.queue);
        let opener = thread::spawn(move || {
            thread::sleep(Duration::from_millis(30));
            queue.held.store(false, Relaxed);
            queue.changed.notify_all();
        });
        let (time, step) = timed(|| instance.iterate(&mut context(&mut pipe)).unwrap());
        opener.join().unwrap();
        assert!(step.sent, "it must not return with nothing sent: its caller would spin");
        assert!(time >= Duration::from_millis(25), "{time:?}");
        instance.cleanup(None);
    });
}

#[test]
fn row_25_iterate_waits_for_a_tenth_of_a_second_at_most() {
    let host = ThreadHost::new(Queue { held: AtomicBool::new(true), ..Queue::default() }, true);
    let instance = host.module(Options::default());
    let mut pipe = Pipe::new();
    host.with_workers(1, || {
        instance.setup(&mut context(&mut pipe)).unwrap();
        // The shortest of three: the rest is this machine's other work.
        let times = [(); 3].map(|()| {
            let (time, step) = timed(|| instance.iterate(&mut context(&mut pipe)).unwrap());
            assert!(!step.sent && !step.can_finish);
            time
        });
        let time = times.into_iter().min().unwrap();
        assert!((Duration::from_millis(95)..Duration::from_millis(250)).contains(&time), "{times:?}");
        host.queue.held.store(false, Relaxed);
        instance.cleanup(None);
    });
}

#[test]
fn row_25_a_host_without_threads_never_waits() {
    let host = ThreadHost::new(Queue { held: AtomicBool::new(true), ..Queue::default() }, false);
    let instance = host.module(Options::default());
    let mut pipe = Pipe::new();
    host.with_workers(1, || {
        instance.setup(&mut context(&mut pipe)).unwrap();
        let (time, step) = timed(|| instance.iterate(&mut context(&mut pipe)).unwrap());
        assert!(!step.sent);
        assert!(time < Duration::from_millis(90), "{time:?}");
        host.queue.held.store(false, Relaxed);
        instance.cleanup(None);
    });
}

/// A whole migration, the guest writing until the last stage; the destination's disk must be the source's.
fn migrate(source: &ThreadHost, destination: &ThreadHost, options: Options) {
    let (from, to) = (source.module(options), destination.module(options));
    let mut pipe = Pipe::new();
    let stop = AtomicBool::new(false);
    let looks = AtomicU64::new(0);
    for chunk in 0..CHUNKS {
        source.guest_writes(chunk, (chunk % 250) as u8 + 1);
    }
    thread::scope(|scope| {
        let guest = scope.spawn(|| {
            let mut number = 0_usize;
            while !stop.load(Relaxed) {
                number += 1;
                source.guest_writes(number * 7 % (CHUNKS / 4), (number % 251) as u8);
                thread::sleep(Duration::from_micros(100));
            }
        });
        let watcher = scope.spawn(|| {
            let mut last = 0;
            // On a busy machine all may be over before this thread runs; it looks once even then.
            loop {
                let bulk = from.status().is_bulk_active();
                let (total, transferred) = from.status().bytes();
                assert!(transferred <= total, "{transferred} of {total}");
                if bulk {
                    assert!(transferred >= last, "transferred bytes fell from {last} to {transferred}");
                    last = transferred;
                }
                let (in_use, peak) = from.status().buffers();
                assert!(in_use <= options.max_buffers && peak <= options.max_buffers, "{in_use}, {peak}");
                assert!(from.status().reads_in_flight() <= options.max_reads);
                looks.fetch_add(1, Relaxed);
                if stop.load(Relaxed) {
                    break;
                }
                thread::yield_now();
            }
        });
        from.setup(&mut context(&mut pipe)).unwrap();
        to.load(&mut pipe, 1).unwrap();
        for _ in 0..40 {
            let can_finish = from.iterate(&mut context(&mut pipe)).unwrap().can_finish;
            to.load(&mut pipe, 1).unwrap();
            if can_finish {
                break;
            }
        }
        stop.store(true, Relaxed);
        guest.join().unwrap();
        from.complete(&mut context(&mut pipe)).unwrap();
        watcher.join().unwrap();
    });
    to.load(&mut pipe, 1).unwrap();
    assert!(looks.load(Relaxed) > 0);
    pipe.close();
    assert!(source.disk().0 == destination.disk().0, "the disks differ");
    assert_eq!((from.status().buffers().0, to.status().buffers().0), (0, 0));
    assert_eq!(from.status().bytes(), ((CHUNK * CHUNKS) as u64, (CHUNK * CHUNKS) as u64));
}

#[test]
fn migrations_with_threads_all_over() {
    for round in 0..20 {
        let options = Options {
            max_buffers: 2 + round * 3,
            max_reads: 1 + round,
            max_writes: 1 + round % 5,
            zero_blocks: false,
            ..Options::default()
        };
        let delay = Duration::from_micros(u64::from(round % 3) * 50);
        let source = ThreadHost::new(Queue { delay, ..Queue::default() }, true);
        let destination = ThreadHost::new(Queue { delay, ..Queue::default() }, round % 2 == 0);
        source.with_workers(3, || destination.with_workers(3, || migrate(&source, &destination, options)));
    }
}

/// The flush says that nothing is in flight when the last completion has not been called yet.
#[test]
fn a_completion_may_be_a_moment_behind_the_flush() {
    let early = || Queue { flush_is_early: Duration::from_millis(2), ..Queue::default() };
    let (source, destination) = (ThreadHost::new(early(), true), ThreadHost::new(early(), true));
    let options = Options { max_buffers: 32, max_reads: 32, max_writes: 32, zero_blocks: false, ..Options::default() };
    source.with_workers(8, || destination.with_workers(8, || migrate(&source, &destination, options)));
}

/// Cleanup with reads in flight: it returns when they are over, and nothing is left.
#[test]
fn row_09_cleanup_waits_for_what_is_in_flight() {
    let queue = Queue { delay: Duration::from_millis(20), ..Queue::default() };
    let host = ThreadHost::new(queue, true);
    let instance = host.module(Options { max_reads: 4, ..Options::default() });
    let mut pipe = Pipe::new();
    host.with_workers(2, || {
        instance.setup(&mut context(&mut pipe)).unwrap();
        instance.iterate(&mut context(&mut pipe)).unwrap();
        assert!(instance.status().reads_in_flight() > 0);
        instance.cleanup(None);
        assert_eq!(instance.status().reads_in_flight(), 0);
        assert_eq!(host.queue.lock().1, 0);
    });
    pipe.close();
    assert_eq!(instance.status().buffers().0, 0);
}

/// Storage hangs, and the user cancels: cleanup returns, and what is in flight ends during the next migration.
#[test]
fn a_cancel_does_not_wait_for_storage_that_hangs() {
    let source = ThreadHost::new(Queue { held: AtomicBool::new(true), ..Queue::default() }, true);
    let destination = ThreadHost::new(Queue::default(), true);
    let (from, to) = (source.module(Options::default()), destination.module(Options::default()));
    let work = || {
        let (mut cancelled, mut pipe) = (Pipe::new(), Pipe::new());
        from.setup(&mut context(&mut cancelled)).unwrap();
        from.iterate(&mut context(&mut cancelled)).unwrap();
        from.cleanup(None);
        assert!(from.status().reads_in_flight() > 0 && !from.status().is_active());
        (0..CHUNKS).for_each(|chunk| source.guest_writes(chunk, 9));
        from.setup(&mut context(&mut pipe)).unwrap();
        source.queue.held.store(false, Relaxed);
        from.complete(&mut context(&mut pipe)).unwrap();
        (0..2).for_each(|_| to.load(&mut pipe, 1).unwrap());
        [cancelled, pipe].into_iter().for_each(Pipe::close);
    };
    source.with_workers(2, || destination.with_workers(2, work));
    assert!(source.disk().0 == destination.disk().0, "the disks differ");
    assert_eq!((from.status().reads_in_flight(), from.status().buffers().0), (0, 0));
}
