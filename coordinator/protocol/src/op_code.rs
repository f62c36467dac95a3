//! The numbers of the operations.
//!
//! Called by: `request` and `response`.
//! Invariant: a number that we have no name for keeps its value, so that it can be answered with
//! `Unimplemented` and the session lives on.

use crate::jute::open_enum;
use serde::{Deserialize, Serialize};

open_enum! {
    /// An operation.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
    pub enum OpCode {
        /// Creates a znode.
        Create = 1,
        /// Deletes a znode.
        Delete = 2,
        /// Asks for a znode's Stat.
        Exists = 3,
        /// Asks for a znode's data.
        GetData = 4,
        /// Replaces a znode's data.
        SetData = 5,
        /// Asks for a znode's access list.
        GetAcl = 6,
        /// Replaces a znode's access list.
        SetAcl = 7,
        /// Asks for the names of a znode's children.
        GetChildren = 8,
        /// Waits until the server has caught up with the leader.
        Sync = 9,
        /// Keeps the session alive.
        Ping = 11,
        /// Asks for the children's names and the Stat.
        GetChildren2 = 12,
        /// Compares a znode's version.
        Check = 13,
        /// Several writes, all or none.
        Multi = 14,
        /// Creates a znode and answers with its Stat too.
        Create2 = 15,
        /// Changes the ensemble's membership.
        Reconfig = 16,
        /// Asks whether a watch is set.
        CheckWatches = 17,
        /// Takes watches away.
        RemoveWatches = 18,
        /// Creates a container.
        CreateContainer = 19,
        /// Deletes an empty container or TTL node; servers only.
        DeleteContainer = 20,
        /// Creates a znode that goes by itself after a time.
        CreateTtl = 21,
        /// Several reads, each for itself.
        MultiRead = 22,
        /// Adds credentials to the connection.
        Auth = 100,
        /// Sets watches again after a reconnect.
        SetWatches = 101,
        /// One token of a SASL exchange.
        Sasl = 102,
        /// Asks for the session's ephemerals below a path.
        GetEphemerals = 103,
        /// Counts all znodes below a path.
        GetAllChildrenNumber = 104,
        /// Sets watches again, the persistent ones too.
        SetWatches2 = 105,
        /// Adds a persistent watch.
        AddWatch = 106,
        /// Asks for the connection's own identities.
        WhoAmI = 107,
        /// Ours: asks for a subtree's state and all later changes.
        Subscribe = 1000,
        /// Ours: ends a subscription.
        Unsubscribe = 1001,
        /// Ours: sets a session's options.
        SessionOptions = 1002,
        /// Ours: asks for some of the children's names.
        GetChildrenPage = 1003,
        /// Ours: moves leadership.
        TransferLeader = 1004,
        /// Ours: asks who is in the ensemble and who leads it.
        DescribeEnsemble = 1005,
        /// Opens a session; servers only.
        CreateSession = -10,
        /// Ends the session.
        CloseSession = -11,
        /// The type of an error inside a multi's results.
        Error = -1,
    }
}
