//! What tests and scripts stand on: real processes (`cluster`) and simulated ones (`sim`).
//!
//! Imports everything, imported by nobody.

pub mod cluster;
pub mod history;
pub mod sim;
