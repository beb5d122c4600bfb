// SPDX-License-Identifier: GPL-2.0-only
//! Two simulated machines for one test. Nothing happens in them but what the test does.

use std::cell::{Cell, RefCell};

use std::rc::Rc;

use blkmig::error::Error;

use blkmig::geometry::Geometry;

use blkmig::instance::Instance;
use blkmig::settings::Options;

use blkmig::call::CallContext;
use blkmig::source::Step;

use crate::sim::disk::{Disk, Kind};

use crate::sim::guest::GuestMode;

use crate::sim::host::SimHost;

use crate::sim::machine::{Features, Machine};

use crate::sim::model::{Model, ModelDisk};

use crate::sim::stream::{InStream, OutStream, SimMonitor};

use crate::sim::{Call, Sim};

/// A host without optional functions, whose requests complete only when the test says so.
pub(crate) const PLAIN: Features = Features {
    async_writes: false,
    wait: false,
    next_dirty: false,
    write_zeroes: false,
    zeroes_unsupported: false,
    known_zero: false,
    tiny_extents: false,
    cluster: None,
    owned_buffers: false,
    threaded: false,
    sudden: false,
    immediate: 0,
    calls_back: false,
    tick_ns: 0,
    max_downtime_ns: 30_000_000,
};

/// A host whose reads complete at once.
pub(crate) const QUICK: Features = Features { immediate: 1000, ..PLAIN };

pub(crate) struct Fixture {
    pub(crate) sim: Rc<Sim>,
    pub(crate) source: Rc<Machine>,
    pub(crate) destination: Rc<Machine>,
    pub(crate) from: Rc<Instance<SimHost>>,
    pub(crate) to: Rc<Instance<SimHost>>,
    pub(crate) stream: OutStream,
    pub(crate) monitor: Option<SimMonitor>,
    pub(crate) sections: Vec<Vec<u8>>,
    model: Model,
}

impl Fixture {
    pub(crate) fn new(chunk: u32, disks: &[(&str, Kind, u64)], features: Features, options: Options) -> Fixture {
        let sim = Rc::new(Sim::new(1, false, None, None));
        let make = |stamp: u64| -> Vec<Disk> {
            let disks = disks.iter().map(|(name, kind, sectors)| {
                let mut disk = Disk::new(name.as_bytes(), *kind, *sectors, chunk.into(), 1);
                disk.stamp(0..*sectors, stamp);
                disk
            });
            disks.collect()
        };
        let machine = |label, disks| {
            Machine::new(label, Rc::clone(&sim), features, disks, (GuestMode::Atomic, 0), (usize::MAX, usize::MAX))
        };
        let (source, destination) = (machine("source", make(100)), machine("destination", make(200)));
        let [from, to] = [&source, &destination].map(|machine| {
            let instance = Rc::new(Instance::new(Geometry::new(chunk).expect("it is in range")));
            instance.set_options(options).expect("nothing runs");
            instance.set_host(SimHost(Rc::clone(machine))).expect("nothing runs");
            instance
        });
        let stream = OutStream::new(&source, None);
        let model = disks.iter().map(|(name, kind, sectors)| ModelDisk {
            name: name.as_bytes().to_vec(),
            migrates: *kind == Kind::Normal,
            data: vec![0xaa; *sectors as usize * 512],
            sent: vec![false; sectors.div_ceil(chunk.into()) as usize],
        });
        let model = Model::new(model.collect(), chunk.into(), options.zero_blocks);
        Fixture { sim, source, destination, from, to, stream, monitor: None, sections: Vec::new(), model }
    }

    /// One device that migrates, "hd0".
    pub(crate) fn one(chunk: u32, sectors: u64, features: Features) -> Fixture {
        Fixture::new(chunk, &[("hd0", Kind::Normal, sectors)], features, Options::default())
    }

    fn section<T>(
        &mut self,
        last: bool,
        call: impl FnOnce(&Instance<SimHost>, &mut CallContext) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.stream.next_step();
        let monitor = self.monitor.as_ref().map(|monitor| monitor as &dyn blkmig::host::Monitor);
        let result = call(&self.from, &mut CallContext { stream: &mut self.stream, monitor });
        let section = std::mem::take(&mut self.stream.section);
        if result.is_ok() {
            self.model.section(&section, last).expect("the section is valid");
        }
        self.sections.push(section);
        result
    }

