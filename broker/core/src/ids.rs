//! The numbers that everything is named by, one newtype each.
//!
//! *Called by* every module here. Invariant: a value is what the wire or the coordinator says; "none" is an `Option`, never -1.

use std::fmt;

pub use client_protocol::{BrokerId, LeaderEpoch, Offset, PartitionId, TopicId};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name($inner);

        impl $name {
            /// Wraps the bare number.
            #[must_use]
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The bare number.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number! {
    /// The coordinator's transaction id, as a bare number: the order of all changes.
    Zxid(i64)
}
number! {
    /// A session at the coordinator, as a bare number.
    SessionId(i64)
}
number! {
    /// czxid of a broker's registration: which life of the broker this is.
    BrokerEpoch(i64)
}
number! {
    /// Version of a partition's state znode.
    PartitionEpoch(i32)
}
number! {
    /// Content of `/controller_epoch`: which controller wrote a state.
    ControllerEpoch(i32)
}
number! {
    /// Milliseconds of the monotonic clock, real or virtual.
    Millis(u64)
}
number! {
    /// Counts the starts of a broker on its directories.
    Incarnation(u64)
}

impl Millis {
    /// `self + ms`, at most the greatest value.
    #[must_use]
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to `self`, 0 when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl PartitionEpoch {
    /// The version after one more write.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Incarnation {
    /// The incarnation of the next start.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl BrokerEpoch {
    /// The registration's place in the order of all changes.
    #[must_use]
    pub const fn zxid(self) -> Zxid {
        Zxid(self.0)
    }
}

/// Which log directory, for ever; written like a topic id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct DirectoryId(TopicId);

impl DirectoryId {
    /// Wraps 16 random bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(TopicId::from_bytes(bytes))
    }

    /// Reads 22 characters of URL-safe base64 without padding.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl fmt::Display for DirectoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which partition of which topic, for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition in it.
    pub partition: PartitionId,
}
