//! Keys, certificates and whom to trust, for both ends of a connection.
//!
//! ```text
//! files  what a file holds: a key with its certificates, or authorities
//! pem    the same of a file's bytes, and what is said of other formats
//! ```
//!
//! Called by: the coordinator's shell and its client, of which neither may know the other. Calls: rustls, the file system.
//! Invariant: a file is read whole and once, up to a limit: a key and its certificate are of one version of it.
//! Does not know: sockets, and which of them a file is for.

mod files;
pub mod pem;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

pub use files::{FILE_BYTES_MAX, FileError, Identity, authorities, identity};

/// Named and not installed for the whole process: there is no global state.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
