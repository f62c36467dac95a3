//! Subscriptions: a subtree's state, and then every change of it, in zxid order.
//!
//! ```text
//! past         changes side by side in one piece of memory
//! history      the latest changes, bounded; begins at the snapshot that was loaded
//! cut          a subtree as of one zxid, sent in chunks
//! table        Subscriptions: where each subscriber stands, and what it is sent next
//! ```
//!
//! Called by: the server. Calls: `tree` (reads).
//! Invariant: nothing is queued per subscriber: each has a position in the shared history, and one
//! that falls out of it gets a snapshot. It does not know frames or sockets: the server takes
//! events when a connection has room for them.

mod cut;
mod history;
mod past;
mod table;

pub use history::HISTORY_BYTES_MAX;
pub use table::{Delivery, SUBSCRIPTIONS_PER_CONNECTION_MAX, Subscriptions};

#[cfg(test)]
mod tests;
