//! Time as an argument.
//!
//! Called by: everything that waits. Calls: nothing.
//! Invariant: monotonic and wall time are different types and never mixed.
//! It does not know what a clock is: the shell reads one, the simulator invents one.

use std::fmt;

/// A point in monotonic time, in milliseconds since some start that only its own process knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(u64);

impl Millis {
    /// The start of the clock.
    pub const ZERO: Self = Self(0);

    /// A point `value` milliseconds after the start of the clock.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// Milliseconds since the start of the clock.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The point `duration_ms` later; the end of time if that lies beyond it.
    #[must_use]
    pub const fn plus_ms(self, duration_ms: u64) -> Self {
        Self(self.0.saturating_add(duration_ms))
    }

    /// Milliseconds from `earlier` to this point; 0 when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ms", self.0)
    }
}

/// Both clocks, read at the same moment, as every step receives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For time-outs: never goes back within a process.
    pub mono: Millis,
    /// For time stamps in znodes only: milliseconds since 1970, may jump either way.
    pub wall_ms: i64,
}
