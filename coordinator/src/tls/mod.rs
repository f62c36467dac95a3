//! TLS: certificates off files, and sockets that are encrypted.
//!
//! ```text
//! files       keys, certificates and whom to trust, from PEM files
//! handshakes  their costly part, off the thread that everything else runs on
//! renewal     the files again, when they change
//! session     one encrypted connection over a socket, in the ways that an outbox uses a socket
//! subject     a certificate's subject as text, the identity of scheme x509
//! ```
//!
//! Called by: `config` (files), `server` (renewal), `net` and `peers` (sockets). Calls: rustls.
//! Invariant: a certificate counts only if a trusted authority has signed it.
//! Does not know: frames, sessions, members.

mod files;
mod handshakes;
mod renewal;
mod session;
mod subject;

pub use files::{ClientAuth, TlsError, dialling, serving};
pub use handshakes::{Attendance, Handshakes};
pub use renewal::{Current, Noted, Renewal, RenewalCounts, run as renew};
pub use session::{Peeked, TlsSession, Turn};
pub use subject::subject;
