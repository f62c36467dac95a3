//! `tidegate cluster`: the cluster as a whole.
//!
//! `status` asks once, `watch` follows notifications.

mod roles;
mod status;
mod view;
mod watch;

pub use roles::is_without_quorum;
pub use status::status;
pub use watch::watch;
