// SPDX-License-Identifier: GPL-2.0-only
//! The bounded pool of chunk buffers: what bounds the module's memory.
//!
//! Beside `ffi/` the only file with unsafe code: the standard library has no safe way to memory of the system's
//! own. That is aligned to pages and zero without any work, and goes back to the system when it is freed:
//! buffers that malloc gives stay with it, in the arena of whichever thread freed them, and the host's process
//! grows from migration to migration.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::status::Status;

/// Alignment of every buffer in bytes, which that of pages is: what `O_DIRECT` wants of the hosts' files.
pub const ALIGNMENT: usize = 4096;

/// At most `limit` buffers of one size. Memory is taken when it is first needed and kept until the pool and the
/// last of its buffers are gone.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    bytes: usize,
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

/// Pages of the system's for one buffer.
struct Memory {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: `Memory` is the only pointer to its pages, which belong to no thread.
unsafe impl Send for Memory {}
// SAFETY: a shared `Memory` gives no access to what it points to.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(bytes: usize) -> Option<Memory> {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at a place of the system's choice touches no other memory.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, access, kind, -1, 0) };
        if start == libc::MAP_FAILED { None } else { NonNull::new(start.cast()).map(|start| Memory { start, bytes }) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this start and length, and nobody else has a pointer into it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
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
    #[must_use]
    pub fn new(limit: u32, bytes: usize, status: Arc<Status>) -> Pool {
        Pool(Arc::new(Shared { bytes: bytes.max(1), limit: limit.max(1) as usize, state: Mutex::default(), status }))
    }

    /// A buffer with arbitrary, but initialized, content.
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
            None => match Memory::new(shared.bytes) {
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
        // SAFETY: the mapping is of this size, was zero when made, and lives as long as `self`.
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
