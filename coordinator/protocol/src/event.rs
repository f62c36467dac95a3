//! What a watch tells.
//!
//! Called by: `response` (encoding), the client (decoding). It does not know who watches.

use crate::jute::{closed_enum, record};

closed_enum! {
    /// What happened to a znode.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum EventType as "event type" {
        /// Nothing to a znode: the state of the connection changed.
        None = -1,
        /// It was created.
        NodeCreated = 1,
        /// It was deleted.
        NodeDeleted = 2,
        /// Its data was written.
        NodeDataChanged = 3,
        /// A child was created or deleted.
        NodeChildrenChanged = 4,
        /// Made by clients: a data watch was taken away.
        DataWatchRemoved = 5,
        /// Made by clients: a child watch was taken away.
        ChildWatchRemoved = 6,
        /// Made by clients: a persistent watch was taken away.
        PersistentWatchRemoved = 7,
    }
}

closed_enum! {
    /// The state of a connection, as an event tells it; a server always says `SyncConnected`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum KeeperState as "connection state" {
        /// No server is connected.
        Disconnected = 0,
        /// A server of the quorum is connected.
        SyncConnected = 3,
        /// The credentials were refused.
        AuthFailed = 4,
        /// A server without a quorum is connected.
        ConnectedReadOnly = 5,
        /// SASL is done.
        SaslAuthenticated = 6,
        /// The session was closed by the client.
        Closed = 7,
        /// The session is over.
        Expired = -112,
    }
}

record! {
    /// One event of a watch.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct WatcherEvent {
        /// What happened.
        pub event: EventType,
        /// The connection's state.
        pub state: KeeperState,
        /// The znode.
        pub path: String,
    }
}

impl WatcherEvent {
    /// What a server sends: `event` happened to `path`.
    #[must_use]
    pub fn new(event: EventType, path: impl Into<String>) -> Self {
        Self { event, state: KeeperState::SyncConnected, path: path.into() }
    }
}
