//! Deterministic simulation of replication: brokers, controller, logs on disks, producers and consumers.
//!
//! ```text
//! run          one seed: work under faults, heal, come to rest, audit
//! settings     what kind of run; everything from the seed
//! world        everything on one clock                          nemesis  what goes wrong
//!                                                                 rot      disks that lose what they had
//!   machines     processes that start and die    wires  what lies between    customers  clients in the world
//!                                                                 topics   the one that is judged, and one that comes and goes
//! coordination brokers' sessions with the real ensemble, which runs in the same world
//! process      a broker's process: the real decisions (broker-core) on the broker's own log worker
//!   session      its coordinator session, registration and election
//!   hosting      which partitions it has, by what it hears
//!   producer_ids which ids it gives to producers
//!   storage      its log directory: the worker, stepped
//!   committing   its commit rounds, and their marks
//!   cleaning     its cleaner, which may be ended between any two operations on the disk
//!   serving      what it answers to producers, leaders and the controller
//!   reading      what it answers to consumers and followers, now or when there is news
//!   fetching     how it follows
//! message      what travels between them          wire     the same as frames
//! client       producers and consumers        native   one that is the native client's own deciding code
//!                                             reader   the same, as a consumer; inquiry: what that asks and is told
//!                                             lines    the connections of these two
//! chronicle    what clients did and were told, for the checker of histories
//! ledger       what was acknowledged, committed and seen; checked after each step and at the end
//!   compacted    what compaction may take away
//! ```
//!
//! Invariant: the same seed gives the same run. Two simulations share one clock: what is due first happens first, the ensemble's before the
//! brokers' when both are due.

mod chronicle;
mod cleaning;
mod client;
mod committing;
mod compacted;
mod coordination;
mod customers;
mod fetching;
mod hosting;
mod inquiry;
mod ledger;
mod lines;
mod machines;
mod message;
mod native;
mod nemesis;
mod process;
mod producer_ids;
mod reader;
mod reading;
mod rot;
mod run;
mod serving;
mod session;
mod settings;
mod storage;
mod topics;
mod wire;
mod wires;
mod world;

pub use run::{Report, draw, run, run_with};
pub use settings::Settings;
