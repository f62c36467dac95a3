//! The znode tree: what ZooKeeper's data model says, and nothing about who writes or when.
//!
//! ```text
//! access       access lists and identities
//! path         path rules
//! node         one znode, as a text; how a Stat is made of it
//! children     the names of one node's children
//! shard        a few dozen nodes side by side in one piece of memory
//! index        nodes by path, and who has children, in shards that a frozen tree shares
//! quota        how much there may be below a path
//! store        Tree: nodes, children, ephemerals by owner; reads
//! transaction  the only way to write: one zxid, all or nothing
//! change       what a write changed, for watchers and subscribers
//! record       nodes to records and back, for snapshots
//! ```

mod access;
mod change;
mod children;
mod index;
mod node;
mod path;
mod quota;
mod record;
mod shard;
mod store;
mod transaction;

pub use access::{Identities, Identity, SUPER_SCHEME, is_allowed, masked, may_read};
pub(crate) use change::is_within;
pub use change::{Change, ChangeKind};
pub use node::{NodeNumbers, NodeView};
pub use path::{PATH_COMPONENTS_MAX, ancestors, parent, validate_path};
pub use quota::{OverSoftLimit, Usage};
pub use record::{NodeRecord, RecordError, TreeBuilder};
pub(crate) use store::CONFIG_PATH;
pub use store::{Due, FrozenTree, Look, Names, Subtree, Tree};
pub use transaction::{ADDED_ACL_BYTES_MAX, Stamp, Transaction};

#[cfg(test)]
mod tests;
