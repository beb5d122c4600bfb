// SPDX-License-Identifier: GPL-2.0-only
//! Real threads, which the simulator does not have: a host that completes requests on its own threads, a guest that
//! writes meanwhile, and a thread that queries the status.

#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

mod host;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use blkmig::call::CallContext;
use blkmig::settings::Options;
use host::{CHUNK, CHUNKS, Pipe, Queue, ThreadHost};

fn context(stream: &mut Pipe) -> CallContext<'_> {
    CallContext { stream, monitor: None }
}

/// How long `f` took.
fn timed<T>(f: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let result = f();
    (began.elapsed(), result)
}

/// B-25: it returns as soon as there is something to send.
#[test]
fn iterate_waits_for_a_completion_on_a_threaded_host() {
    let host = ThreadHost::new(Queue { held: AtomicBool::new(true), ..Queue::default() }, true);
    let instance = host.module(Options::default());
    let mut pipe = Pipe::new();
    host.with_workers(1, || {
        instance.setup(&mut context(&mut pipe)).unwrap();
        let queue = Arc::clone(&host.queue);
        let opener = thread::spawn(move || {
            thread::sleep(Duration::from_millis(30));
            queue.held.store(false, Relaxed);
            queue.changed.notify_all();
        });
        let (time, step) = timed(|| instance.iterate(&mut context(&mut pipe)).unwrap());
        opener.join().unwrap();
        assert!(step.sent, "it must not return with nothing sent, or its caller would spin");
        assert!(time >= Duration::from_millis(25), "{time:?}");
        instance.cleanup(None);
    });
}

/// B-25: the wait is bounded, so that the host's thread stays responsive.
#[test]
fn iterate_waits_for_at_most_a_tenth_of_a_second() {
    let host = ThreadHost::new(Queue { held: AtomicBool::new(true), ..Queue::default() }, true);
    let instance = host.module(Options::default());
    let mut pipe = Pipe::new();
    host.with_workers(1, || {
        instance.setup(&mut context(&mut pipe)).unwrap();
        // The shortest of three, because other programs on this computer can only make it longer.
        let times = [(); 3].map(|()| {
            let (time, step) = timed(|| instance.iterate(&mut context(&mut pipe)).unwrap());
            assert!(!step.sent && !step.can_finish);
            time
        });
        let time = times.into_iter().min().unwrap();
        assert!((Duration::from_millis(95)..Duration::from_millis(250)).contains(&time), "{times:?}");
        host.queue.held.store(false, Relaxed);
        instance.cleanup(None);
    });
}

/// B-25: there, nothing could complete meanwhile.
#[test]
fn iterate_never_waits_on_a_host_without_threads() {
    let host = ThreadHost::new(Queue { held: AtomicBool::new(true), ..Queue::default() }, false);
    let instance = host.module(Options::default());
    let mut pipe = Pipe::new();
    host.with_workers(1, || {
        instance.setup(&mut context(&mut pipe)).unwrap();
        let (time, step) = timed(|| instance.iterate(&mut context(&mut pipe)).unwrap());
        assert!(!step.sent);
        assert!(time < Duration::from_millis(90), "{time:?}");
        host.queue.held.store(false, Relaxed);
        instance.cleanup(None);
    });
}

/// A whole migration while the guest writes until the last stage. Both disks must be equal at the end.
fn migrate(source: &ThreadHost, destination: &ThreadHost, options: Options) {
    let (from, to) = (source.module(options), destination.module(options));
    let mut pipe = Pipe::new();
    let stop = AtomicBool::new(false);
    let looks = AtomicU64::new(0);
    for chunk in 0..CHUNKS {
        source.guest_writes(chunk, (chunk % 250) as u8 + 1);
    }
    thread::scope(|scope| {
        let guest = scope.spawn(|| {
            let mut number = 0_usize;
            while !stop.load(Relaxed) {
                number += 1;
                source.guest_writes(number * 7 % (CHUNKS / 4), (number % 251) as u8);
                thread::sleep(Duration::from_micros(100));
            }
        });
        let watcher = scope.spawn(|| {
            let mut last = 0;
            // On a busy computer the migration may end before this thread runs; it looks once even then.
            loop {
                let bulk = from.status().is_bulk_active();
                let (total, transferred) = from.status().bytes();
                assert!(transferred <= total, "{transferred} of {total}");
                if bulk {
                    assert!(transferred >= last, "transferred bytes fell from {last} to {transferred}");
                    last = transferred;
                }
                let (in_use, peak) = from.status().buffers();
                assert!(in_use <= options.max_buffers && peak <= options.max_buffers, "{in_use}, {peak}");
                assert!(from.status().reads_in_flight() <= options.max_reads);
                looks.fetch_add(1, Relaxed);
                if stop.load(Relaxed) {
                    break;
                }
                thread::yield_now();
            }
        });
        from.setup(&mut context(&mut pipe)).unwrap();
        to.load(&mut pipe, 1).unwrap();
        for _ in 0..40 {
            let can_finish = from.iterate(&mut context(&mut pipe)).unwrap().can_finish;
            to.load(&mut pipe, 1).unwrap();
            if can_finish {
                break;
            }
        }
        stop.store(true, Relaxed);
        guest.join().unwrap();
        from.complete(&mut context(&mut pipe)).unwrap();
        watcher.join().unwrap();
    });
    to.load(&mut pipe, 1).unwrap();
    assert!(looks.load(Relaxed) > 0);
    pipe.close();
    assert!(source.disk().0 == destination.disk().0, "the disks differ");
    assert_eq!((from.status().buffers().0, to.status().buffers().0), (0, 0));
    assert_eq!(from.status().bytes(), ((CHUNK * CHUNKS) as u64, (CHUNK * CHUNKS) as u64));
}

