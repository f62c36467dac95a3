//! Bugs put in on purpose: the simulation is worth what it finds of them. Compiled only under `--cfg planted`.
//!
//! Called by: the tests and the `sim` program. Calls: the simulations.
//! Invariant: a bug counts as found only when the same seed passes without it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::ensemble::{self, Profile};
use super::replication;

/// One bug, by the crate whose switch it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Of the coordinator's core.
    Coordinator(coordinator_core::planted::Planted),
    /// Of the broker's core.
    Broker(broker_core::planted::Planted),
    /// Of the broker's log.
    Log(broker_log::planted::Planted),
}

/// All bugs, each with a seed that is known to find it.
pub fn all() -> Vec<(Bug, u64)> {
    use coordinator_core::planted::Planted as C;
    let coordinator = C::ALL.map(|bug| {
        let seed = match bug {
            C::AcknowledgeBeforeSync => 10,
            C::ForgetVote => 7,
            C::ReplyBeforeNotification => 0,
            C::LoseWatchOnReconnect => 0,
            C::ExpireReattached => 0,
            C::ApplyTwice => 0,
            C::KeepEphemerals => 0,
            C::SyncWithoutQuorum => 0,
            C::CountOwnClose => 13,
            C::LoseChange => 0,
            C::LoseNotification => 0,
            C::ReuseSequenceSuffix => 0,
            C::AnswerWithoutQuorum => 94,
        };
        (Bug::Coordinator(bug), seed)
    });
    use broker_core::planted::Planted as B;
    let broker = B::ALL.map(|bug| {
        let seed = match bug {
            B::AcknowledgeBeforeSync => 2,
            B::AcknowledgeBelowMinIsr => 0,
            B::ElectOutsideIsr => 4,
            B::ElectWiped => 109,
            B::TruncateToHighWatermark => 2,
            B::CountPendingShrink => 2,
            B::JoinOnUnsyncedEnd => 2,
            B::LeadUnderOldEpoch => 2,
            B::ServeAboveHighWatermark => 0,
        };
        (Bug::Broker(bug), seed)
    });
    use broker_log::planted::Planted as L;
    let log = L::ALL.map(|bug| {
        let seed = match bug {
            L::ForgetProducers => 2,
            L::KeepMarkWhenTruncating => 13,
        };
        (Bug::Log(bug), seed)
    });
    coordinator.into_iter().chain(broker).chain(log).collect()
}

/// Runs one seed with the bug. Panics when a rule is broken, which is what is hoped for.
pub fn run(bug: Bug, seed: u64, print: bool) -> String {
    match bug {
        Bug::Coordinator(planted) => {
            let plant = |settings: &mut ensemble::Settings| settings.planted = Some(planted);
            format!("{:?}", ensemble::run_with(seed, Profile::Chaos, print, plant))
        }
        Bug::Broker(planted) => {
            let plant = |settings: &mut replication::Settings| settings.planted = Some(planted);
            format!("{:?}", replication::run_with(seed, print, plant))
        }
        Bug::Log(planted) => {
            let plant =
                |settings: &mut replication::Settings| settings.planted_in_log = Some(planted);
            format!("{:?}", replication::run_with(seed, print, plant))
        }
    }
}

/// Runs one seed without any bug.
pub fn run_sound(bug: Bug, seed: u64) {
    match bug {
        Bug::Coordinator(_) => drop(ensemble::run(seed, Profile::Chaos, false)),
        Bug::Broker(_) | Bug::Log(_) => drop(replication::run(seed, false)),
    }
}

/// The first of these seeds that finds the bug.
pub fn find(bug: Bug, mut seeds: impl Iterator<Item = u64>) -> Option<u64> {
    let found = seeds.find(|seed| {
        let ran = catch_unwind(AssertUnwindSafe(|| run(bug, *seed, false)));
        ran.is_err()
    })?;
    run_sound(bug, found);
    Some(found)
}
