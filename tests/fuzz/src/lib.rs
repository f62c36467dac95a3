//! Every decoder, fed what nobody would send.
//!
//! A target is a decoder, what must hold of it whatever the bytes, and good bytes to begin with. `cargo test` gives each target its
//! seeds, its corpus and some thousand changes of both; `scripts/fuzz` goes on for as long as it is told, with LLVM's fuzzer, which
//! sees what parts of the code an input reaches.
//!
//! ```text
//! target       what a target is             budget   what a decoder may allocate
//! mutate       changes, blind               seeds    recorded bytes
//! run          targets over many inputs     parts    inputs that are several
//! lone_server  a server and its client      targets  all of them
//! memory_disk  files in memory
//! ```

mod budget;
mod lone_server;
mod memory_disk;
mod mutate;
mod parts;
mod run;
mod seeds;
mod target;
mod targets;

pub use run::{Finding, Ran, corpus_folder, corpus_of, replay, run_blind, write_corpus};
pub use target::Target;
pub use targets::{all, named};

#[cfg(test)]
mod tests;
