// SPDX-License-Identifier: GPL-2.0-only
//! The destination: the engine's own, which takes in what the source puts into its stream.

use std::rc::Rc;

use blkmig::geometry::Geometry;

use super::config::migrates;
use crate::host::{Disk, Features, InStream, Instance, Options, SECTOR, SmallHost, World};
use crate::input::Bits;

pub(super) struct Peer {
    world: Rc<World>,
    instance: Instance<SmallHost>,
    /// For each disk of the source, the number of ours.
    pub(super) disks: Vec<Option<usize>>,
}

impl Peer {
    pub(super) fn new(source: &World, features: u8, shared_base: bool) -> Peer {
        let mut bits = Bits(features);
        let chunk = source.features.chunk;
        let features = Features {
            chunk,
            write_async: bits.flag(),
            write_zeroes: bits.flag(),
            known_zero: bits.flag(),
            wait: bits.flag(),
            ..Features::default()
        };
        let max_buffers = 1 + u32::from(bits.take(2));
        let mut ours = Vec::new();
        let mut numbers = Vec::new();
        for disk in source.disks.borrow().iter() {
            let taken = migrates(disk) == Ok(true);
            numbers.push(taken.then_some(ours.len()));
            if taken {
                ours.push(empty(disk, chunk, shared_base));
            }
        }
        let world = World::new(features, ours, source.choices.clone());
        let instance = Instance::new(Geometry::new(chunk as u32).expect("small chunks"));
        instance.set_host(SmallHost(Rc::clone(&world))).expect("nothing runs");
        instance.set_options(Options { max_buffers, ..Options::default() }).expect("nothing runs");
        Peer { world, instance, disks: numbers }
    }

    /// Loads one section, which must be all that there is.
    pub(super) fn load(&self, section: &[u8]) -> Result<(), String> {
        let mut stream = InStream::new(&self.world, 0, section, false);
        self.instance.load(&mut stream, 1).map_err(|error| error.to_string())?;
        if stream.left() > 0 { Err("more follows on the section's end".to_owned()) } else { Ok(()) }
    }

    /// Whether a sector is the same here and on the source's disk.
    pub(super) fn has(&self, index: usize, source: &Disk, sector: u64) -> bool {
        let at = sector as usize * SECTOR;
        let same = |ours: &Disk| ours.data[at..][..SECTOR] == source.data[at..][..SECTOR];
        self.disks[index].is_some_and(|ours| same(&self.world.disks.borrow()[ours]))
    }
}

/// What is on the destination before: nothing that the source has, or the backing file.
fn empty(source: &Disk, chunk: u64, shared_base: bool) -> Disk {
    let mut disk = Disk::new(&source.name, source.sectors(), chunk);
    for sector in 0..source.sectors() {
        disk.stamp(sector, u64::MAX);
        if shared_base && !source.allocated[sector as usize] {
            let at = sector as usize * SECTOR;
            disk.data[at..][..SECTOR].copy_from_slice(&source.data[at..][..SECTOR]);
        }
    }
    disk
}
