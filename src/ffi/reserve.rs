// SPDX-License-Identifier: GPL-2.0-only
//! What the library does when malloc gives nothing: a host's process must not be aborted for that.
//!
//! Rust's standard library aborts where a small allocation fails, and there is one behind every text, list and
//! request. So the library keeps a reserve of its own, which is used for them when malloc fails: enough for a
//! migration to give everything back and to say why. The migration that met the shortage ends before its next
//! chunk, by an error ([`ran_short`]).

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

/// The largest allocation, and the largest alignment, that the reserve serves, in bytes: a list of a thousand
/// devices. What can be larger than this is allocated where a failure is an error.
const SLOT: usize = 1 << 14;
const SLOTS: usize = 64;

#[repr(C, align(16384))]
struct Slots(UnsafeCell<[[u8; SLOT]; SLOTS]>);

// SAFETY: a slot's bytes belong to whoever has set its bit in `USED`.
unsafe impl Sync for Slots {}

/// Zero pages of the program's image: they take no memory until they are used.
static RESERVE: Slots = Slots(UnsafeCell::new([[0; SLOT]; SLOTS]));
static USED: AtomicU64 = AtomicU64::new(0);
static RAN_SHORT: AtomicBool = AtomicBool::new(false);

/// Whether malloc has failed since this was last asked.
pub(super) fn ran_short() -> bool {
    RAN_SHORT.load(Relaxed) && RAN_SHORT.swap(false, Relaxed)
}

/// malloc, and the reserve behind it.
pub(super) struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

impl Slots {
    fn start(&self) -> *mut u8 {
        self.0.get().cast()
    }

    fn take(&self, layout: Layout) -> *mut u8 {
        if layout.size() > SLOT || layout.align() > SLOT {
            return std::ptr::null_mut();
        }
        RAN_SHORT.store(true, Relaxed);
        let mut used = USED.load(SeqCst);
        while used != u64::MAX {
            let slot = used.trailing_ones();
            match USED.compare_exchange(used, used | 1 << slot, SeqCst, SeqCst) {
                // SAFETY: there are as many slots as the word has bits, and this bit was not set.
                Ok(_) => return unsafe { self.start().add(slot as usize * SLOT) },
                Err(now) => used = now,
            }
        }
        std::ptr::null_mut()
    }

    /// The slot that a pointer is the start of.
    fn slot(&self, pointer: *mut u8) -> Option<usize> {
        let offset = (pointer as usize).checked_sub(self.start() as usize)?;
        (offset < SLOT * SLOTS).then_some(offset / SLOT)
    }
}

// SAFETY: pointers come from `System` or are slots that nobody else has; each goes back to where it came from.
// A slot has room for every layout that `take` accepts. Nothing here unwinds.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let pointer = unsafe { System.alloc(layout) };
        if pointer.is_null() { RESERVE.take(layout) } else { pointer }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let mut pointer = unsafe { System.alloc_zeroed(layout) };
        if pointer.is_null() {
            pointer = RESERVE.take(layout);
            if !pointer.is_null() {
                // SAFETY: a slot is at least as large as the layout, and ours alone.
                unsafe { pointer.write_bytes(0, layout.size()) };
            }
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match RESERVE.slot(pointer) {
            Some(slot) => {
                USED.fetch_and(!(1 << slot), SeqCst);
            }
            // SAFETY: it is none of the reserve's, so it came from `System`.
            None => unsafe { System.dealloc(pointer, layout) },
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if RESERVE.slot(pointer).is_none() {
            // SAFETY: the caller's promise, and it came from `System`.
            let moved = unsafe { System.realloc(pointer, layout, new_size) };
            if !moved.is_null() {
                return moved;
            }
        }
        // SAFETY: the caller promises that the new size, rounded up to the alignment, does not overflow.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the caller's promise: the new size is not 0.
        let moved = unsafe { self.alloc(new_layout) };
        if !moved.is_null() {
            // SAFETY: both are at least that long, and they are different allocations.
            unsafe { pointer.copy_to_nonoverlapping(moved, layout.size().min(new_size)) };
            // SAFETY: the caller's promise.
            unsafe { self.dealloc(pointer, layout) };
        }
        moved
    }
}
