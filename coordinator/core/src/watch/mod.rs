//! Watches: who is told, once or for ever, that a path changed.
//!
//! ```text
//! table        Watches: registrations of this server's connections; which of them a change fires
//! rearm        setWatches after a reconnect: what was missed fires at once
//! missed       the same for persistent watches, by the latest changes
//! ```
//!
//! Called by: the server, on reads and on each applied command. Calls: `tree` (reads).
//! Invariant: registered per connection, never replicated; a change fires at most one event of a
//! kind and path per connection. It does not know sessions, frames, or what is in a node.

mod missed;
mod rearm;
mod table;

pub use missed::Missed;
pub use table::{
    Notification, WATCHED_BYTES_ALL_MAX, WATCHED_BYTES_MAX, WATCHED_PATHS_MAX, WatchLimits, Watches,
};

#[cfg(test)]
mod tests;
