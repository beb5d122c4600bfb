// SPDX-License-Identifier: GPL-2.0-only
//! The pieces by themselves: the zero test, the stream's records, and a step's search for dirty chunks.
#![expect(missing_docs, reason = "criterion's macro makes a public function")]
#![expect(clippy::arc_with_non_send_sync, reason = "the engine shares its host, and this one is used by one thread")]

use std::cell::RefCell;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use blkmig::buffers::{Buffer, is_zero};
use blkmig::call::CallContext;
use blkmig::device_name::DeviceName;
use blkmig::error::Errno;
use blkmig::geometry::{Geometry, Sector, Sectors};
use blkmig::host::{Device, Extent, Host, Stream};
use blkmig::request::ReadRequest;
use blkmig::settings::{Selection, Settings};
use blkmig::source::Outgoing;
use blkmig::status::Status;
use blkmig::wire::Record;

const CHUNK: usize = 1 << 20;
const CHUNK_SECTORS: u64 = 2048;

fn zero_test(c: &mut Criterion) {
    let mut group = c.benchmark_group("is_zero");
    group.throughput(Throughput::Bytes(CHUNK as u64));
    let mut data = vec![0; CHUNK];
    group.bench_function("a chunk of zeroes", |b| b.iter(|| is_zero(black_box(&data))));
    data[CHUNK - 1] = 1;
    group.bench_function("zeroes but for the last byte", |b| b.iter(|| is_zero(black_box(&data))));
    data[0] = 1;
    group.bench_function("data", |b| b.iter(|| is_zero(black_box(&data))));
}

fn wire(c: &mut Criterion) {
    let record = Record::Block("virtio0".into(), Sector(123 * CHUNK_SECTORS));
    c.bench_function("a record encoded", |b| b.iter(|| black_box(&record).encode()));
    let bytes = record.encode();
    c.bench_function("a record decoded", |b| {
        b.iter(|| {
            let (word, mut left) = black_box(&bytes[..]).split_first_chunk().expect("a record");
            Record::decode(*word, |into, _| {
                let (taken, rest) = left.split_at(into.len());
                into.copy_from_slice(taken);
                left = rest;
                Ok(())
            })
        });
    });
}

/// A disk that holds nothing, is not allocated, and whose reads are answered at once.
#[derive(Clone)]
struct Thin(Rc<RefCell<Dirty>>);

struct Dirty {
    chunks: u64,
    words: Vec<u64>,
    count: u64,
}

impl Thin {
    fn new(chunks: u64) -> Thin {
        let words = vec![0; usize::try_from(chunks.div_ceil(64)).unwrap()];
        Thin(Rc::new(RefCell::new(Dirty { chunks, words, count: 0 })))
    }

    fn set(&self, chunk: u64, dirty: bool) {
        let mut this = self.0.borrow_mut();
        let (word, bit) = (usize::try_from(chunk / 64).unwrap(), 1 << (chunk % 64));
        if (this.words[word] & bit != 0) != dirty {
            this.words[word] ^= bit;
            this.count = if dirty { this.count + 1 } else { this.count - 1 };
        }
    }
}

impl Host for Thin {
    type Device = Thin;

    fn devices(&self) -> Vec<Thin> {
        vec![self.clone()]
    }
    fn find(&self, _: &DeviceName) -> Option<Thin> {
        None
    }
    fn drain(&self) {}
    fn now_ns(&self) -> i64 {
        0
    }
    fn max_downtime_ns(&self) -> u64 {
        0
    }
}

impl Device for Thin {
    fn is_same(&self, _other: &Thin) -> bool {
        true
    }

    fn name(&self) -> DeviceName {
        "thin".into()
    }
    fn length(&self) -> Result<i64, Errno> {
        Ok(i64::try_from(self.0.borrow().chunks).unwrap() * (1 << 20))
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn allocated(&self, range: Sectors) -> Result<Extent, Errno> {
        Ok(Extent { holds: false, sectors: range.count.into() })
    }
    fn read(&self, request: ReadRequest) -> Result<(), Errno> {
        request.complete(0, Ok(()));
        Ok(())
    }
    fn write(&self, _: Sector, _: &[u8]) -> Result<(), Errno> {
        Err(Errno::IO)
    }
    fn set_tracking(&self, _: bool) -> Result<(), Errno> {
        Ok(())
    }
    fn is_dirty(&self, sector: Sector) -> bool {
        let chunk = sector.0 / CHUNK_SECTORS;
        self.0.borrow().words[usize::try_from(chunk / 64).unwrap()] >> (chunk % 64) & 1 != 0
    }
    fn reset_dirty(&self, range: Sectors) {
        self.set(range.start.0 / CHUNK_SECTORS, false);
    }
    fn dirty_units(&self) -> Result<u64, Errno> {
        Ok(self.0.borrow().count)
    }
    fn next_dirty(&self, from: Sector) -> Option<i64> {
        let this = self.0.borrow();
        let chunk = from.0 / CHUNK_SECTORS;
        let first = usize::try_from(chunk / 64).unwrap();
        let masked =
            |(word, bits): (usize, &u64)| if word == first { bits & (u64::MAX << (chunk % 64)) } else { *bits };
        let mut words = this.words.iter().enumerate().skip(first).map(|word| (word.0 as u64, masked(word)));
        let found = words.find(|(_, bits)| *bits != 0);
        let sector = |(word, bits): (u64, u64)| (word * 64 + u64::from(bits.trailing_zeros())) * CHUNK_SECTORS;
        Some(found.map_or(-1, |found| sector(found).try_into().expect("a sector fits")))
    }
}

/// Swallows everything.
struct Sink;

impl Stream for Sink {
    fn put(&mut self, bytes: &[u8]) {
        black_box(bytes);
    }
    fn put_owned(&mut self, _: Buffer, _: usize) -> Result<(), Buffer> {
        Ok(())
    }
    fn get(&mut self, _: &mut [u8]) -> usize {
        0
    }
    fn is_rate_limited(&mut self) -> bool {
        false
    }
    fn rate_limit(&mut self) -> Option<u64> {
        None
    }
    fn error(&mut self) -> Option<Errno> {
        None
    }
    fn set_error(&mut self, _: Errno) {}
}

/// A migration of a disk of so many chunks whose bulk phase is over.
fn migration(disk: &Thin) -> Outgoing<Thin> {
    let settings = Settings { shared_base: true, ..Settings::default_for(Geometry::QEMU) };
    let mut call = CallContext { stream: &mut Sink, monitor: None };
    let host = Arc::new(disk.clone());
    let mut migration = Outgoing::start(host, settings, Selection::All, Arc::new(Status::default()), &mut call)
        .expect("nothing fails here");
    while !migration.iterate(&mut call).expect("nothing fails here").can_finish {}
    migration
}

fn dirty_search(c: &mut Criterion) {
    let mut group = c.benchmark_group("a step");
    for (size, chunks) in [("16 GiB", 1 << 14), ("16 TiB", 1 << 24)] {
        let disk = Thin::new(chunks);
        let mut migration = migration(&disk);
        let mut call = CallContext { stream: &mut Sink, monitor: None };
        group.bench_function(format!("of {size} with nothing dirty"), |b| b.iter(|| migration.iterate(&mut call)));
        group.bench_function(format!("of {size} with 64 chunks dirty"), |b| {
            b.iter(|| {
                for i in 0..64 {
                    disk.set(i * (chunks / 64), true);
                }
                migration.iterate(&mut call)
            });
        });
    }
}

criterion_group!(pieces, zero_test, wire, dirty_search);
criterion_main!(pieces);
