// SPDX-License-Identifier: GPL-2.0-only
//! Outgoing: reads the devices and puts them into the stream, while the guest goes on writing to them.
//!
//! The bulk phase takes each device from its first chunk to its last, the dirty phase what the guest has
//! written since, and the last stage, with the guest stopped, all there still is. In each of them a chunk goes
//! the same way: its dirty bit is cleared, it is read into a buffer of the pool, waits until the stream takes
//! it, and is sent.
#![forbid(unsafe_code)]

mod bandwidth;
pub mod bulk;
mod compression;
mod device;
mod device_list;
mod dirty_rate;
mod disk;
mod extended;
mod out;
mod rate;
pub mod search;
mod sending;
mod writer;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::buffers::{Buffer, NoBuffer, Pool};
use crate::call::CallContext;
use crate::error::Error;
use crate::geometry::Sectors;
use crate::host::{Device, Host};
use crate::in_flight::InFlight;
use crate::settings::{Selection, Settings};
use crate::status::{Phase, Status};

use bandwidth::{BandwidthEstimate, Convergence, STEP_WAIT_NS, Wait};
use device::{SourceDevice, ToDo};
use device_list::{check_same_devices, take_devices};
use dirty_rate::DirtyRate;
use writer::Writer;

/// How often the last stage looks for what was written since it began, before it takes the guest for a running one.
const LAST_STAGE_ROUNDS: usize = 8;

/// The guest is stopped when what is left takes no longer than this: for what can be sent while it runs it
/// should not stand still. What does not shrink any more may take all of the host's downtime limit.
const SHORT_DOWNTIME_NS: u64 = 10_000_000;

/// What a step has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whether a chunk was sent.
    pub sent: bool,
    /// Whether the guest should be stopped now: all the rest can be sent within the host's downtime limit, and
    /// it is either very little or does not get less.
    pub can_finish: bool,
}

/// What waits for the stream.
enum ToSend {
    /// A copy of sectors of the device with this place in the list; no data if they are known to be zero and were
    /// not read.
    Copy(usize, Sectors, Option<Buffer>),
    /// A run of zeroes of any length.
    Zeroes(usize, Range<u64>),
}

/// An outgoing migration, from setup to its end. Dropping it, in whatever state, gives everything back to the host.
pub struct Outgoing<H: Host> {
    /// Whose devices these are.
    host: Arc<H>,
    /// The stream that it was set up on.
    stream: usize,
    /// The options in force at setup.
    settings: Settings,
    /// Which devices were to migrate.
    selection: Selection,
    /// What queries read; it holds the phase, too.
    status: Arc<Status>,
    /// The devices that migrate, in the host's order.
    devices: Vec<SourceDevice<H::Device>>,
    /// The memory of all chunks that are on their way.
    pool: Pool,
    /// Reads that the host has not completed.
    in_flight: InFlight,
    /// When the last read completed.
    last_read: i64,
    /// Whether reads are in flight, and none has completed for long.
    stalled: bool,
    /// What the stream has not taken yet, in the order in which it was read.
    to_send: VecDeque<ToSend>,
    /// The device whose turn it is: all of them read at the same time.
    turn: usize,
    /// What puts records into the stream.
    writer: Writer,
    /// How fast data reaches the stream.
    bandwidth: BandwidthEstimate,
    /// Whether what remains still shrinks.
    convergence: Convergence,
    /// How fast the guest makes the devices dirty.
    dirty_rate: DirtyRate,
    /// When it was set up.
    began: i64,
}

impl<H: Host> Outgoing<H> {
    /// Sets up a migration of every chosen device that can be written to, and puts the first section into the stream.
    ///
    /// # Errors
    /// If a device can't be migrated; nothing is left behind then.
    pub fn start(
        host: Arc<H>,
        settings: Settings,
        selection: Selection,
        status: Arc<Status>,
        call: &mut CallContext,
    ) -> Result<Outgoing<H>, Error> {
        call.check_stream()?;
        host.forget_shortage();
        let devices = take_devices(&*host, &settings, &selection, call)?;
        status.start(devices.iter().map(SourceDevice::total_bytes).sum());
        let mut migration = Outgoing {
            stream: call.stream.identity(),
            pool: Pool::new(settings.max_buffers, settings.geometry.chunk_bytes(), Arc::clone(&status)),
            in_flight: InFlight::new(&status),
            writer: Writer::new(&settings, &status),
            began: host.now_ns(),
            host,
            settings,
            selection,
            status,
            devices,
            last_read: 0,
            stalled: false,
            to_send: VecDeque::new(),
            turn: 0,
            bandwidth: BandwidthEstimate::default(),
            convergence: Convergence::default(),
            dirty_rate: DirtyRate::default(),
        };
        migration.writer.start(call, &migration.devices)?;
        call.check_stream()?;
        Ok(migration)
    }

