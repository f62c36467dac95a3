//! What a znode says of itself.
//!
//! Called by: `response`, `subscription`. It does not know how its numbers come about.

use crate::ids::{SessionId, Zxid};
use crate::jute::record;
use serde::{Deserialize, Serialize};

record! {
    /// A znode's Stat: 68 bytes on the wire.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    pub struct Stat {
        /// The write that created it.
        pub czxid: Zxid,
        /// The last write of its data.
        pub mzxid: Zxid,
        /// When it was created, in wall-clock milliseconds.
        pub ctime_ms: i64,
        /// When its data was last written, in wall-clock milliseconds.
        pub mtime_ms: i64,
        /// How often its data was written.
        pub version: i32,
        /// How often its children changed: creates and deletes, as clients see it.
        pub cversion: i32,
        /// How often its access list was written.
        pub aversion: i32,
        /// The session that it goes with; none for a persistent one.
        pub ephemeral_owner: SessionId,
        /// The length of its data in bytes.
        pub data_length: i32,
        /// How many children it has.
        pub num_children: i32,
        /// The last write that created or deleted a child.
        pub pzxid: Zxid,
    }
}
