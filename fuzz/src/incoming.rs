// SPDX-License-Identifier: GPL-2.0-only
//! What a destination does with any stream: sections made of an input, each loaded, and compared with a model
//! of `load`.
//!
//! A section that is right must leave on the disks what it says. Of one that is wrong, or that the host failed
//! under, each sector must hold what it held before or what a record before the wrong one put there; and it
//! must be refused.

use std::rc::Rc;

use blkmig::error::{Errno, Error};
use blkmig::geometry::Geometry;

use crate::extended::{Sender, State};
use crate::host::{Disk, Event, Features, InStream, Instance, Options, SECTOR, SmallHost, World};
use crate::input::{Bits, Input};

/// What a disk that says it is longer keeps of itself.
const KEPT: u64 = 16;

const END: u64 = 2;

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut target = Target::new(&mut input);
    while !input.is_empty() {
        let section = Section::new(&mut input, &target.world, &mut target.sender);
        target.load(&section);
    }
}

/// A section to load, and what happens meanwhile.
struct Section {
    bytes: Vec<u8>,
    /// The stream ends here, with an error or as if the peer had closed it.
    cut: Option<usize>,
    fails_at_end: bool,
    version: i32,
    another_stream: bool,
    events: Vec<(u64, Event)>,
}

impl Section {
    /// Takes steps from the input until one ends the section.
    fn new(input: &mut Input, world: &World, sender: &mut Sender) -> Section {
        let mut section = Section {
            bytes: Vec::new(),
            cut: None,
            fails_at_end: false,
            version: 1,
            another_stream: false,
            events: Vec::new(),
        };
        // Data are unlike in all records, so that what a refused one has written can be told.
        let mut stamp = 0;
        while !input.is_empty() {
            let step = input.byte();
            match step & 7 {
                7 if step >> 6 > 0 => sender.control(step >> 6, input),
                7 => section.control(step >> 3, input),
                kind if sender.on => {
                    section.bytes.extend(sender.record(kind, step >> 3, input, world, &mut stamp));
                    if kind == 4 {
                        break;
                    }
                }
                0 | 1 => section.block(input, world, &mut stamp),
                2 => section.place(0x09, input.byte(), world),
                3 => section.word(u64::from(input.byte()) << 9 | 4),
                4 => {
                    section.word(END);
                    break;
                }
                5 => section.word(u64::from(input.byte()) << (step >> 3 & 7) * 8 | u64::from(input.byte())),
                _ => {
                    let bytes = input.bytes(usize::from(step >> 3));
                    section.bytes.extend(bytes);
                }
            }
        }
        section
    }

    fn word(&mut self, word: u64) {
        self.bytes.extend(word.to_be_bytes());
    }

    /// What says where a record goes: `place` holds a sector, and which name.
    fn place(&mut self, flags: u64, place: u8, world: &World) {
        let mut place = Bits(place);
        self.word(u64::from(place.take(5)) << 9 | flags);
        let disks = world.disks.borrow();
        let name = match place.take(3) {
            7 => &b""[..],
            6 => b"\0",
            5 => b"nobody",
            which => &disks[usize::from(which) % disks.len()].name,
        };
        self.bytes.push(name.len() as u8);
        self.bytes.extend(name);
    }

    fn block(&mut self, input: &mut Input, world: &World, stamp: &mut u64) {
        self.place(0x01, input.byte(), world);
        let zero = input.byte();
        for sector in 0..world.features.chunk {
            *stamp += 1;
            let content = if zero >> sector & 1 == 1 { 0 } else { *stamp << 8 | 0xda };
            self.bytes.extend(content.to_le_bytes().repeat(SECTOR / 8));
        }
    }

    fn control(&mut self, which: u8, input: &mut Input) {
        match which & 7 {
            0 => self.another_stream = true,
            1 => self.version = input.byte() as i8 as i32,
            2 | 3 => {
                self.cut = Some(self.bytes.len().saturating_sub(usize::from(input.byte()) * 2));
                self.fails_at_end = which & 1 == 1;
            }
            4 | 5 => self.events.push((u64::from(input.byte()), Event::Fault(input.byte()))),
            6 => self.events.push((u64::from(input.byte()), Event::Complete)),
            _ => self.events.push((u64::from(input.byte()), Event::CallBack(0))),
        }
    }
}

/// A machine that takes a migration in.
struct Target {
    world: Rc<World>,
    instance: Rc<Instance<SmallHost>>,
    accept_tail_garbage: bool,
    identity: usize,
    /// What writes the extended stream, and where the destination should be in it.
    sender: Sender,
    extended: State,
}

