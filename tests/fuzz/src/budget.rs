//! What a decoder may allocate: a small multiple of its input.
//!
//! Called by: targets. Calls: the counting allocator.
//! Invariant: counts of the whole process; whoever runs targets runs one at a time.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What is allowed.
#[derive(Clone, Copy)]
pub struct Budget {
    /// Whatever the input is: error texts, and the first allocation of a collection.
    pub fixed: usize,
    /// For each of its bytes.
    pub per_byte: usize,
}

/// What `decode` gives.
///
/// # Panics
/// When it allocated, all in all, more than `budget` allows for an input of `length` bytes.
pub fn within<T>(length: usize, budget: Budget, decode: impl FnOnce() -> T) -> T {
    let region = Region::new(COUNTING);
    let decoded = decode();
    let allocated = region.change().bytes_allocated;
    let allowed = budget.fixed + length * budget.per_byte;
    assert!(
        allocated <= allowed,
        "{length} bytes made it allocate {allocated}; {allowed} are allowed"
    );
    decoded
}
