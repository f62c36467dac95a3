//! TLS: whom to trust and what to show, off files, and sockets that are encrypted.
//!
//! ```text
//! files    authorities, certificate and key, from PEM files
//! failure  why no encrypted connection came to be, and what to do about it
//! stream   a socket, encrypted or not
//! ```
//!
//! Called by: whoever makes a [`crate::Config`] (files), `connection` (sockets). Calls: rustls.
//! Invariant: a server is spoken to only if a trusted authority has signed its certificate, and for the host by which it was
//! called.
//! It does not know frames or sessions.

mod failure;
mod files;
mod stream;

pub use coordinator_tls::FileError as TlsFileError;
pub use failure::TlsFailure;
pub use files::{Tls, TlsFiles};
pub use stream::Stream;
pub(crate) use stream::host_of;