    /// The stream that it was set up on.
    pub(crate) fn stream(&self) -> usize {
        self.stream
    }

    /// Sends what the stream takes in this step, and keeps reads going for the next: one section.
    ///
    /// On a threaded host it may block for a read to complete, 100 ms at most; on any other it never waits.
    ///
    /// # Errors
    /// If a read or the stream fails, or a device has changed its length; the migration is then over.
    pub fn iterate(&mut self, call: &mut CallContext) -> Result<Step, Error> {
        call.check_stream()?;
        let began = self.host.now_ns();
        self.check_step()?;
        self.collect()?;
        self.writer.begin_step();
        self.bandwidth.begin(began, (self.in_flight.count() == 0).then_some(self.last_read));
        self.begin_search(false)?;
        let (sent, waiting) = self.send_step(call, began)?;
        let host = &self.host;
        self.writer.end_step(call, || host.now_ns());
        call.check_stream()?;
        let remaining = self.remaining()?;
        let now = self.host.now_ns();
        // A section without a chunk says nothing about the link.
        let bytes = if sent > 0 { self.writer.step_bytes() } else { 0 };
        self.dirty_rate.note(now, self.status.dirty_bytes.load(Relaxed));
        self.dirty_rate.warn(now, self.bandwidth.bandwidth());
        self.stalled = self.in_flight.count() > 0 && self.bandwidth.stalls(now, self.last_read);
        self.bandwidth.end(now, bytes, waiting.filter(|_| remaining > 0));
        let time = self.publish(remaining);
        if self.bulk_done() {
            self.convergence.note(now, remaining, time);
        }
        let can_finish = self.should_stop(remaining) && time.is_some_and(|time| time <= self.host.max_downtime_ns());
        Ok(Step { sent: sent > 0, can_finish })
    }

    fn bulk_done(&self) -> bool {
        self.devices.iter().all(SourceDevice::bulk_done)
    }

    /// Whether letting the guest run on is no use any more: so little remains that it takes no time, or it does
    /// not shrink. Before all was sent once, it is not known what it writes to over and over. Who stops it
    /// while reads stall waits for them.
    #[must_use]
    pub fn should_stop(&self, remaining: u64) -> bool {
        let (total, transferred) = self.status.bytes();
        let short = || self.bandwidth.time_for(remaining).is_some_and(|time| time <= SHORT_DOWNTIME_NS);
        !self.stalled && self.bulk_done() && (self.convergence.has_ended() || transferred == total && short())
    }

    /// A length that has changed, even if it changes back, ends the migration.
    fn check_step(&self) -> Result<(), Error> {
        self.host.check_memory()?;
        self.devices.iter().try_for_each(SourceDevice::check_length)
    }

    /// Fails if the devices that migrate are not those of setup any more.
    fn check_devices(&self) -> Result<(), Error> {
        self.check_step()?;
        check_same_devices(&*self.host, &self.devices, &self.selection)
    }

    /// Sends until the stream, the section or the time is full, or nothing is left; how much that was, and what kept
    /// it from going on.
    fn send_step(&mut self, call: &mut CallContext, began: i64) -> Result<(u64, Option<Wait>), Error> {
        let most = self.pool.limit() as u64 * self.settings.geometry.chunk_bytes() as u64;
        let mut sent = 0;
        loop {
            sent += self.send_ready(call, most.saturating_sub(sent))?;
            let window = self.window(call);
            self.fill(window)?;
            if sent >= most || call.stream.is_rate_limited() {
                return Ok((sent, Some(Wait::Stream)));
            }
            // Known zeroes, and reads that complete at once, are ready by now.
            if self.collect()? || !self.to_send.is_empty() {
                continue;
            }
            if self.in_flight.count() == 0 {
                return Ok((sent, None));
            }
            let waited = self.host.now_ns().saturating_sub(began);
            let left = u64::try_from(STEP_WAIT_NS.saturating_sub(waited)).unwrap_or(0);
            if !self.host.threaded() || left == 0 {
                return Ok((sent, Some(Wait::Reads)));
            }
            // What is buffered can go out meanwhile.
            call.stream.flush();
            if !self.in_flight.wait(Duration::from_nanos(left)) {
                return Ok((sent, Some(Wait::Reads)));
            }
            self.collect()?;
        }
    }

