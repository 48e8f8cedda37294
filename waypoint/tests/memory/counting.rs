//! An allocator that counts, for tests of what something costs on the heap. The control plane's test
//! takes it from here.
#![allow(
    unsafe_code,
    reason = "an allocator that counts is an implementation of an unsafe trait"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator with counts of what is allocated and of the most that ever was.
pub(crate) struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is the system allocator's; counting touches no memory of the caller's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(now, Relaxed);
        // SAFETY: the caller's promises are the system allocator's conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a step has left on the heap, and what it took in between beyond that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) kept: usize,
    pub(crate) passing: usize,
}

pub(crate) fn cost(step: impl FnOnce()) -> Cost {
    let before = now();
    MOST.store(before, Relaxed);
    step();
    let after = now();
    Cost {
        kept: after.saturating_sub(before),
        passing: MOST.load(Relaxed).saturating_sub(after.max(before)),
    }
}

/// Bytes on the heap.
pub(crate) fn now() -> usize {
    NOW.load(Relaxed)
}
