//! The numbers of the protocol as types of their own, so that they cannot be mixed up.
//!
//! Called by: everything that speaks of a session, a request or a transaction.
//! Invariant: the field is private; arithmetic happens only in the named methods.

use crate::jute::{DecodeError, Reader, Record, Writer};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The id of a transaction: epoch in the high, counter in the low 32 bits. One per successful write,
/// growing strictly in the order of writes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Zxid(i64);

impl Zxid {
    /// Before every transaction.
    pub const ZERO: Zxid = Zxid(0);

    /// The zxid that the wire shows as `value`.
    #[must_use]
    pub const fn new(value: i64) -> Self {
        Self(value)
    }

    /// The zxid of `counter` in `epoch`.
    #[must_use]
    pub const fn from_parts(epoch: u32, counter: u32) -> Self {
        Self(((epoch as i64) << 32) | counter as i64)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The high 32 bits: raised with each change of leader.
    #[must_use]
    pub const fn epoch(self) -> u32 {
        let [a, b, c, d, ..] = self.0.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    /// The low 32 bits: the number of the write inside its epoch.
    #[must_use]
    pub const fn counter(self) -> u32 {
        let [.., a, b, c, d] = self.0.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    /// The next one of the same epoch, or `None` when its counter is used up.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.counter().checked_add(1) {
            Some(counter) => Some(Self::from_parts(self.epoch(), counter)),
            None => None,
        }
    }

    /// The start of the next epoch (counter 0, itself given to no transaction), or `None` when the
    /// epochs that stay positive on the wire are used up.
    #[must_use]
    pub const fn next_epoch(self) -> Option<Self> {
        match self.epoch().checked_add(1) {
            Some(epoch) if epoch <= i32::MAX as u32 => Some(Self::from_parts(epoch, 0)),
            _ => None,
        }
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The id of a session; [`SessionId::NONE`] asks for a new one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct SessionId(i64);

impl SessionId {
    /// No session: in a request "give me a new one", in a response "it is over", as the owner of a
    /// znode "it is persistent".
    pub const NONE: SessionId = SessionId(0);

    /// The session that the wire shows as `value`.
    #[must_use]
    pub const fn new(value: i64) -> Self {
        Self(value)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// Whether this is [`SessionId::NONE`].
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What a client numbers its requests with; some negative ones have a meaning of their own.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Xid(i32);

impl Xid {
    /// A watch notification, from server to client.
    pub const NOTIFICATION: Xid = Xid(-1);
    /// A ping and its answer.
    pub const PING: Xid = Xid(-2);
    /// An auth packet and its answer.
    pub const AUTH: Xid = Xid(-4);
    /// setWatches and setWatches2, which a client sends by itself after a reconnect.
    pub const SET_WATCHES: Xid = Xid(-8);
    /// An event of a subscription, from server to client: ours, not ZooKeeper's.
    pub const SUBSCRIPTION: Xid = Xid(-9);
    /// The first one of a connection's own requests.
    pub const FIRST: Xid = Xid(1);

    /// The xid that the wire shows as `value`.
    #[must_use]
    pub const fn new(value: i32) -> Self {
        Self(value)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }

    /// The next one, which starts again at [`Xid::FIRST`] so that it never becomes a special one.
    #[must_use]
    pub const fn next(self) -> Self {
        match self.0.checked_add(1) {
            Some(next) if next > 0 => Self(next),
            _ => Self::FIRST,
        }
    }
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! id_record {
    ($($id:ty: $inner:ty),*) => {$(
        impl Record for $id {
            const BYTES_MIN: usize = <$inner>::BYTES_MIN;

            fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
                Ok(Self(<$inner>::decode(reader)?))
            }

            fn encode(&self, writer: &mut Writer) {
                self.0.encode(writer);
            }
        }
    )*};
}

id_record!(Zxid: i64, SessionId: i64, Xid: i32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zxid_splits_into_epoch_and_counter() {
        let zxid = Zxid::from_parts(7, 0x8000_0001);
        assert_eq!(zxid.get(), 0x7_8000_0001);
        assert_eq!((zxid.epoch(), zxid.counter()), (7, 0x8000_0001));
        assert_eq!(zxid.next(), Some(Zxid::from_parts(7, 0x8000_0002)));
        assert_eq!(Zxid::from_parts(7, u32::MAX).next(), None);
        assert_eq!(zxid.next_epoch(), Some(Zxid::from_parts(8, 0)));
        assert_eq!(Zxid::from_parts(i32::MAX as u32, 3).next_epoch(), None);
    }

    #[test]
    fn xid_never_grows_into_a_special_one() {
        assert_eq!(Xid::FIRST.next(), Xid::new(2));
        assert_eq!(Xid::new(i32::MAX).next(), Xid::FIRST);
        assert_eq!(Xid::SUBSCRIPTION.next(), Xid::FIRST);
    }
}
