//! The znode tree: what ZooKeeper's data model says, and nothing about who writes or when.
//!
//! ```text
//! access       access lists and identities
//! path         path rules
//! node         one znode; how a Stat is made of what is stored
//! store        Tree: nodes by path, children, ephemerals by owner; reads
//! transaction  the only way to write: one zxid, all or nothing
//! change       what a write changed, for watchers and subscribers
//! record       nodes to records and back, for snapshots
//! ```

mod access;
mod change;
mod node;
mod path;
mod record;
mod store;
mod transaction;

pub use access::{Identities, Identity, SUPER_SCHEME, is_allowed, masked, may_read};
pub use change::{Change, ChangeKind};
pub use node::{Node, NodeView};
pub use path::{PATH_COMPONENTS_MAX, ancestors, parent, validate_path};
pub use record::{NodeNumbers, NodeRecord, RecordError};
pub use store::{Names, Subtree, Tree};
pub use transaction::{Stamp, Transaction};

#[cfg(test)]
mod tests;
