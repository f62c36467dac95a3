//! Deterministic simulation of a whole coordinator ensemble with its clients.
//!
//! ```text
//! run          one seed: work under faults, mend, come to rest, audit
//! settings     what kind of run; everything from the seed
//! world        servers, wires, disks, clients on one clock     schedule  what happens next
//! member       a server process: the real `Server`             storage   what a crash leaves of its disk
//! links        connections between servers                     network   what a wire may do
//! client       a client as libraries are                       sockets   its connections      workload  what it asks
//! nemesis      what goes wrong
//! operator     clients that change the members               machines  those that are no members yet, or no more
//! locker       clients that take a lock as the recipe has it
//! puppet       clients that are pulled from outside: the sessions of brokers
//! script       a run in which somebody wrote down what goes wrong, and when
//! ledger       what was agreed on; checked after each step
//! model/       what should have been agreed on, by a second reading of the rules
//! audit/       what clients saw against the ledger, at the end
//! trace        a run as one number
//! ```
//!
//! Invariant: the same seed gives the same run. It does not know files, sockets or threads.

mod audit;
mod client;
mod ledger;
mod links;
mod locker;
mod machines;
mod member;
mod model;
mod nemesis;
mod network;
mod operator;
mod puppet;
mod run;
pub(super) mod schedule;
mod script;
mod settings;
mod sockets;
mod storage;
pub(super) mod trace;
mod workload;
mod world;

pub use audit::Audited;
pub use puppet::Heard;
pub use run::{LONG_FROM, Profile, Report, draw, lengthen, run, run_with};
pub use script::Script;
pub use settings::Settings;
pub use world::World;
