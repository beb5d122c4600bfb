// SPDX-License-Identifier: GPL-2.0-only
//! A host in Rust: one disk on each side, a guest that writes between the steps, and a queue of bytes as the stream.
//! `cargo run --example host`
use std::collections::VecDeque;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use blkmig::call::CallContext;
use blkmig::device_name::DeviceName;
use blkmig::error::Errno;
use blkmig::geometry::{Geometry, Sector, Sectors};
use blkmig::host::{Device, Extent, Host, Stream};
use blkmig::instance::Instance;
use blkmig::request::ReadRequest;
use blkmig::settings::Options;

/// A disk: its bytes, and for each chunk whether the guest has written to it.
#[derive(Clone)]
struct Disk(Arc<Mutex<(Vec<u8>, Vec<bool>)>>);

impl Disk {
    fn new(content: Vec<u8>) -> Disk {
        let chunks = content.len().div_ceil(Geometry::QEMU.chunk_bytes());
        Disk(Arc::new(Mutex::new((content, vec![false; chunks]))))
    }

    fn with<T>(&self, f: impl FnOnce(&mut Vec<u8>, &mut Vec<bool>) -> T) -> T {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (bytes, dirty) = &mut *guard;
        f(bytes, dirty)
    }

    /// The chunk's bit is set after the data: if it was set before them, it could be reset, and the old data read, in
    /// between.
    fn guest_writes(&self, at: usize, byte: u8) {
        self.with(|bytes, dirty| {
            bytes[at..at + 512].fill(byte);
            dirty[at / Geometry::QEMU.chunk_bytes()] = true;
        });
    }
}

fn chunk(sector: Sector) -> usize {
    usize::try_from(Geometry::QEMU.chunk_of(sector).0).expect("a disk in memory")
}

fn byte(sector: Sector) -> usize {
    usize::try_from(sector.0).expect("a disk in memory") * 512
}

/// What has a default in these traits is optional: a real host has more of it.
impl Device for Disk {
    fn name(&self) -> DeviceName {
        "system".into()
    }
    fn is_same(&self, other: &Disk) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
    fn length(&self) -> Result<i64, Errno> {
        Ok(i64::try_from(self.with(|bytes, _| bytes.len())).expect("it fits memory"))
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn allocated(&self, range: Sectors) -> Result<Extent, Errno> {
        Ok(Extent { holds: true, sectors: range.count.into() }) // there is no backing file
    }
    fn read(&self, mut request: ReadRequest) -> Result<(), Errno> {
        let Sectors { start, .. } = request.sectors();
        let into = request.data();
        self.with(|bytes, _| into.copy_from_slice(&bytes[byte(start)..][..into.len()]));
        request.complete(0, Ok(())); // at once, or later, from any thread
        Ok(())
    }
    fn write(&self, start: Sector, data: &[u8]) -> Result<(), Errno> {
        self.with(|bytes, _| bytes[byte(start)..][..data.len()].copy_from_slice(data));
        Ok(())
    }
    fn set_tracking(&self, _on: bool) -> Result<(), Errno> {
        self.with(|_, dirty| dirty.fill(false));
        Ok(())
    }
    fn is_dirty(&self, sector: Sector) -> bool {
        self.with(|_, dirty| dirty[chunk(sector)])
    }
    fn reset_dirty(&self, range: Sectors) {
        self.with(|_, dirty| dirty[chunk(range.start)..=chunk(Sector(range.end().0 - 1))].fill(false));
    }
    fn dirty_units(&self) -> Result<u64, Errno> {
        Ok(self.with(|_, dirty| dirty.iter().filter(|&&dirty| dirty).count() as u64))
    }
}

struct OneDisk(Disk, Instant);

impl Host for OneDisk {
    type Device = Disk;

    fn devices(&self) -> Vec<Disk> {
        vec![self.0.clone()]
    }
    fn find(&self, name: &DeviceName) -> Option<Disk> {
        (*name == self.0.name()).then(|| self.0.clone())
    }
    fn drain(&self) {} // nothing is ever in flight
    fn now_ns(&self) -> i64 {
        i64::try_from(self.1.elapsed().as_nanos()).unwrap_or(i64::MAX)
    }
    fn max_downtime_ns(&self) -> u64 {
        300_000_000
    }
}

#[derive(Default)]
struct Queue(VecDeque<u8>, Option<Errno>);

impl Stream for Queue {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }
    fn get(&mut self, into: &mut [u8]) -> usize {
        let got = into.len().min(self.0.len());
        into.iter_mut().zip(self.0.drain(..got)).for_each(|(to, from)| *to = from);
        got
    }
    fn is_rate_limited(&mut self) -> bool {
        false
    }
    fn rate_limit(&mut self) -> Option<u64> {
        None
    }
    fn error(&mut self) -> Option<Errno> {
        self.1
    }
    fn set_error(&mut self, errno: Errno) {
        self.1.get_or_insert(errno);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // The last chunk is short.
    let [from_disk, to_disk] = [0xd5, 0xee].map(|byte| Disk::new(vec![byte; (9 << 20) + 3 * 512]));
    let [from, to] = [&from_disk, &to_disk].map(|disk| {
        let instance = Instance::new(Geometry::QEMU);
        instance.set_host(OneDisk(disk.clone(), Instant::now())).map(|()| instance)
    });
    let (from, to, mut stream) = (from?, to?, Queue::default());
    from.set_options(Options { max_buffers: 2, ..Options::default() })?;

    // Each call writes a section, which the other side loads.
    from.setup(&mut CallContext { stream: &mut stream, monitor: None })?;
    to.load(&mut stream, 1)?;
    let (mut steps, limit) = (0, 1 << 20); // the bytes that may be left when the guest is stopped
    while from.pending_switchover(limit) > limit {
        from.iterate(&mut CallContext { stream: &mut stream, monitor: None })?;
        to.load(&mut stream, 1)?;
        from_disk.guest_writes(steps % 100 * 512, steps.to_le_bytes()[0]);
        steps += 1;
    }
    from.complete(&mut CallContext { stream: &mut stream, monitor: None })?; // the guest stands still
    to.load(&mut stream, 1)?;

    println!("migrated in {steps} steps while the guest wrote");
    let same = from_disk.with(|ours, _| to_disk.with(|theirs, _| ours == theirs));
    if !same {
        return Err("the disks differ".into());
    }
    println!("the disks are the same");
    Ok(())
}