#[test]
fn migrations_succeed_while_other_threads_complete_write_and_query() {
    for round in 0..20 {
        let options = Options {
            max_buffers: 2 + round * 3,
            max_reads: 1 + round,
            max_writes: 1 + round % 5,
            zero_blocks: false,
            ..Options::default()
        };
        let delay = Duration::from_micros(u64::from(round % 3) * 50);
        let source = ThreadHost::new(Queue { delay, ..Queue::default() }, true);
        let destination = ThreadHost::new(Queue { delay, ..Queue::default() }, round % 2 == 0);
        source.with_workers(3, || destination.with_workers(3, || migrate(&source, &destination, options)));
    }
}

/// The host's drain may return just before the last completion is called.
#[test]
fn a_completion_may_come_shortly_after_the_drain_returned() {
    let early = || Queue { drain_is_early: Duration::from_millis(2), ..Queue::default() };
    let (source, destination) = (ThreadHost::new(early(), true), ThreadHost::new(early(), true));
    let options = Options { max_buffers: 32, max_reads: 32, max_writes: 32, zero_blocks: false, ..Options::default() };
    source.with_workers(8, || destination.with_workers(8, || migrate(&source, &destination, options)));
}

/// B-09: cleanup with reads in flight returns when they have completed, and nothing is left.
#[test]
fn cleanup_waits_for_requests_on_other_threads() {
    let queue = Queue { delay: Duration::from_millis(20), ..Queue::default() };
    let host = ThreadHost::new(queue, true);
    let instance = host.module(Options { max_reads: 4, ..Options::default() });
    let mut pipe = Pipe::new();
    host.with_workers(2, || {
        instance.setup(&mut context(&mut pipe)).unwrap();
        instance.iterate(&mut context(&mut pipe)).unwrap();
        assert!(instance.status().reads_in_flight() > 0);
        instance.cleanup(None);
        assert_eq!(instance.status().reads_in_flight(), 0);
        assert_eq!(host.queue.lock().1, 0);
    });
    pipe.close();
    assert_eq!(instance.status().buffers().0, 0);
}

/// Storage hangs and the user cancels: cleanup returns, and the requests complete during the next migration.
#[test]
fn canceling_does_not_wait_for_storage_that_hangs() {
    let source = ThreadHost::new(Queue { held: AtomicBool::new(true), ..Queue::default() }, true);
    let destination = ThreadHost::new(Queue::default(), true);
    let (from, to) = (source.module(Options::default()), destination.module(Options::default()));
    let work = || {
        let (mut cancelled, mut pipe) = (Pipe::new(), Pipe::new());
        from.setup(&mut context(&mut cancelled)).unwrap();
        from.iterate(&mut context(&mut cancelled)).unwrap();
        from.cleanup(None);
        assert!(from.status().reads_in_flight() > 0 && !from.status().is_active());
        (0..CHUNKS).for_each(|chunk| source.guest_writes(chunk, 9));
        from.setup(&mut context(&mut pipe)).unwrap();
        source.queue.held.store(false, Relaxed);
        from.complete(&mut context(&mut pipe)).unwrap();
        (0..2).for_each(|_| to.load(&mut pipe, 1).unwrap());
        [cancelled, pipe].into_iter().for_each(Pipe::close);
    };
    source.with_workers(2, || destination.with_workers(2, work));
    assert!(source.disk().0 == destination.disk().0, "the disks differ");
    assert_eq!((from.status().reads_in_flight(), from.status().buffers().0), (0, 0));
}
