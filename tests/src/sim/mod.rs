//! The simulated world: everything a server touches, without the machine and repeatable from a seed.

pub mod campaign;
pub mod decisions;
pub mod disk;
pub mod ensemble;
pub mod expected;
pub mod fault;
pub mod groups;
pub mod many;
#[cfg(planted)]
pub mod planted;
pub mod random;
pub mod replication;
