//! The coordinator's own client: one session that outlives the server it is connected to.
//!
//! Called by: `broker` (membership, metadata, the controller), `client` (routing), tools.
//! A [`Client`] is a cheap handle. Behind it one task owns the socket and, in `session`, all
//! bookkeeping. While the connection is gone calls wait; reads that were under way are asked again;
//! a write that was under way ends in [`Error::ConnectionLoss`], because nobody knows whether it
//! was done.
//! It does not know what the znodes mean.

mod client;
mod config;
mod connection;
mod contact;
mod driver;
mod error;
mod recipes;
mod root;
mod session;
mod subscription;
mod tls;
mod watch;

pub use client::{Client, MultiReply, PendingMulti};
pub use config::{Config, Credentials};
pub use error::Error;
pub use recipes::{CompareAndSet, Election, Registration, compare_and_set, elect, register};
pub use session::SessionState;
pub use subscription::{Subscription, Update};
pub use tls::{Stream, Tls, TlsFailure, TlsFileError, TlsFiles};
pub use watch::{Watch, WatchEvent};

/// The wire's records, as they stand in calls and answers.
pub use coordinator_protocol as protocol;
