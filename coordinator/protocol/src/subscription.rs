//! Subscriptions: our own operation beside ZooKeeper's watches.
//!
//! Called by: `request`, `response`.
//! A subscription is answered with the subtree's state (`SnapshotBegin`, chunks, `SnapshotEnd`) unless
//! the server still knows everything after the zxid that the client names, and then with every
//! change in order. The zxid of `SnapshotEnd`, `Changes` and `Bookmark` is a promise: the receiver
//! then has everything up to it, that one included. From the first `SnapshotEnd` or `Bookmark` on, and
//! until a `SnapshotBegin`, no reply of the connection reveals a change before the subscription does.
//! It does not know who subscribes or how far back history goes.

use crate::ids::Zxid;
use crate::jute::{closed_enum, record};
use crate::stat::Stat;
use bytes::Bytes;

record! {
    /// Asks for the subtree at `path` (the znode itself and everything below it).
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct SubscribeRequest {
        /// The client's number for it, which its events repeat; one of a connection's own.
        pub subscription: i32,
        /// The top of the subtree; it need not exist.
        pub path: String,
        /// Everything up to this write, inclusive, is known already; [`Zxid::ZERO`] for nothing.
        pub from_zxid: Zxid,
    }
}

closed_enum! {
    /// What an event of a subscription is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum SubscriptionEventKind as "subscription event kind" {
        /// A snapshot starts: forget what you have.
        SnapshotBegin = 0,
        /// Some of the snapshot's znodes.
        SnapshotChunk = 1,
        /// The snapshot is complete as of `zxid`.
        SnapshotEnd = 2,
        /// All changes of the write `zxid`, and so everything up to it.
        Changes = 3,
        /// No change: everything up to `zxid` has been sent.
        Bookmark = 4,
    }
}

closed_enum! {
    /// What an item says of its znode.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum ItemKind as "subscription item kind" {
        /// In a snapshot: it exists.
        Present = 0,
        /// It was created.
        Created = 1,
        /// Its data was written.
        DataChanged = 2,
        /// It was deleted; data and Stat are those of before.
        Deleted = 3,
    }
}

record! {
    /// One znode in an event.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Item {
        /// What it says.
        pub kind: ItemKind,
        /// The znode.
        pub path: String,
        /// Its data; null when it has none (or is deleted).
        pub data: Option<Bytes>,
        /// Its Stat.
        pub stat: Stat,
    }
}

record! {
    /// What a server pushes to a subscriber, after a reply header with xid -9.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct SubscriptionEvent {
        /// The client's number for the subscription.
        pub subscription: i32,
        /// What it is.
        pub kind: SubscriptionEventKind,
        /// See [`SubscriptionEventKind`].
        pub zxid: Zxid,
        /// Znodes of a chunk, or changes in the order in which they happened; else empty.
        pub items: Vec<Item>,
    }
}
