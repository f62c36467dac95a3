//! What is built from the plain operations: each knows what a lost answer means for it.

mod compare_and_set;
mod elect;
mod register;

pub use compare_and_set::{CompareAndSet, compare_and_set};
pub use elect::{Election, elect};
pub use register::{Registration, register};
