//! The coordinator's shell: everything around `coordinator-core` that touches the world.
//!
//! ```text
//! config/      settings: names, defaults, what they mean, one typed struct
//! server       binds the sockets, wires the parts together, stops them in order
//! core_loop    the one task that owns the core: events in, effects out
//! net/         clients: listener, connection, four-letter words, bounded output
//! peers/       links between the members of the ensemble
//! tls/         certificates, encrypted sockets
//! storage/     log and snapshots, on a thread of their own
//! http         /live, /ready, /metrics, /commands
//! admin/       what four-letter words and commands are answered
//! import/      a data folder made from ZooKeeper's
//! embedded     a whole single-member coordinator inside another process
//! ```
//!
//! Called by: the `coordinator` binary, and the broker's embedded mode. Decides nothing: decisions are the core's.

mod admin;
mod asked_snapshots;
mod audit;
mod clock;
mod core_loop;
mod disk_room;
mod http;
mod link_lines;
mod metrics;
mod net;
mod notices;
mod peers;
mod roster;
mod server;
mod standing;
mod tls;

pub mod config;
pub mod embedded;
pub mod import;
pub mod storage;

pub use config::sasl_user_names;
pub use http::http_request;
pub use net::{Limits, Place, Places, Ticket};
pub use peers::rewritten_handshake;
pub use server::{Addresses, Server, ServerError};
pub use tls::subject as certificate_subject;
