// SPDX-License-Identifier: GPL-2.0-only
//! A host with worker threads that complete its requests, and a stream that releases lent buffers on its own thread.

use std::collections::VecDeque;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};

use std::thread;

use std::time::{Duration, Instant};

use blkmig::buffers::Buffer;

use blkmig::device_name::DeviceName;
use blkmig::error::Errno;

use blkmig::geometry::{Geometry, Sector, Sectors};

use blkmig::host::{Device, Extent, Host, Stream};

use blkmig::instance::Instance;
use blkmig::settings::Options;

use blkmig::request::{ReadRequest, WriteRequest};

pub(crate) const CHUNK: usize = 4 * 512;

pub(crate) const CHUNKS: usize = 200;

/// A disk: its data, and its dirty chunks while they are tracked.
pub(crate) type Disk = Arc<Mutex<(Vec<u8>, Vec<bool>, bool)>>;

pub(crate) enum Job {
    Read(ReadRequest),
    Write(WriteRequest),
}

/// The requests in flight, for the threads that complete them.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) jobs: Mutex<(VecDeque<Job>, usize)>,
    pub(crate) changed: Condvar,
    pub(crate) closed: AtomicBool,
    /// Nothing completes while this is set, and a drain does not wait.
    pub(crate) held: AtomicBool,
    pub(crate) delay: Duration,
    /// A drain returns this long before the last completion is called.
    pub(crate) drain_is_early: Duration,
}

impl Queue {
    pub(crate) fn lock(&self) -> MutexGuard<'_, (VecDeque<Job>, usize)> {
        self.jobs.lock().expect("no panic with the lock")
    }

    fn add(&self, job: Job) {
        let mut jobs = self.lock();
        jobs.0.push_back(job);
        jobs.1 += 1;
        drop(jobs);
        self.changed.notify_all();
    }

    /// Run by each worker thread: completes requests until the queue is closed and empty.
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
            if !self.drain_is_early.is_zero() {
                self.ended();
                thread::sleep(self.drain_is_early);
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
            if self.drain_is_early.is_zero() {
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
pub(crate) struct ThreadHost {
    pub(crate) disk: Disk,
    pub(crate) queue: Arc<Queue>,
    threaded: bool,
    pub(crate) began: Instant,
}

impl ThreadHost {
    pub(crate) fn new(queue: Queue, threaded: bool) -> ThreadHost {
        let disk = Arc::new(Mutex::new((vec![0; CHUNK * CHUNKS], vec![false; CHUNKS], false)));
        ThreadHost { disk, queue: Arc::new(queue), threaded, began: Instant::now() }
    }

    pub(crate) fn disk(&self) -> MutexGuard<'_, (Vec<u8>, Vec<bool>, bool)> {
        self.disk.lock().expect("no panic with the lock")
    }

    /// Sets data and dirty bit at the same time.
    pub(crate) fn guest_writes(&self, chunk: usize, byte: u8) {
        let mut disk = self.disk();
        let at = chunk * CHUNK + usize::from(byte) % 4 * 512;
        disk.0[at..at + 512].fill(byte);
        disk.1[chunk] |= disk.2;
    }

    /// Runs `f` while `count` threads complete requests.
    pub(crate) fn with_workers<T>(&self, count: usize, f: impl FnOnce() -> T) -> T {
        thread::scope(|scope| {
            for _ in 0..count {
                scope.spawn(|| self.queue.work(&self.disk, self.began));
            }
            // Needed when `f` panics: the scope waits for the workers, and a failure must not look like a hang.
            let _closing = Closing(&self.queue);
            f()
        })
    }

    pub(crate) fn module(&self, options: Options) -> Instance<ThreadHost> {
        let instance = Instance::new(Geometry::new(4).expect("it is in range"));
        instance.set_options(options).expect("nothing runs");
        instance.set_host(self.clone()).expect("nothing runs");
        instance
    }
}

/// Ends the workers when it is dropped.
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
    fn dirty_units(&self) -> Result<u64, Errno> {
        Ok(self.disk().1.iter().filter(|&&dirty| dirty).count() as u64)
    }
}

/// A stream that releases lent buffers on its own thread.
pub(crate) struct Pipe {
    bytes: VecDeque<u8>,
    error: Option<Errno>,
    lent: mpsc::Sender<Buffer>,
    releaser: thread::JoinHandle<()>,
}

impl Pipe {
    pub(crate) fn new() -> Pipe {
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
    pub(crate) fn close(self) {
        drop(self.lent);
        self.releaser.join().expect("it does not panic");
    }
}

impl Stream for Pipe {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }
    fn put_owned(&mut self, buffer: Buffer, bytes: usize) -> Result<(), Buffer> {
        self.bytes.extend(buffer[..bytes].iter());
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
