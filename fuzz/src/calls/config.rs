// SPDX-License-Identifier: GPL-2.0-only
//! The source that an input asks for, and what its host does in the middle of calls.

use std::cell::Cell;
use std::rc::Rc;

use blkmig::error::{Errno, Error};
use blkmig::geometry::Geometry;

use super::peer::Peer;
use super::{Outer, Source, State};
use crate::host::{CallContext, Disk, Features, InStream, Instance, Options, OutStream, SECTOR, SmallHost, World};
use crate::input::{Bits, Input};

/// The identity of a stream that no migration is set up on.
const STRANGER: usize = 99;

impl Source {
    pub(super) fn new(input: &mut Input) -> Source {
        let mut bits = Bits(input.byte());
        let chunk = [1, 2, 4, 1][usize::from(bits.take(2))];
        let mut options = Options {
            max_buffers: 1 + u32::from(bits.take(2)),
            max_reads: 1 + u32::from(bits.take(2)),
            zero_blocks: bits.flag(),
            ..Options::default()
        };
        let has_monitor = bits.flag();
        let mut bits = Bits(input.byte());
        let mut features = Features {
            chunk: u64::from(chunk),
            known_zero: bits.flag(),
            next_dirty: bits.flag(),
            wait: bits.flag(),
            threaded: bits.flag(),
            owned: bits.flag(),
            short_extents: bits.flag(),
            lies: true,
            ..Features::default()
        };
        let params = bits.flag().then(|| (true, bits.flag()));
        let peer_features = input.byte();
        (options.stream, options.compression) = stream(Bits(peer_features >> 6));
        let mut bits = Bits(input.byte());
        let limit = bits.take(3);
        let limit = if limit == 0 { None } else { Some(u64::from(limit - 1) * 300) };
        features.max_downtime_ns = [0, 1_000_000, 300_000_000, u64::MAX][usize::from(bits.take(2))];
        features.tick_ns = [1, 1_000, 1_000_000, 50_000_000][usize::from(bits.take(2))];
        let has_host = !bits.flag();
        options.max_writes = options.max_buffers;
        let count = input.byte();
        let unit = [0, 1, 2, 1][usize::from(count / 3 % 4)];
        features.unit = if unit < features.chunk { unit } else { 0 };
        let disks: Vec<Disk> = (0..1 + count % 3).map(|index| disk(index, input, features.unit())).collect();
        let world = World::new(features, disks, input.bytes(4));
        world.max_requests.set(options.max_reads as usize);
        let instance = Rc::new(Instance::new(Geometry::new(chunk).expect("small chunks")));
        instance.set_options(options).expect("nothing runs");
        if has_host {
            instance.set_host(SmallHost(Rc::clone(&world))).expect("nothing runs");
        }
        if let Some((enabled, shared_base)) = params {
            instance.set_params(enabled, shared_base);
        }
        let outer = Rc::new(Cell::new(Outer::NotInUse));
        *world.call_back.borrow_mut() = Some(call_back(&instance, &outer));
        Source {
            streams: [OutStream::new(&world, 0, limit), OutStream::new(&world, 1, limit)],
            peer: Peer::new(&world, peer_features, false),
            world,
            instance,
            has_monitor,
            limit,
            options,
            has_host,
            outer,
            state: State::Idle,
            params,
            staged: None,
            peer_features,
            faults_before: 0,
            disguises_before: 0,
            changed: false,
            lied: false,
        }
    }
}

/// The stream that the source writes, and its compression. Miri can't run C.
fn stream(mut bits: Bits) -> (u32, i32) {
    if bits.flag() { (2, i32::from(bits.flag() && cfg!(not(miri)))) } else { (0, 0) }
}

/// A disk with some data of its own, some of its backing file, and some zeroes; or one of those that don't migrate.
fn disk(index: u8, input: &mut Input, unit: u64) -> Disk {
    let mut bits = Bits(input.byte());
    let content = input.byte();
    let sectors = 1 + u64::from(bits.take(3));
    let mut disk = Disk::new(&[b'a' + index], sectors, unit);
    for sector in 0..sectors {
        let own = content >> sector & 1 == 1;
        if own || sector % 2 == 1 {
            disk.stamp(sector, u64::from(index) << 40 | 1 << 32 | sector);
        }
        disk.allocated[sector as usize] = own;
    }
    match bits.take(4) {
        10 => disk.read_only = true,
        11 => disk.says = Some(Ok(0)),
        12 => disk.gone = true,
        13 => disk.says = Some(Ok(disk.data.len() as i64 - 1)),
        14 => disk.name = vec![b'n'; 254 + usize::from(index)],
        15 => disk.name = b"a".to_vec(),
        _ => {}
    }
    disk
}

/// What the host calls from within callbacks: whatever works on a migration must be left alone.
fn call_back(instance: &Rc<Instance<SmallHost>>, outer: &Rc<Cell<Outer>>) -> Box<dyn Fn(&Rc<World>, &'static str, u8)> {
    let (weak, outer) = (Rc::downgrade(instance), Rc::clone(outer));
    Box::new(move |world, name, which| {
        let Some(instance) = weak.upgrade() else { return };
        let in_use = match outer.get() {
            Outer::NotInUse => false,
            Outer::InUse => true,
            Outer::InUseByStage => name != "set_error",
        };
        if !in_use {
            return;
        }
        let mut stream = OutStream::new(world, STRANGER, None);
        let context = &mut CallContext { stream: &mut stream, monitor: None };
        let all = instance.status().bytes().0;
        match which {
            0 => instance.cleanup(None),
            1 => assert_eq!(instance.setup(context), Err(Error::Busy)),
            2 => assert_eq!(instance.iterate(context), Err(Error::Busy)),
            3 => assert_eq!(instance.complete(context), Err(Error::Busy)),
            4 => assert_eq!(instance.pending(), all),
            5 => assert_eq!(instance.pending_switchover(7), all.max(8)),
            6 => assert_eq!(instance.set_host(SmallHost(Rc::clone(world))), Err(Error::Busy)),
            7 => assert_eq!(instance.set_options(Options::default()), Err(Error::Busy)),
            8..=12 => {
                assert_eq!(instance.save_live(context, i32::from(which) - 9), 0);
                assert!(which == 8 || stream.failed.is_some(), "a stage within another call was not refused");
            }
            _ => {
                // A section without a device; it may well be that memory is short.
                let mut stream = InStream::new(world, STRANGER, &[0, 0, 0, 0, 0, 0, 0, 2], false);
                let _ = instance.load(&mut stream, 1);
            }
        }
    })
}

/// Whether setup takes the disk in, or fails over it.
pub(super) fn migrates(disk: &Disk) -> Result<bool, Errno> {
    if disk.unlisted || disk.read_only {
        return Ok(false);
    }
    match disk.says.unwrap_or(Ok(disk.data.len() as i64)) {
        Ok(0) => Ok(false),
        Err(errno) if errno == Errno::NO_MEDIUM => Ok(false),
        Err(errno) => Err(errno),
        Ok(_) if disk.gone => Ok(false),
        Ok(length) if length % SECTOR as i64 != 0 || disk.name.len() > 255 => Err(Errno::INVALID),
        Ok(_) => Ok(true),
    }
}
