//! The audit log: who changed what, and who was not let.
//!
//! ```text
//! log   the queue to the thread that writes    line   a record as ZooKeeper shows it    file   files of a bounded size
//! ```

mod file;
mod line;
mod log;

pub use line::date;
pub use log::{AuditCounts, AuditLog, AuditSettings};
