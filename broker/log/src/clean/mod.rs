//! Compaction: of the records of one key only the last stays.
//!
//! Called by: the append thread, which plans and swaps, and a cleaner's thread, which does the work in
//! between. Calls: the disk, the batches' codecs.
//! Invariant: offsets keep their places, and of every key the last record below the limit stays, so
//! that whoever replays the log ends in the same state; what readers hold open stays readable. Knows
//! neither clock nor high watermark: both are passed in.
//!
//! ```text
//! segments  |clean      |dirty            |not yet: active, above the limit, too young|
//! offsets   ^log start  ^first dirty      ^limit
//! plan (append thread) -> files with new names, synced (cleaner) -> swap (append thread), see `swap`
//!                         ^ step by step, a segment or two at a time  <- rest
//! ```
//!
//! - `plan`: whether and what to clean.
//! - `keys`: the last offset of each key.
//! - `pass`: reads the dirty part, then writes all of it anew.
//! - `filter`: which records of a batch stay.
//! - `swap`: puts the new files in place of the old ones, whatever happens in between.
//! - `progress`: how far the log is clean.

mod filter;
mod keys;
mod pass;
mod plan;
mod progress;
mod swap;

pub use keys::KEY_ENTRY_BYTES;
#[cfg(test)]
pub(crate) use pass::sync_names;
pub use pass::{CleanError, Cleaned, Report};
pub(crate) use plan::Cleaning;
pub use plan::CleaningPlan;
pub(crate) use progress::Progress;
pub use swap::Swapped;
pub(crate) use swap::finish_swap;
