//! The only door to files.
//!
//! Everything that keeps state on disk goes through [`Disk`] and [`File`], so that the same code runs on
//! the machine's disk ([`RealDisk`]), on a simulated one that can lose what was not synced, and on one that only
//! pretends to write ([`Rehearsal`]). On top
//! stand the formats that all our own files share: the [`envelope`] around an encoded value, the
//! [`record_file`] of checksummed frames, and the [`small_file`] that is replaced whole.
//!
//! Called by: the coordinator's storage, the broker's log. Calls: the operating system, through std and rustix.
//! Does not know: what the bytes mean, replicas, sockets, time.

mod disk;
mod folder;
mod real;
mod rehearsal;

pub mod envelope;
pub mod record_file;
pub mod small_file;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

pub use disk::{Disk, Entry, EntryKind, File, Lock, OpenMode};
pub use folder::{create_durable_folder, error_at};
pub use real::RealDisk;
pub use rehearsal::Rehearsal;
