// SPDX-License-Identifier: GPL-2.0-only
//! What is logged, and what a hostile peer cannot have logged.

use std::cell::RefCell;

use std::sync::Once;

use blkmig::error::Errno;

use blkmig::settings::Options;

use crate::fixture::{Fixture, PLAIN, QUICK};

use crate::sim::disk::Kind;

thread_local! {
    static LINES: RefCell<Vec<(log::Level, String)>> = RefCell::default();
}

/// Keeps the lines that this thread logs; each test has its own thread.
struct LineKeeper;

impl log::Log for LineKeeper {
    fn enabled(&self, _metadata: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        LINES.with_borrow_mut(|lines| lines.push((record.level(), record.args().to_string())));
    }

    fn flush(&self) {}
}

/// The lines that `what` logs at this level.
pub(crate) fn logged(level: log::Level, what: impl FnOnce()) -> Vec<String> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&LineKeeper).expect("nobody else sets one");
        log::set_max_level(log::LevelFilter::Info);
    });
    LINES.take();
    what();
    LINES.take().into_iter().filter(|(of, _)| *of == level).map(|(_, line)| line).collect()
}

#[test]
fn each_skipped_device_is_logged_with_the_reason() {
    let disks = [
        ("ro", Kind::ReadOnly, 3),
        ("hd0", Kind::Normal, 5),
        ("cd", Kind::NoMedium, 0),
        ("empty", Kind::Empty, 0),
        ("gone", Kind::Gone, 4),
    ];
    let mut fixture = Fixture::new(1, &disks, QUICK, Options::default());
    let lines = logged(log::Level::Info, || fixture.setup().unwrap());
    let reasons = ["ro is not migrated: it is read-only", "cd is not migrated: it is empty"];
    let more = ["empty is not migrated: its length is 0", "gone is not migrated: there is nothing behind it"];
    let expected: Vec<_> = reasons.iter().chain(&more).map(|line| format!("device {line}")).collect();
    assert_eq!(lines, expected);
}

#[test]
fn an_error_is_logged_once_however_often_the_host_calls() {
    let mut fixture = Fixture::one(1, 5, QUICK);
    fixture.setup().unwrap();
    fixture.source.disks.borrow_mut()[0].reported_length = Some(Err(Errno::NO_MEDIUM));
    let lines = logged(log::Level::Error, || {
        for _ in 0..10 {
            fixture.iterate().unwrap_err();
        }
    });
    assert_eq!(lines, ["can't get the length of device hd0: No medium found"]);
    assert_eq!(fixture.from.last_error(), lines[0]);
}

#[test]
fn a_peer_can_neither_forge_log_lines_nor_flood_the_log() {
    let fixture = Fixture::one(1, 5, PLAIN);
    let name = b"x\nblkmig: all is well\r\x1b[2J\x7f\xc2\x9b";
    let block = [1_u64.to_be_bytes().to_vec(), vec![name.len() as u8], name.to_vec()].concat();
    let lines = logged(log::Level::Error, || drop(fixture.load(&block)));
    assert_eq!(lines.len(), 1);
    assert!(!lines[0].chars().any(char::is_control), "{lines:?}");
    assert!(lines[0].contains(r"x\nblkmig: all is well\r\u{1b}[2J\u{7f}\u{9b}"), "{lines:?}");
    // Each record has a lower percentage than the one before, as if another migration had begun.
    let percents = (0..100_000_u64).map(|n| (99 - n % 100) << 9 | 4);
    let section: Vec<u8> = percents.chain([2]).flat_map(u64::to_be_bytes).collect();
    let lines = logged(log::Level::Info, || fixture.load(&section).unwrap());
    assert!((1..=256).contains(&lines.len()), "{} lines", lines.len());
}
