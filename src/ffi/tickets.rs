// SPDX-License-Identifier: GPL-2.0-only
//! What the host has been given to keep: requests, lent buffers, a visit.
//!
//! The host gets a ticket's number as its `opaque` pointer. A number is never given out again, so a callback that comes
//! twice, or much too late, finds nothing and touches nothing, and memory stays for as long as the host may use it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use libc::c_void;
use parking_lot::Mutex;

use super::pointer::Pointer;
use super::tables::BlockDriverState;
use crate::buffers::Buffer;
use crate::request::{ReadRequest, WriteRequest};

/// `BlkMigSystemOps.clock_ns`.
type ClockFn = unsafe extern "C" fn() -> i64;

/// Something that the host has been given.
pub(super) enum Parked {
    /// With the clock that says when it completes.
    Read {
        request: ReadRequest,
        clock: Option<ClockFn>,
    },
    Write(WriteRequest),
    /// Goes back to the pool when the ticket comes back.
    Lent(#[expect(dead_code)] Buffer),
    /// The devices seen so far.
    Visit(Vec<Pointer<BlockDriverState>>),
}

struct Tickets {
    next: usize,
    parked: BTreeMap<usize, Parked>,
}

static TICKETS: Mutex<Tickets> = Mutex::new(Tickets { next: 1, parked: BTreeMap::new() });

/// Keeps it until the ticket comes back.
pub(super) fn park(what: Parked) -> *mut c_void {
    let mut tickets = TICKETS.lock();
    let number = tickets.next;
    tickets.next += 1;
    tickets.parked.insert(number, what);
    number as *mut c_void
}

/// Takes back what the ticket stands for, if it is of the kind that the callback is for.
pub(super) fn redeem(ticket: *mut c_void, kind: impl FnOnce(&Parked) -> bool) -> Option<Parked> {
    let number = ticket as usize;
    let mut tickets = TICKETS.lock();
    if tickets.parked.get(&number).is_some_and(kind) { tickets.parked.remove(&number) } else { None }
}

/// Adds a device to a visit.
pub(super) fn visited(ticket: *mut c_void, device: Pointer<BlockDriverState>) {
    if let Some(Parked::Visit(devices)) = TICKETS.lock().parked.get_mut(&(ticket as usize)) {
        devices.push(device);
    }
}
