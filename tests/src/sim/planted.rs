//! Bugs put in on purpose: the simulation is worth what it finds of them. Compiled only under `--cfg planted`.
//!
//! Called by: the tests and the `sim` program. Calls: the simulations.
//! Invariant: a bug counts as found only when the same seed passes without it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::campaign::{Less, World, last_panic};
use super::ensemble::{self, Profile};
use super::{groups, replication};

/// One bug, by the crate whose switch it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Of the coordinator's core.
    Coordinator(coordinator_core::planted::Planted),
    /// Of the broker's core.
    Broker(broker_core::planted::Planted),
    /// Of the broker's core, where it decides on groups.
    Groups(broker_core::planted::Planted),
    /// Of the native client's core, where it is a member of a group.
    Members(client_core::planted::Planted),
    /// Of the native client's core, where it consumes.
    Consumers(client_core::planted::Planted),
    /// Of the broker's log.
    Log(broker_log::planted::Planted),
}

/// All bugs, each with a seed that is known to find it.
pub fn all() -> Vec<(Bug, u64)> {
    use coordinator_core::planted::Planted as C;
    let coordinator = C::ALL.map(|bug| {
        let seed = match bug {
            C::AcknowledgeBeforeSync => 1,
            C::ForgetVote => 14,
            C::ReplyBeforeNotification => 0,
            C::LoseWatchOnReconnect => 0,
            C::ExpireReattached => 0,
            C::ApplyTwice => 0,
            C::KeepEphemerals => 0,
            C::SyncWithoutQuorum => 2,
            C::CountOwnClose => 16,
            C::LoseChange => 0,
            C::LoseNotification => 0,
            C::ReuseSequenceSuffix => 0,
            C::AnswerWithoutQuorum => 3,
            C::AcceptStaleReconnect | C::DeduplicateByXid | C::AcceptStaleWrite => 0,
            C::GoOnAfterFailedSync => 2,
            C::KeepFailedMulti | C::DeleteBehindParent => 0,
            C::WriteWhatIsRefused => 4,
            C::GiveVoteUnprepared | C::FinishHalfWay | C::CountBySettings => 0,
            C::ReadBesideHandshake => 13,
            C::ReadBehind => 4,
            C::CallTransferDone => 0,
        };
        (Bug::Coordinator(bug), seed)
    });
    use broker_core::planted::Planted as B;
    let broker = B::ALL.map(|bug| {
        let seed = match bug {
            B::AcknowledgeBeforeSync => 2,
            B::AcknowledgeBelowMinIsr => 0,
            B::ElectOutsideIsr | B::ElectWiped => 0,
            B::TruncateToHighWatermark => 2,
            B::CountPendingShrink => 2,
            B::JoinOnUnsyncedEnd => 2,
            B::LeadUnderOldEpoch => 2,
            B::CountLagging => 2,
            B::SkipEpochCheck | B::IgnoreBootChange => 0,
            B::TakeAnyOfMemory => 297,
            B::AdoptAnyState => 93,
            B::ServeWithoutContact => 30,
            B::TakeUnknownBlock => 13,
            B::ServeAboveHighWatermark
            | B::AcknowledgeUnreplicatedOffsets
            | B::ForgetGeneration
            | B::HandWorkToAnyGeneration => 0,
        };
        (Bug::Broker(bug), seed)
    });
    let groups = B::GROUPS.map(|bug| {
        let seed = if bug == B::HandWorkToAnyGeneration { 3 } else { 0 };
        (Bug::Groups(bug), seed)
    });
    let brokers = broker.into_iter().chain(groups).chain(of_logs());
    coordinator.into_iter().chain(brokers).chain(of_clients()).collect()
}

