//! One partition's log: segments, indexes, recovery, retention, producer state, leader epochs.
//!
//! A [`Log`] belongs to the append thread of its log directory; everybody else reads through a
//! [`LogView`]. An append is admitted batch by batch, written at once, and becomes durable by a
//! [`SyncTicket`] that a commit round fulfils for many logs together.
//!
//! Called by: the broker's `partitions`. Calls: `coordinator-disk`. Everything is synchronous.
//! Does not know: replicas, groups, sockets, the high watermark, the clock.

/// Whether this bug was put in on purpose: never, unless built with `--cfg planted`.
#[cfg(planted)]
macro_rules! planted {
    ($chosen:expr, $bug:ident) => {
        $chosen == Some($crate::planted::Planted::$bug)
    };
}

/// Whether this bug was put in on purpose: never, unless built with `--cfg planted`.
#[cfg(not(planted))]
macro_rules! planted {
    ($chosen:expr, $bug:ident) => {
        false
    };
}

mod append;
mod batch;
pub mod checkpoint;
mod clean;
mod config;
mod dense;
mod epochs;
mod error;
mod index;
mod log;
mod marks;
#[cfg(planted)]
pub mod planted;
mod producer;
mod rebuild;
mod recent;
mod recovery;
mod retention;
mod scan;
mod segment;
mod snapshot;
mod sum;
mod truncate;
mod view;

#[cfg(test)]
mod sample;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use append::Admission;
pub use batch::{BATCH_BYTES_MAX, BatchMeta};
pub use clean::{CleanError, Cleaned, CleaningPlan, KEY_ENTRY_BYTES, Report, Swapped};
pub use config::LogConfig;
pub use epochs::{EpochEnd, EpochStart, LeaderEpochs};
pub use error::LogError;
pub use log::{Damage, Log, LogContext, SyncTicket};
pub use marks::{MARKS_FILE, Mark, MarkId, Marks, MarksError};
pub use producer::{Duplicate, ProducerStates, SequenceError};
pub use recovery::{OpenOptions, Recovery};
pub use retention::Removed;
pub use view::{FileSlice, LogEnds, LogView, Lookup, ReadRequest, TimestampMatch};