impl Target {
    fn new(input: &mut Input) -> Target {
        let mut bits = Bits(input.byte());
        let chunk = [1, 2, 4, 2][usize::from(bits.take(2))];
        let (max_buffers, max_writes) = (1 + u32::from(bits.take(2)), 1 + u32::from(bits.take(2)));
        let kinds = [(true, false), (false, false), (true, true), (true, false)];
        let (write_async, threaded) = kinds[usize::from(bits.take(2))];
        let mut bits = Bits(input.byte());
        let zeroes = bits.take(2);
        let features = Features {
            chunk: u64::from(chunk),
            write_async,
            threaded,
            write_zeroes: zeroes > 0,
            zeroes_unsupported: zeroes == 2,
            cluster: [None, Some(512), Some(1024), Some(4096)][usize::from(bits.take(2))],
            known_zero: bits.flag(),
            short_extents: bits.flag(),
            wait: bits.flag(),
            tick_ns: 1,
            ..Features::default()
        };
        let accept_tail_garbage = bits.flag();
        let count = input.byte();
        let sender = Sender::new(count / 3 & 1 == 1);
        let disks = (0..1 + count % 3).map(|index| disk(index, &mut Bits(input.byte()), features.chunk)).collect();
        let world = World::new(features, disks, input.bytes(4));
        world.max_requests.set(max_writes as usize);
        let instance = Rc::new(Instance::new(Geometry::new(chunk).expect("small chunks")));
        instance.set_host(SmallHost(Rc::clone(&world))).expect("nothing runs");
        let options = Options { max_buffers, max_writes, accept_tail_garbage, ..Options::default() };
        instance.set_options(options).expect("nothing runs");
        let weak = Rc::downgrade(&instance);
        *world.call_back.borrow_mut() = Some(Box::new(move |world, _, _| {
            let Some(instance) = weak.upgrade() else { return };
            let mut stream = InStream::new(world, 1, &[], false);
            assert_eq!(instance.load(&mut stream, 1), Err(Error::Busy));
            assert_eq!(instance.set_options(Options::default()), Err(Error::Busy));
        }));
        Target { world, instance, accept_tail_garbage, identity: 0, sender, extended: State::default() }
    }

    fn load(&mut self, section: &Section) {
        if section.another_stream {
            self.identity += 1;
            self.extended = State::default();
            self.forget_unflushed();
        }
        let world = &self.world;
        for (after, event) in &section.events {
            world.plan(world.callbacks.get() + after, *event);
        }
        world.limit.set(world.callbacks.get() + 100_000);
        world.fatal.set(0);
        let before: Vec<Vec<u8>> = world.disks.borrow().iter().map(|disk| disk.data.clone()).collect();
        let bytes = [&section.bytes[..], &[0xee; 4]].concat();
        let bytes = &bytes[..section.cut.unwrap_or(bytes.len())];
        let mut extended = self.extended.clone();
        let accept = self.accept_tail_garbage;
        let expected = Model::read(bytes, &mut extended, &world.disks.borrow(), world.features.chunk, accept);
        let right = section.version <= 1 && expected.percent.is_some();
        if world.trace {
            eprintln!("section of {} bytes, to be {}", bytes.len(), if right { "taken" } else { "refused" });
        }
        let mut stream = InStream::new(world, self.identity, bytes, section.fails_at_end);
        let result = self.instance.load(&mut stream, section.version);
        if world.trace {
            eprintln!("  {result:?}");
        }
        let taken = bytes.len() - stream.left();
        drop(stream);
        world.events.borrow_mut().clear();
        self.check_given_back();

        assert!(right || result.is_err(), "a section was taken that is wrong");
        assert!(world.fatal.get() == 0 || result.is_err(), "a failure of the host's was not reported");
        let lost = world.lost_requests.get();
        assert!(!right || world.fatal.get() > 0 || lost || result.is_ok(), "a section was refused: {result:?}");
        assert_eq!(result.is_ok(), self.instance.last_error().is_empty());
        let disks = world.disks.borrow();
        if result.is_ok() {
            assert_eq!(taken, expected.taken, "the section ends elsewhere");
            expected.check_all(before, &disks);
            let stable = expected.percent != Some(Some(100)) || disks.iter().all(|disk| !disk.unflushed);
            assert!(stable, "what was written is not on stable storage");
        } else {
            let records = if section.version > 1 { Model::default() } else { expected };
            records.check_some(&before, &disks);
        }
        drop(disks);
        if result.is_err() {
            world.lost_requests.set(false);
            self.forget_unflushed();
        }
        // A section that is too new is not looked at.
        if section.version <= 1 {
            self.extended = if result.is_ok() { extended } else { State::default() };
        }
    }

    /// The migration is over, or another one begins: nobody waits for the stable storage of what it has written.
    fn forget_unflushed(&self) {
        self.world.disks.borrow_mut().iter_mut().for_each(|disk| disk.unflushed = false);
    }

    fn check_given_back(&self) {
        let world = &self.world;
        assert!(world.requests() == 0 || world.lost_requests.get(), "writes are in flight after load");
        world.complete(usize::MAX);
        assert_eq!(self.instance.status().buffers().0, 0, "buffers were not given back");
        assert!(world.disks.borrow().iter().all(|disk| disk.held == 0), "references were not given back");
    }
}