    /// Sends everything that the destination still lacks, whatever the rate limit, and the last section's end.
    /// The guest is stopped. The migration is over afterwards: drop it.
    ///
    /// # Errors
    /// If a read or the stream fails, the devices are not those of setup any more, or the guest still writes.
    pub fn complete(&mut self, call: &mut CallContext) -> Result<(), Error> {
        call.check_stream()?;
        self.check_devices()?;
        self.status.set_phase(Phase::Completing);
        for _ in 0..LAST_STAGE_ROUNDS {
            self.begin_search(true)?;
            self.send_all(call)?;
            if self.remaining()? == 0 {
                break;
            }
        }
        self.check_devices()?;
        self.check_nothing_left()?;
        self.publish(0);
        call.print("\n");
        self.writer.end_migration(call);
        call.check_stream()?;
        call.print("Block migration completed\n");
        Ok(())
    }

    /// Whether "completed" may be said; nothing else decides it.
    fn check_nothing_left(&self) -> Result<(), Error> {
        for device in &self.devices {
            if device.dirty_units()? > 0 {
                return Err(Error::StillWritten(device.name().clone()));
            }
        }
        let owed = self.devices.iter().map(SourceDevice::owed_bytes).sum();
        let remaining = self.remaining()?.max(owed);
        let none_on_its_way = self.in_flight.count() == 0 && self.to_send.is_empty();
        if remaining == 0 && none_on_its_way { Ok(()) } else { Err(Error::Unfinished(remaining)) }
    }

    /// Sends what is left of the bulk phase and what this search finds.
    fn send_all(&mut self, call: &mut CallContext) -> Result<(), Error> {
        loop {
            self.collect()?;
            self.send_ready(call, u64::MAX)?;
            self.fill(self.settings.max_reads as usize)?;
            if !self.to_send.is_empty() {
                continue;
            }
            if self.in_flight.count() > 0 {
                self.in_flight.wait_for_host(&*self.host)?;
            } else if self.bulk_done() {
                return Ok(());
            }
        }
    }

    /// Every byte that the destination still lacks: not read yet, in flight, waiting to be sent, or dirty.
    ///
    /// # Errors
    /// If the host can't count its dirty chunks.
    pub fn remaining(&self) -> Result<u64, Error> {
        let (mut remaining, mut dirty) = (0, 0);
        for device in &self.devices {
            let bytes = device.dirty_bytes()?;
            dirty += bytes;
            remaining += device.remaining_bytes(bytes);
        }
        self.status.dirty_bytes.store(dirty, Relaxed);
        Ok(remaining)
    }

    /// Makes the estimate public; returns how long the rest would take, if that is known.
    fn publish(&self, remaining: u64) -> Option<u64> {
        let time = self.bandwidth.time_for(remaining);
        let elapsed = self.host.now_ns().saturating_sub(self.began);
        self.status.bandwidth.store(self.bandwidth.bandwidth(), Relaxed);
        self.status.dirty_rate.store(self.dirty_rate.rate(), Relaxed);
        self.status.expected_downtime_ns.store(time.unwrap_or(0), Relaxed);
        self.status.elapsed_ns.store(u64::try_from(elapsed).unwrap_or(0), Relaxed);
        time
    }

    fn begin_search(&mut self, all: bool) -> Result<(), Error> {
        self.devices.iter_mut().try_for_each(|device| device.begin_search(all))
    }

    /// Takes the reads that have completed; whether there were any.
    fn collect(&mut self) -> Result<bool, Error> {
        let mut any = false;
        while let Some(done) = self.in_flight.pop() {
            any = true;
            let device = &mut self.devices[done.device];
            device.reads -= 1;
            self.last_read = done.when.map_or(self.last_read, |when| when.max(self.last_read));
            if let Err(errno) = done.result {
                return Err(device.read_failed(done.sectors.start, errno));
            }
            self.to_send.push_back(ToSend::Copy(done.device, done.sectors, done.buffer));
        }
        Ok(any)
    }

