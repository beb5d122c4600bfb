// SPDX-License-Identifier: GPL-2.0-only
//! The bounded pool of chunk buffers: what bounds the module's memory.
//!
//! Beside `ffi/` the only file with unsafe code: the standard library has no safe aligned allocation.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::status::Status;

/// Alignment of every buffer in bytes: what `O_DIRECT` wants of the hosts' files.
pub const ALIGNMENT: usize = 4096;

/// At most `limit` buffers of one size. Memory is taken when it is first needed and kept until the pool and the last of its
/// buffers are gone.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    bytes: usize,
    layout: Layout,
    limit: usize,
    state: Mutex<State>,
    status: Arc<Status>,
}

#[derive(Default)]
struct State {
    // Last in, first out: the buffer that was used last is the one in the CPU's cache.
    free: Vec<Memory>,
    in_use: usize,
}

/// One allocation. The buffer lies in it where the alignment wants it: an allocation that is aligned itself would be zeroed
/// byte by byte, while the system has pages of zeroes for this one.
struct Memory {
    allocation: NonNull<u8>,
    start: NonNull<u8>,
}

// SAFETY: `Memory` is the only pointer to its allocation, which belongs to no thread.
unsafe impl Send for Memory {}
// SAFETY: a shared `Memory` gives no access to what it points to.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(layout: Layout) -> Option<Memory> {
        // SAFETY: the layout's size is at least ALIGNMENT.
        let allocation = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        // SAFETY: the layout has room for the offset, which is below ALIGNMENT.
        let start = unsafe { allocation.add(allocation.align_offset(ALIGNMENT)) };
        Some(Memory { allocation, start })
    }
}

/// Why the pool gave no buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBuffer {
    /// All of them are in use.
    InUse,
    /// The system has no memory for even one.
    NoMemory,
}

impl Pool {
    /// A pool of at most `limit` buffers of `bytes`, both at least 1, which keeps `status` informed.
    ///
    /// # Panics
    /// If a buffer of that size cannot exist.
    #[must_use]
    pub fn new(limit: u32, bytes: usize, status: Arc<Status>) -> Pool {
        let bytes = bytes.max(1);
        let layout = Layout::array::<u8>(bytes.saturating_add(ALIGNMENT)).expect("a chunk fits the address space");
        Pool(Arc::new(Shared { bytes, layout, limit: limit.max(1) as usize, state: Mutex::default(), status }))
    }

    /// A buffer with arbitrary, but initialised, content.
    ///
    /// # Errors
    /// If none can be had now.
    pub fn take(&self) -> Result<Buffer, NoBuffer> {
        let shared = &self.0;
        let mut state = shared.state.lock();
        if state.in_use == shared.limit {
            return Err(NoBuffer::InUse);
        }
        let memory = match state.free.pop() {
            Some(memory) => memory,
            None => match Memory::new(shared.layout) {
                Some(memory) => memory,
                None if state.in_use > 0 => return Err(NoBuffer::InUse),
                None => return Err(NoBuffer::NoMemory),
            },
        };
        state.in_use += 1;
        shared.status.buffer_taken();
        Ok(Buffer { memory: Some(memory), pool: Arc::clone(shared) })
    }

    /// Buffers in use now.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.0.state.lock().in_use
    }

    /// Buffers that can be in use at once.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.0.limit
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for memory in self.state.get_mut().free.drain(..) {
            // SAFETY: it was allocated with this layout, and the pool's list held the only pointer to it.
            unsafe { dealloc(memory.allocation.as_ptr(), self.layout) };
        }
    }
}

/// A chunk's worth of memory, aligned to [`ALIGNMENT`]; goes back to its pool when dropped, on any thread.
pub struct Buffer {
    memory: Option<Memory>,
    pool: Arc<Shared>,
}

impl Buffer {
    fn start(&self) -> NonNull<u8> {
        self.memory.as_ref().expect("it is taken in drop alone").start
    }

    /// The memory itself, for the host to fill. No reference into the buffer may exist while the host does.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.start().as_ptr()
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the allocation has this size behind its start, was zeroed when made, and lives as long as `self`.
        unsafe { slice::from_raw_parts(self.as_ptr(), self.pool.bytes) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the reference the only one.
        unsafe { slice::from_raw_parts_mut(self.as_ptr(), self.pool.bytes) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        state.free.extend(self.memory.take());
        state.in_use -= 1;
        self.pool.status.buffer_returned();
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("bytes", &self.pool.bytes).finish_non_exhaustive()
    }
}

/// Whether all bytes are zero. Runs at the speed of the library's memcmp, and ends at the first block that is not.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    static ZEROES: [u8; ALIGNMENT] = [0; ALIGNMENT];
    bytes.chunks(ALIGNMENT).all(|block| *block == ZEROES[..block.len()])
}