fn of_logs() -> Vec<(Bug, u64)> {
    use broker_log::planted::Planted as L;
    let seeds = L::ALL.map(|bug| {
        let seed = match bug {
            L::ForgetProducers => 4,
            L::KeepMarkWhenTruncating => 0,
            L::CleanAboveHighWatermark => 5,
            L::ForgetDeleteRetention => 6,
            L::IgnoreTornTail => 509,
            L::CutDamagedMiddle => 10,
            L::TrustSums => 0,
            L::GoOnAfterFailedSync => 54,
            L::LeaveMarksUnsynced => 2,
        };
        (Bug::Log(bug), seed)
    });
    seeds.into()
}

fn of_clients() -> Vec<(Bug, u64)> {
    use client_core::planted::Planted as M;
    let seed = |bug| match bug {
        M::CommitAsOfNow => 124,
        M::SkipPositionCheck => 491,
        M::IgnoreCut => 420,
        M::KeepShareWhenUnknown | M::JoinBeforeLetGo | M::TakeAbandonedAnswer => 0,
    };
    let members = M::GROUPS.map(|bug| (Bug::Members(bug), seed(bug)));
    let consumers = M::CONSUMERS.map(|bug| (Bug::Consumers(bug), seed(bug)));
    members.into_iter().chain(consumers).collect()
}

/// Seeds tried when the known one does not find its bug: a change of the code moves every run.
pub const SEEDS: u64 = 600;

/// A bug that takes more simulated time than this is not found: an hour.
pub const WITHIN_US: u64 = 3_600_000_000;

/// What found a bug.
#[derive(Debug, Clone)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// Simulated time of all seeds tried, this one's without the bug, in microseconds.
    pub simulated_us: u64,
    /// The rule that broke.
    pub rule: String,
}

/// Runs one seed with the bug: the simulated time. Panics when a rule is broken, which is what is hoped for.
fn run(bug: Bug, seed: u64) -> u64 {
    match bug {
        Bug::Coordinator(planted) => {
            let plant = |settings: &mut ensemble::Settings| settings.planted = Some(planted);
            ensemble::run_with(seed, Profile::Chaos, false, plant).simulated
        }
        Bug::Broker(planted) => {
            let plant = |settings: &mut replication::Settings| settings.planted = Some(planted);
            replication::run_with(seed, false, plant).simulated
        }
        Bug::Groups(planted) => {
            let plant = |settings: &mut groups::Settings| settings.planted = Some(planted);
            groups::run_with(seed, false, plant).simulated
        }
        Bug::Members(planted) => {
            let plant = |settings: &mut groups::MemberSettings| settings.planted = Some(planted);
            groups::run_changed(seed, false, |_| {}, &plant).simulated
        }
        Bug::Consumers(planted) => {
            let plant = |settings: &mut replication::Settings| {
                if let Some(reader) = &mut settings.reader {
                    reader.planted = Some(planted);
                }
            };
            replication::run_with(seed, false, plant).simulated
        }
        Bug::Log(planted) => {
            let plant =
                |settings: &mut replication::Settings| settings.planted_in_log = Some(planted);
            replication::run_with(seed, false, plant).simulated
        }
    }
}

/// The first of these seeds that finds the bug and finds nothing without it, if that takes no longer than [`WITHIN_US`].
pub fn find(bug: Bug, seeds: impl Iterator<Item = u64>) -> Option<Found> {
    let world = match bug {
        Bug::Coordinator(_) => World::Ensemble,
        Bug::Groups(_) | Bug::Members(_) => World::Groups,
        Bug::Broker(_) | Bug::Log(_) | Bug::Consumers(_) => World::Replication,
    };
    let mut simulated_us = 0;
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| run(bug, seed))) {
            Ok(simulated) => simulated_us += simulated,
            Err(_) => {
                let rule = last_panic();
                // It took at most as long as without the bug.
                let sound = world.try_run(seed, &Less::default(), false);
                if let Ok(sound) = sound {
                    simulated_us += sound.simulated;
                    return (simulated_us <= WITHIN_US).then_some(Found {
                        seed,
                        simulated_us,
                        rule,
                    });
                }
            }
        }
        if simulated_us > WITHIN_US {
            return None;
        }
    }
    None
}
