//! Names of servers and of client connections.
//!
//! Called by: every module here and the shell. Calls: nothing.
//! Invariant: a `ServerId` is always within 1..=254, because it is the high byte of session ids.
//! It does not know addresses.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A member of the ensemble: ZooKeeper's `myid`, 1..=254.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct ServerId(u64);

impl ServerId {
    /// The highest id: 0xff as the high byte of a session id marks TTL nodes.
    pub const MAX: u64 = 254;

    /// The member `value`, or nothing when it lies outside 1..=254.
    #[must_use]
    pub const fn new(value: u64) -> Option<Self> {
        if value >= 1 && value <= Self::MAX { Some(Self(value)) } else { None }
    }

    /// The number, 1..=254.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl From<ServerId> for u64 {
    fn from(server: ServerId) -> Self {
        server.0
    }
}

impl TryFrom<u64> for ServerId {
    type Error = String;

    fn try_from(value: u64) -> Result<Self, String> {
        Self::new(value).ok_or_else(|| format!("server id {value} is outside 1..=254"))
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A client connection of this server process: a number that is not used twice while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// The connection with this number.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
