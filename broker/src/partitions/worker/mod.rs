//! The work of a log directory without threads, clocks or channels: jobs in, what happened out.
//!
//! Called by: the append thread and the commit thread of a log directory, which loop over it, and
//! the simulator, which steps it on a disk of its own. Calls: `broker-log`, the disk.
//! Invariant: nothing here waits, reads a clock or knows who waits for an answer; whoever steps it
//! says what time it is and does what is handed back, in order.
//!
//! - `job`: what can be asked, and what can have happened.
//! - `appender`: all logs of a directory; the only one that changes them.
//! - `slot`: one log, and the batches that wait to be written to it.
//! - `rounds`: commit rounds, which make durable what was appended.
//! - `folder`: the files of a log directory and of its logs' folders.
//! - `fetched`: whether what a leader sent may be taken in.

mod appender;
mod fetched;
mod folder;
mod job;
mod rounds;
mod slot;

pub use appender::Appender;
pub use fetched::{FetchedError, check_fetched};
pub use folder::{Folder, PartitionFile};
pub use job::{Happened, Job, LogJob, Owner, Placed, ProduceJob, Stored, sequenced};
pub use rounds::{MarksPace, Round, Rounds};