    pub(crate) fn setup(&mut self) -> Result<(), Error> {
        self.section(false, Instance::setup)
    }

    pub(crate) fn iterate(&mut self) -> Result<Step, Error> {
        self.section(false, Instance::iterate)
    }

    pub(crate) fn complete(&mut self) -> Result<(), Error> {
        self.section(true, Instance::complete)
    }

    /// Calls `iterate` and completes all requests, until nothing is pending.
    pub(crate) fn run_dry(&mut self) {
        for _ in 0..1000 {
            self.iterate().unwrap();
            self.settle();
            if self.from.pending() == 0 {
                return;
            }
        }
        panic!("no end");
    }

    /// The guest writes, which changes data and dirty bits.
    pub(crate) fn write(&self, disk: usize, sectors: std::ops::Range<u64>, stamp: u64) {
        write(&self.source, disk, sectors, stamp);
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.source.ios.borrow().len()
    }

    /// All requests of the source complete.
    pub(crate) fn settle(&self) {
        self.source.complete_some(usize::MAX);
    }

    /// The bytes of this disk's chunks that differ from what was sent.
    pub(crate) fn lacking(&self, disk: usize) -> u64 {
        let disks = self.source.disks.borrow();
        let (here, there) = (&disks[disk].data, &self.model.disks[disk].data);
        let bytes = disks[disk].chunk as usize * 512;
        let chunks = here.chunks(bytes).zip(there.chunks(bytes));
        chunks.filter(|(one, other)| one != other).map(|(one, _)| one.len() as u64).sum()
    }

    /// Loads a section that the test has made.
    pub(crate) fn load(&self, section: &[u8]) -> Result<(), Error> {
        self.to.load(&mut InStream::new(&self.destination, section), 1)
    }

    /// Delivers all sections. The disks must be equal, and no check of the simulator may have failed.
    #[track_caller]
    pub(crate) fn check_migrated(&mut self) {
        for section in std::mem::take(&mut self.sections) {
            self.load(&section).expect("it loads");
        }
        self.stream.close();
        for (one, other) in self.source.disks.borrow().iter().zip(self.destination.disks.borrow().iter()) {
            assert!(!one.migrates() || one.data == other.data, "{} differs", String::from_utf8_lossy(&one.name));
        }
        self.check_released();
    }

    #[track_caller]
    pub(crate) fn check_released(&self) {
        for machine in [&self.source, &self.destination] {
            for disk in machine.disks.borrow().iter() {
                assert_eq!((disk.held, disk.tracking), (0, false));
            }
            assert!(machine.ios.borrow().is_empty());
        }
        assert_eq!((self.from.status().buffers().0, self.to.status().buffers().0), (0, 0));
        assert_eq!(self.sim.violations(), Vec::<String>::new());
    }

    /// The sectors of the destination's disk that have changed since the start.
    pub(crate) fn changed(&self, disk: usize) -> Vec<u64> {
        let disks = self.destination.disks.borrow();
        let sectors = disks[disk].data.chunks(512).enumerate();
        let changed = sectors.filter(|(n, data)| **data != crate::sim::disk::pattern(*n as u64, 200));
        changed.map(|(n, _)| n as u64).collect()
    }
}

pub(crate) fn write(machine: &Machine, disk: usize, sectors: std::ops::Range<u64>, stamp: u64) {
    let mut disks = machine.disks.borrow_mut();
    disks[disk].stamp(sectors.clone(), stamp);
    disks[disk].mark_dirty(sectors);
}

/// Does `what` once, at the first call of this kind.
pub(crate) fn once(machine: &Machine, at: Call, what: impl Fn(&Machine) + 'static) {
    let done = Cell::new(false);
    *machine.script.borrow_mut() = Some(Rc::new(move |machine: &Machine, call| {
        if call == at && !done.replace(true) {
            what(machine);
        }
    }));
}

/// Records the calls that a machine gets.
pub(crate) fn record(machine: &Machine) -> Rc<RefCell<Vec<Call>>> {
    let calls = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&calls);
    *machine.script.borrow_mut() = Some(Rc::new(move |_: &Machine, call| log.borrow_mut().push(call)));
    calls
}