/// A disk full of data, but for every other sector of some; or one that can't be written to.
fn disk(index: u8, bits: &mut Bits, chunk: u64) -> Disk {
    let sectors = 1 + u64::from(bits.take(4));
    let mut disk = Disk::new(&[b'a' + index], sectors, chunk);
    match bits.take(4) {
        8 => disk.read_only = true,
        9 => disk.gone = true,
        10 => disk.says = Some(Ok(sectors as i64 * SECTOR as i64 - 1)),
        11 => disk.says = Some(Err(Errno::IO)),
        12 => disk.says = Some(Ok(0)),
        13 => disk.says = Some(Ok(-512)),
        14 => {
            disk = Disk::new(&[b'a' + index], KEPT, chunk);
            disk.says = Some(Ok(i64::MAX / 512 * 512));
        }
        15 => disk.name = vec![b'n'; 255],
        data => {
            for sector in (0..sectors).filter(|sector| data & 1 == 0 || sector % 2 == 0) {
                disk.stamp(sector, u64::from(data) << 32 | sector);
            }
        }
    }
    disk
}

/// What a section asks for.
#[derive(Default)]
pub(crate) struct Model {
    /// Disk, sector and content, in their order, up to the record that is wrong. `None`: zeroes.
    pub(crate) writes: Vec<(usize, u64, Option<Vec<u8>>)>,
    /// The section is right, and this is the last progress that it told.
    percent: Option<Option<u64>>,
    taken: usize,
}

impl Model {
    fn read(bytes: &[u8], extended: &mut State, disks: &[Disk], chunk: u64, accept_tail_garbage: bool) -> Model {
        let mut model = Model::default();
        let mut rest = bytes;
        model.percent = if bytes.get(..8).is_some_and(|word| word[6] & 1 == 0 && word[7] == 0x10) {
            extended.records(&mut model, &mut rest, disks, chunk)
        } else {
            *extended = State::default();
            model.records(&mut rest, disks, chunk, accept_tail_garbage)
        };
        model.taken = bytes.len() - rest.len();
        model
    }

    /// `None` at the first thing that is wrong.
    fn records(&mut self, rest: &mut &[u8], disks: &[Disk], chunk: u64, accept: bool) -> Option<Option<u64>> {
        let mut percent = None;
        loop {
            let word = u64::from_be_bytes(take(rest, 8)?.try_into().ok()?);
            let (value, flags) = (word >> 9, word & 0x1ff);
            match flags {
                2 => return (value == 0).then_some(percent),
                4 if value <= 100 => percent = Some(value),
                1 | 9 => {
                    let length = take(rest, 1)?[0];
                    let name = take(rest, length.into())?;
                    let disk = disks.iter().position(|disk| disk.name == name && usable(disk))?;
                    let total = disks[disk].says.map_or(disks[disk].sectors(), |says| says.unwrap_or(0) as u64 / 512);
                    let count = total.checked_sub(value).filter(|&left| left > 0)?.min(chunk);
                    let content = if flags == 9 { None } else { Some(take(rest, chunk as usize * SECTOR)?) };
                    let (data, padding) = content.map_or((None, &[][..]), |all| {
                        let (data, padding) = all.split_at(count as usize * SECTOR);
                        (Some(data), padding)
                    });
                    if !accept && padding.chunks(SECTOR).any(|sector| *sector != [0; SECTOR]) {
                        return None;
                    }
                    for at in 0..count {
                        let content = data.map(|data| data[at as usize * SECTOR..][..SECTOR].to_vec());
                        self.writes.push((disk, value + at, content));
                    }
                }
                _ => return None,
            }
        }
    }

    /// All of it is on the disks, and nothing else.
    fn check_all(&self, mut before: Vec<Vec<u8>>, disks: &[Disk]) {
        for (disk, sector, content) in &self.writes {
            if let Some(place) = before[*disk].chunks_mut(SECTOR).nth(*sector as usize) {
                place.copy_from_slice(content.as_deref().unwrap_or(&[0; SECTOR]));
            }
        }
        for (before, disk) in before.iter().zip(disks) {
            assert!(*before == disk.data, "a disk does not hold what the section says");
        }
    }

    /// Each sector holds what was there or what one of the records put there.
    fn check_some(&self, before: &[Vec<u8>], disks: &[Disk]) {
        for (index, disk) in disks.iter().enumerate() {
            for (sector, content) in disk.data.chunks(SECTOR).enumerate() {
                let was = &before[index][sector * SECTOR..][..SECTOR];
                let written = |(disk, at, put): &(usize, u64, Option<Vec<u8>>)| {
                    (*disk, *at) == (index, sector as u64) && *content == *put.as_deref().unwrap_or(&[0; SECTOR])
                };
                let explained = content == was || self.writes.iter().any(written);
                assert!(explained, "sector {sector} of disk {index} holds what no record before the wrong one says");
            }
        }
    }
}

pub(crate) fn usable(disk: &Disk) -> bool {
    let length = disk.says.unwrap_or(Ok(disk.data.len() as i64));
    !disk.read_only && !disk.gone && length.is_ok_and(|length| length > 0 && length % 512 == 0)
}

/// The next bytes, or `None` if there are fewer.
pub(crate) fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}
