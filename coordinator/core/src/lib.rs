//! What the coordinator decides, without any I/O: events come in, effects go out.
//!
//! ```text
//! ids, clock       names of servers and connections; time as an argument
//! consensus/       the seam to the consensus engine; replicates opaque bytes
//! server/          one member: connections, sessions, order; step(event, now) -> effects
//! state/           the replicated state machine: entries in, outcomes and changes out; snapshot
//! tree/            znodes, Stat arithmetic, path rules; knows neither sessions nor consensus
//! watch/           who is told once (or for ever) that a path changed; per server, not replicated
//! digest_md5       the arithmetic of a password that is proved without being sent
//! subscription/    who follows a whole subtree: bounded history, snapshot chunks, bookmarks
//! ```
//!
//! Invariant: two servers that applied the same entries hold equal `state::State`, byte for byte
//! in their snapshots. It does not know sockets, files, threads or the clock.

/// Whether this bug was put in on purpose: never, unless built with `--cfg planted`.
#[cfg(planted)]
macro_rules! planted {
    ($chosen:expr, $bug:ident) => {
        $chosen == Some($crate::planted::Planted::$bug)
    };
}

/// Whether this bug was put in on purpose: never, unless built with `--cfg planted`.
#[cfg(not(planted))]
macro_rules! planted {
    ($chosen:expr, $bug:ident) => {
        false
    };
}

pub mod clock;
pub mod consensus;
pub mod digest_md5;
pub mod ids;
pub mod members;
#[cfg(planted)]
pub mod planted;
pub mod server;
pub mod state;
pub mod subscription;
pub mod tree;
pub mod watch;

pub use clock::{Millis, Now};
pub use ids::{ConnectionId, ServerId};
