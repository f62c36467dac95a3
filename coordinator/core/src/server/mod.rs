//! One member of the ensemble, without I/O: events come in, effects go out.
//!
//! ```text
//! step           Server: the step, and what happens at its beginning and end
//! event, effect  what comes in, what goes out
//! config, status, limits
//! connection     connections and their requests in order     handshake  how they open
//! request        what each operation becomes                 pipeline   whose turn it is
//! read           answers from the tree                       reply      answers to frames
//! sync           linearizable reads                          quorum     no quorum, no answers
//! apply          committed entries: notifications, then answers
//! session        what creates, moves and ends sessions do to connections
//! proposals      the leader's queue of commands              link       commands to the leader
//! repetition     what is in that queue already
//! peer           messages between members                    snapshot   when to take one
//! identity       who a connection has shown to be            sasl      one way to show it
//! members        servers join and leave
//! transfer       an operator moves leadership
//! office         what only a leader does: timers, graces     presence   what it is told for that
//! timers         deadlines of sessions                       weight     bytes of commands
//! room           no writes without room on the disks         measures   what is counted
//! audit          who did what, or might not                 read_only  reads without a quorum
//! set_watches    many watches, in parts                    traffic    what is counted until it is reset
//! survey         lists for operators                     alike     what members should have alike
//! ```
//!
//! Called by the shell and the simulator. Calls `consensus`, `state`, `watch`, `subscription`.
//! Invariant: safety.md A; the same events at the same times give the same effects. It does not
//! know sockets, files, threads or clocks.

mod alike;
mod apply;
mod audit;
mod claims;
mod config;
mod connection;
mod effect;
mod event;
mod handshake;
mod identity;
mod limits;
mod link;
mod measures;
mod members;
mod newcomers;
mod notices;
mod office;
mod peer;
mod pipeline;
mod presence;
mod proposals;
mod quorum;
mod read;
mod read_only;
mod repetition;
mod reply;
mod reply_size;
mod request;
mod room;
mod sasl;
mod session;
mod set_watches;
mod snapshot;
mod standing;
mod status;
mod step;
mod survey;
mod sync;
#[cfg(test)]
mod tests;
mod timers;
mod traffic;
mod transfer;
mod weight;

pub use audit::AuditRecord;
pub use config::{Config, ConfigError, MEMBERS_MAX};
pub use effect::Effect;
pub use event::Event;
pub use limits::*;
pub use measures::{Fired, Histogram, Measures, Summary};
pub use notices::{NOTICE_PAUSE_MS, Notice, Noticed};
pub use peer::rewritten_message;
pub use room::DiskRoom;
pub use sasl::SaslConfig;
pub use standing::{Links, Standing};
pub use status::{Lack, Mode, Status};
pub use step::Server;
pub use survey::{
    ConnectionInfo, EnsembleView, LISTED_BYTES_MAX, LISTED_MAX, Listed, SessionInfo, WatchSummary,
};
pub use traffic::{ConnectionTraffic, LastAnswer, Latency, Sizes, Traffic};
