//! The simulated world: everything a server touches, without the machine and repeatable from a seed.

pub mod disk;
pub mod ensemble;
pub mod random;
pub mod replication;