    /// How many copies may be on their way: not more than the stream takes in a step, nor than reads may be in
    /// flight, since what is read early gets old, and leaves the CPU's cache.
    fn window(&self, call: &mut CallContext) -> usize {
        // What the extended stream sends of dirty chunks is mostly far less than a chunk.
        let small = self.settings.extended && self.status.phase() == Phase::Dirty;
        let piece = self.settings.geometry.chunk_bytes() as u64 / if small { sending::LEAST } else { 1 };
        let step = call.stream.rate_limit().map_or(u64::MAX, |bytes| bytes.div_ceil(piece));
        usize::try_from(step.min(self.settings.max_reads.into())).unwrap_or(usize::MAX).max(1)
    }

    /// Starts as many reads as there is room for, the devices in turn.
    fn fill(&mut self, window: usize) -> Result<(), Error> {
        let mut unused = None;
        let mut idle = 0;
        while idle < self.devices.len() && self.in_flight.count() + self.to_send.len() < window {
            let buffer = match unused.take().map_or_else(|| self.pool.take(), Ok) {
                Ok(buffer) => buffer,
                Err(NoBuffer::InUse) => break,
                Err(NoBuffer::NoMemory) => return Err(Error::NoMemory("a chunk".to_owned())),
            };
            self.host.check_memory()?;
            self.in_flight.reserve()?;
            self.to_send.try_reserve(self.in_flight.count() + 1)?;
            let turn = self.turn;
            self.turn = (turn + 1) % self.devices.len();
            // A slow device must not take the places of all the others.
            let share = (window / self.devices_with_work()).max(1);
            unused = if let Some(found) = self.next_to_do(turn, share)? {
                idle = 0;
                self.begin(turn, found, buffer)?
            } else {
                idle += 1;
                Some(buffer)
            };
            self.leave_bulk();
        }
        Ok(())
    }

    fn devices_with_work(&self) -> usize {
        self.devices.iter().filter(|device| device.reads > 0 || device.has_work()).count().max(1)
    }

    fn next_to_do(&mut self, index: usize, share: usize) -> Result<Option<ToDo>, Error> {
        let device = &mut self.devices[index];
        if device.reads >= share {
            return Ok(None);
        }
        let phase = self.status.phase();
        if phase != Phase::Dirty {
            let (passed, found) = device.next_bulk()?;
            self.status.add_transferred(passed);
            // A search that goes on in the next round must not come to chunks that the dirty phase has on their way.
            if found.is_some() || phase == Phase::Bulk || !device.bulk_done() {
                return Ok(found);
            }
        }
        device.next_dirty()
    }

    fn leave_bulk(&mut self) {
        if self.status.phase() == Phase::Bulk && self.bulk_done() {
            self.status.set_phase(Phase::Dirty);
        }
    }

    /// Begins what is to be done next; gives the buffer back if nothing need be read.
    fn begin(&mut self, index: usize, to_do: ToDo, mut buffer: Buffer) -> Result<Option<Buffer>, Error> {
        let device = &mut self.devices[index];
        let copy = match to_do {
            ToDo::Copy(copy) => copy,
            ToDo::Zeroes(sectors) => {
                device.begin_zeroes(&sectors);
                self.to_send.push_back(ToSend::Zeroes(index, sectors));
                return Ok(Some(buffer));
            }
        };
        self.dirty_rate.cleared(device.begin_copy(&copy));
        let sectors = copy.sectors;
        if device.is_known_zero(&copy) {
            self.to_send.push_back(ToSend::Copy(index, sectors, None));
            return Ok(Some(buffer));
        }
        // A tail's padding is zero: the buffer may hold some other chunk.
        if !self.settings.extended {
            buffer[sectors.bytes()..].fill(0);
        }
        device.reads += 1;
        let started = device.device().read(self.in_flight.read(index, sectors, buffer));
        started.map_err(|errno| device.read_failed(sectors.start, errno))?;
        Ok(None)
    }
}

impl<H: Host> Drop for Outgoing<H> {
    fn drop(&mut self) {
        self.status.stop();
        // The buffers go to no one else before the host has completed their reads.
        self.in_flight.abandon(&*self.host);
    }
}
