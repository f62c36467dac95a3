//! What a client is told about its ensemble.
//!
//! Called by: whoever opens a [`crate::Client`].

use std::fmt;
use std::time::Duration;

use crate::tls::Tls;

/// What a client shows of itself on each of its connections.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `digest` and the like.
    pub scheme: String,
    /// In the scheme's form: of `digest`, `user:password`. Secret.
    pub secret: String,
}

/// Without what is secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

/// How to reach an ensemble, and what session to ask for.
#[derive(Clone, Debug)]
pub struct Config {
    /// The servers as `host:port`. Each client starts with another one.
    pub servers: Vec<String>,
    /// The folder below which everything lies that this client can name: empty, or `/path`.
    pub root: String,
    /// The session time-out to ask for: how long the ensemble waits for a silent client before it
    /// ends the session. The server may give another one.
    pub session_timeout: Duration,
    /// When set, the session ends this long after the ensemble has seen its connection break,
    /// instead of after the whole time-out: a killed process is found out at once.
    pub fast_death_grace: Option<Duration>,
    /// How long opening a connection and its handshake may take, for each server.
    pub connect_timeout: Duration,
    /// How long a call may wait for a connection before it ends in [`crate::Error::Unavailable`].
    pub queue_timeout: Duration,
    /// Shown before anything else is asked. A server that refuses one closes the connection.
    pub credentials: Vec<Credentials>,
    /// With it servers are spoken to encrypted, and only if they prove who they are; without, unencrypted.
    pub tls: Option<Tls>,
    /// Whether calls end in [`crate::Error::Tls`] as soon as all servers were tried and one cannot be spoken to encrypted,
    /// instead of after `queue_timeout`: files have to be changed before it goes on.
    pub ends_on_tls_failure: bool,
}

impl Config {
    /// The usual settings for `servers`: a session time-out of 6 s, no fast death.
    #[must_use]
    pub fn new(servers: Vec<String>) -> Self {
        Self {
            servers,
            root: String::new(),
            session_timeout: Duration::from_secs(6),
            fast_death_grace: None,
            connect_timeout: Duration::from_secs(1),
            queue_timeout: Duration::from_secs(30),
            credentials: Vec::new(),
            tls: None,
            ends_on_tls_failure: false,
        }
    }
}
