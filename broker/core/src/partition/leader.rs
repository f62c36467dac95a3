//! The leader's part: may this be appended, how far is each follower, what is committed.
//!
//! *Called by* the replica and the fetch part. Invariants (D1): the high watermark is the least durable end over the larger ISR, this replica
//! included (of a memory topic: the least end offset); it stands still while the ISR is smaller than `min.insync.replicas`; it never goes back.
//!
//! ```text
//! follower durable 7 |------ 12 leader durable |--- 15 end      high watermark = 7
//! ```

use std::collections::BTreeMap;

use client_protocol::ErrorCode;

use crate::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Millis, Offset};

use super::effect::Effect;
use super::fetch::FollowerFetch;
use super::isr::IsrChange;
use super::replica::{Durability, Partition, Role};

/// May be appended, by the log that adopted this epoch and no other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppendPermit {
    /// The epoch to stamp on the records.
    pub leader_epoch: LeaderEpoch,
}

/// How far a follower is, in one life of its broker. Both ends only rise, unless it lost what is committed: a follower of one leadership cuts
/// nothing else that was seen as a prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Progress {
    pub(super) broker_epoch: BrokerEpoch,
    pub(super) end: Offset,
    durable_end: Offset,
    /// When it last had all that the leader had.
    caught_up_at: Millis,
    last_fetch_at: Millis,
    /// The leader's end at its last fetch.
    last_fetch_leader_end: Offset,
}

impl Progress {
    /// The end that counts for the high watermark and the ISR.
    pub(super) fn judged(&self, durability: Durability) -> Offset {
        match durability {
            Durability::Disk => self.durable_end,
            Durability::Memory => self.end,
        }
    }
}

/// One leadership of this replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Leader {
    pub(super) epoch: LeaderEpoch,
    /// The log adopted the epoch.
    pub(super) ready: bool,
    /// Log end offset when it did.
    pub(super) epoch_start: Offset,
    pub(super) followers: BTreeMap<BrokerId, Progress>,
    /// From when lag is counted for a replica that has not fetched yet.
    since: Millis,
    pub(super) change: IsrChange,
}

impl Leader {
    pub(super) fn new(epoch: LeaderEpoch, end: Offset, now: Millis) -> Self {
        Self {
            epoch,
            ready: false,
            epoch_start: end,
            followers: BTreeMap::new(),
            since: now,
            change: IsrChange::new(now),
        }
    }

    pub(super) fn begin(&mut self, end: Offset, now: Millis) {
        self.ready = true;
        self.epoch_start = end;
        self.since = now;
    }

    /// Takes over what a fetch says of a log that is a prefix of ours; false when it comes from an older life. `committed`: what every
    /// replica in sync holds.
    pub(super) fn note_progress(
        &mut self,
        fetch: &FollowerFetch,
        leader_end: Offset,
        committed: Offset,
    ) -> bool {
        let since = self.since;
        let progress = self.followers.entry(fetch.replica).or_insert(Progress {
            broker_epoch: fetch.broker_epoch,
            end: fetch.fetch_offset,
            durable_end: Offset::ZERO,
            caught_up_at: since,
            last_fetch_at: since,
            last_fetch_leader_end: leader_end,
        });
        if fetch.broker_epoch < progress.broker_epoch {
            return false;
        }
        if fetch.broker_epoch > progress.broker_epoch {
            progress.broker_epoch = fetch.broker_epoch;
            progress.end = Offset::ZERO;
            progress.durable_end = Offset::ZERO;
            progress.last_fetch_leader_end = leader_end;
        }
        if fetch.fetch_offset < committed {
            progress.end = progress.end.min(fetch.fetch_offset);
            progress.durable_end = progress.durable_end.min(progress.end);
        }
        progress.end = progress.end.max(fetch.fetch_offset);
        progress.durable_end = progress.durable_end.max(fetch.durable_end.min(fetch.fetch_offset));
        true
    }

