// SPDX-License-Identifier: GPL-2.0-only
//! What the log says, and what it must not be made to say.

use std::cell::RefCell;
use std::sync::Once;

use blkmig::error::Errno;
use blkmig::settings::Options;

use crate::bench::{Bench, PLAIN, QUICK};
use crate::sim::disk::Kind;

thread_local! {
    static LINES: RefCell<Vec<(log::Level, String)>> = RefCell::default();
}

/// Keeps the lines of the thread, which is the test's.
struct Keep;

impl log::Log for Keep {
    fn enabled(&self, _metadata: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        LINES.with_borrow_mut(|lines| lines.push((record.level(), record.args().to_string())));
    }

    fn flush(&self) {}
}

/// The lines of this level that are logged meanwhile.
fn logged(level: log::Level, what: impl FnOnce()) -> Vec<String> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Keep).expect("nobody else sets one");
        log::set_max_level(log::LevelFilter::Info);
    });
    LINES.take();
    what();
    LINES.take().into_iter().filter(|(of, _)| *of == level).map(|(_, line)| line).collect()
}

#[test]
fn each_device_that_is_left_out_is_named_with_the_reason() {
    let disks = [
        ("ro", Kind::ReadOnly, 3),
        ("hd0", Kind::Normal, 5),
        ("cd", Kind::NoMedium, 0),
        ("empty", Kind::Empty, 0),
        ("gone", Kind::Gone, 4),
    ];
    let mut bench = Bench::new(1, &disks, QUICK, Options::default());
    let lines = logged(log::Level::Info, || bench.setup().unwrap());
    let reasons = ["ro is not migrated: it is read-only", "cd is not migrated: it is empty"];
    let more = ["empty is not migrated: its length is 0", "gone is not migrated: there is nothing behind it"];
    let expected: Vec<_> = reasons.iter().chain(&more).map(|line| format!("device {line}")).collect();
    assert_eq!(lines, expected);
}

#[test]
fn an_error_is_said_once_however_often_the_host_asks() {
    let mut bench = Bench::one(1, 5, QUICK);
    bench.setup().unwrap();
    bench.source.disks.borrow_mut()[0].says = Some(Err(Errno::NO_MEDIUM));
    let lines = logged(log::Level::Error, || {
        for _ in 0..10 {
            bench.iterate().unwrap_err();
        }
    });
    assert_eq!(lines, ["can't get the length of device hd0: No medium found"]);
    assert_eq!(bench.from.last_error(), lines[0]);
}

#[test]
fn a_peer_cannot_forge_lines_of_the_log_nor_fill_it() {
    let bench = Bench::one(1, 5, PLAIN);
    let name = b"x\nblkmig: all is well\r\x1b[2J\x7f\xc2\x9b";
    let block = [1_u64.to_be_bytes().to_vec(), vec![name.len() as u8], name.to_vec()].concat();
    let lines = logged(log::Level::Error, || drop(bench.load(&block)));
    assert_eq!(lines.len(), 1);
    assert!(!lines[0].chars().any(char::is_control), "{lines:?}");
    assert!(lines[0].contains(r"x\nblkmig: all is well\r\u{1b}[2J\u{7f}\u{9b}"), "{lines:?}");
    // Each of these lowers the percentage, as if another migration began.
    let percents = (0..100_000_u64).map(|n| (99 - n % 100) << 9 | 4);
    let section: Vec<u8> = percents.chain([2]).flat_map(u64::to_be_bytes).collect();
    let lines = logged(log::Level::Info, || bench.load(&section).unwrap());
    assert!((1..=256).contains(&lines.len()), "{} lines", lines.len());
}
