//! Requests that wait on one partition: produces for the high watermark, fetches for bytes.
//!
//! *Called by* the hosted partition, under whose lock it lies. Pure bookkeeping: it answers nothing itself, it says who waits no longer.
//!
//! - [`produces`]: acks=all produces.
//! - [`fetches`]: fetches of consumers and followers, and when a fetch has enough.

pub mod fetches;
pub mod produces;

use client_protocol::ErrorCode;

pub use fetches::{FetchTerms, FetchWait, Found, Look, ParkedFetches};
pub use produces::{ParkedProduces, ProduceWait};

use crate::partition::Effect;

/// Who waits no longer. `P` and `F` are what the shell knows a produce and a fetch by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Released<P, F> {
    /// Answer the produce: committed, or why that cannot be said.
    Settled(P, Result<(), ErrorCode>),
    /// Look again at what this fetch may read.
    Woken(F),
}

/// All that waits on one partition.
#[derive(Clone, Debug)]
pub struct Purgatory<P, F> {
    /// acks=all produces.
    pub produces: ParkedProduces<P>,
    /// Fetches.
    pub fetches: ParkedFetches<F>,
}

impl<P, F> Default for Purgatory<P, F> {
    fn default() -> Self {
        Self { produces: ParkedProduces::default(), fetches: ParkedFetches::default() }
    }
}

impl<P, F> Purgatory<P, F> {
    /// Takes in what the partition's core decided.
    pub fn note(&mut self, effect: &Effect, released: &mut Vec<Released<P, F>>) {
        match effect {
            Effect::HighWatermark { high_watermark } => {
                self.produces.committed(*high_watermark, released);
                self.fetches.high_watermark(*high_watermark, released);
            }
            Effect::EndMoved { end_offset } => self.fetches.end_moved(*end_offset, released),
            Effect::LeadershipLost => {
                self.produces.refuse_all(ErrorCode::NotLeaderOrFollower, released);
                self.fetches.wake_all(released);
            }
            Effect::AdoptEpoch { .. }
            | Effect::AppendFetched { .. }
            | Effect::Truncate { .. }
            | Effect::RestartAt { .. }
            | Effect::DropBelow { .. }
            | Effect::CommittedCut { .. }
            | Effect::ReportProgress
            | Effect::FetchFrom { .. }
            | Effect::StopFetching
            | Effect::Alter(_)
            | Effect::CutRepaired => {}
        }
    }

    /// Panics when an invariant is broken.
    pub fn check(&self) {
        self.produces.check();
    }
}