    /// Moves the follower's clock of being caught up, judged by the end that counts.
    pub(super) fn note_caught_up(
        &mut self,
        replica: BrokerId,
        durability: Durability,
        leader_end: Offset,
        now: Millis,
    ) {
        if let Some(progress) = self.followers.get_mut(&replica) {
            let judged = progress.judged(durability);
            if judged >= leader_end {
                progress.caught_up_at = progress.caught_up_at.max(now);
            } else if judged >= progress.last_fetch_leader_end {
                progress.caught_up_at = progress.caught_up_at.max(progress.last_fetch_at);
            }
            progress.last_fetch_at = now;
            progress.last_fetch_leader_end = leader_end;
        }
    }

    /// Since when a replica lacks something; none when it has all.
    pub(super) fn behind_since(
        &self,
        replica: BrokerId,
        durability: Durability,
        leader_end: Offset,
    ) -> Option<Millis> {
        match self.followers.get(&replica) {
            Some(progress) if progress.judged(durability) >= leader_end => None,
            Some(progress) => Some(progress.caught_up_at.max(self.since)),
            None => Some(self.since),
        }
    }

    /// Whether a replica was seen to lack what is committed.
    pub(super) fn lacks(&self, replica: BrokerId, committed: Offset) -> bool {
        self.followers.get(&replica).is_some_and(|progress| progress.end < committed)
    }

    pub(super) fn check(&self, end: Offset) {
        assert!(!self.ready || self.epoch_start <= end, "epoch start after the end");
        for (replica, progress) in &self.followers {
            assert!(progress.durable_end <= progress.end, "{replica}: durable above end");
            assert!(progress.end <= end, "{replica}: counted beyond the leader's end");
        }
        self.change.check();
    }
}

impl Partition {
    /// Whether a produce may be appended: leadership, epoch, ISR size for acks=all.
    ///
    /// # Errors
    /// The code to answer: INVALID_REQUIRED_ACKS, NOT_LEADER_OR_FOLLOWER, NOT_ENOUGH_REPLICAS.
    pub fn admit_produce(&self, acks: i16) -> Result<AppendPermit, ErrorCode> {
        if !(-1..=1).contains(&acks) {
            return Err(ErrorCode::InvalidRequiredAcks);
        }
        let leader_epoch = self.leading().ok_or(ErrorCode::NotLeaderOrFollower)?;
        let enough = self.isr().len() >= self.settings.min_insync_replicas
            || planted!(self.settings.planted, AcknowledgeBelowMinIsr);
        if acks == -1 && !enough {
            return Err(ErrorCode::NotEnoughReplicas);
        }
        Ok(AppendPermit { leader_epoch })
    }

    /// What is committed by D1 now; none while nothing more can be.
    fn committed(&self, leader: &Leader) -> Option<Offset> {
        let adopted = self.adopted.as_ref()?;
        if adopted.isr.len() < self.settings.min_insync_replicas
            && !planted!(self.settings.planted, AcknowledgeBelowMinIsr)
        {
            return None;
        }
        let mut least = match self.settings.durability {
            Durability::Disk => self.log.durable_end,
            Durability::Memory => self.log.end,
        };
        // While a change is pending the larger set counts (C3).
        for &replica in adopted.isr.iter().chain(leader.change.proposed()) {
            #[cfg(planted)]
            if planted!(self.settings.planted, CountPendingShrink) && leader.change.drops(replica) {
                continue;
            }
            if replica != self.me {
                // A member that has not fetched in this leadership is not known to hold anything.
                let progress = leader.followers.get(&replica)?;
                // Neither is one that registered anew and has not fetched since.
                if self.live.get(&replica).is_some_and(|&live| live > progress.broker_epoch) {
                    return None;
                }
                least = least.min(progress.judged(self.settings.durability));
            }
        }
        Some(least)
    }

    /// Something that the high watermark or the ISR depends on changed, or time passed.
    pub(super) fn leader_progress(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let Role::Leader(leader) = &self.role else { return };
        if !leader.ready {
            return;
        }
        if let Some(committed) = self.committed(leader).filter(|&c| c > self.high_watermark) {
            self.high_watermark = committed;
            effects.push(Effect::HighWatermark { high_watermark: committed });
        }
        self.consider_isr(now, effects);
    }
}
