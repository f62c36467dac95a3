//! Who should be in sync, and the change under way.
//!
//! *Called by* the leader's part. Invariants (C3, D2): one request at a time; every replica that was proposed at the present partition epoch
//! counts for the high watermark until a higher partition epoch is adopted, because a request whose answer was lost, or a late copy of it,
//! may still be granted; a higher partition epoch makes all of them fail. It never changes the ISR itself.

use std::collections::BTreeSet;

use client_protocol::ErrorCode;

use crate::ids::{BrokerEpoch, BrokerId, Millis, Offset};

use super::effect::{AlterRequest, Effect};
use super::leader::Leader;
use super::replica::{Adopted, Partition, Role};

/// The ISR change of one leadership.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct IsrChange {
    /// All who were proposed at the adopted partition epoch.
    proposed: BTreeSet<BrokerId>,
    in_flight: bool,
    attempt: u64,
    /// Not before this is anything sent again.
    next_at: Millis,
}

impl IsrChange {
    pub(super) fn new(now: Millis) -> Self {
        Self { proposed: BTreeSet::new(), in_flight: false, attempt: 0, next_at: now }
    }

    pub(super) fn proposed(&self) -> &BTreeSet<BrokerId> {
        &self.proposed
    }

    /// Whether a change that would leave `replica` out is under way.
    #[cfg(planted)]
    pub(super) fn drops(&self, replica: BrokerId) -> bool {
        self.in_flight && !self.proposed.contains(&replica)
    }

    pub(super) fn check(&self) {
        assert!(!self.in_flight || self.attempt > 0, "in flight without an attempt");
    }
}

impl Partition {
    /// A state of the same leadership was adopted: what was proposed before it can no longer be granted.
    /// Who was taken out of `former_isr` comes back only by a fetch made after that: one that stops sends none.
    pub(super) fn isr_adopted(
        &mut self,
        former_isr: &[BrokerId],
        now: Millis,
        effects: &mut Vec<Effect>,
    ) {
        if let (Role::Leader(leader), Some(adopted)) = (&mut self.role, &self.adopted) {
            let taken_out = |id: &BrokerId| former_isr.contains(id) && !adopted.isr.contains(id);
            leader.followers.retain(|id, _| !taken_out(id));
            leader.change.proposed.clear();
            leader.change.in_flight = false;
            leader.change.next_at = now;
        }
        self.leader_progress(now, effects);
    }

    /// The controller answered an AlterPartition. Success changes nothing yet: the state comes with the metadata.
    pub fn alter_answered(&mut self, attempt: u64, result: Result<(), ErrorCode>, now: Millis) {
        let retry_ms = self.settings.alter_retry_ms;
        if let Role::Leader(leader) = &mut self.role {
            let change = &mut leader.change;
            if change.attempt == attempt && change.in_flight && result.is_err() {
                change.in_flight = false;
                change.next_at = now.plus(retry_ms);
            }
        }
    }

    /// When [`Partition::tick`] is due for the ISR's sake.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        let (Role::Leader(leader), Some(adopted)) = (&self.role, &self.adopted) else {
            return None;
        };
        if !leader.ready {
            return None;
        }
        let durability = self.settings.durability;
        let wanted = self.wanted_isr(leader, adopted, Millis::new(0));
        let change = (leader.change.in_flight || self.needs_change(leader, adopted, &wanted))
            .then_some(leader.change.next_at);
        let lag = adopted
            .isr
            .iter()
            .filter(|&&replica| replica != self.me)
            .filter_map(|&replica| leader.behind_since(replica, durability, self.log.end))
            .map(|since| since.plus(self.settings.lag_time_max_ms).plus(1))
            .min();
        // A lag that is over already waits for the change's turn, not for its own time.
        let lag = lag.map(|due| due.max(leader.change.next_at));
        change.into_iter().chain(lag).min()
    }

    /// The ISR as it should be by D2.
    fn wanted_isr(&self, leader: &Leader, adopted: &Adopted, now: Millis) -> Vec<BrokerId> {
        let durability = self.settings.durability;
        let lags = |replica: BrokerId| {
            leader
                .behind_since(replica, durability, self.log.end)
                .is_some_and(|since| now.since(since) > self.settings.lag_time_max_ms)
        };
        // One in sync that does not hold what is committed found its log damaged: as leader it would lose that.
        let lacks = |replica: BrokerId| leader.lacks(replica, self.high_watermark);
        let mut wanted: Vec<_> = adopted
            .isr
            .iter()
            .copied()
            .filter(|&replica| replica == self.me || !(lags(replica) || lacks(replica)))
            .collect();
        for &replica in &adopted.replicas {
            if !adopted.isr.contains(&replica) && self.may_join(leader, replica) {
                wanted.push(replica);
            }
        }
        wanted
    }

    /// D2: everything committed, and everything that may have been committed under former leaders, is durable there.
    fn may_join(&self, leader: &Leader, replica: BrokerId) -> bool {
        let Some(progress) = leader.followers.get(&replica) else { return false };
        let needed: Offset = match planted!(self.settings.planted, CountLagging) {
            true => Offset::new(0),
            false => self.high_watermark.max(leader.epoch_start),
        };
        self.live.get(&replica) == Some(&progress.broker_epoch)
            && (progress.judged(self.settings.durability) >= needed
                || planted!(self.settings.planted, JoinOnUnsyncedEnd) && progress.end >= needed)
    }

    /// A change of members, or a proposal that nobody wants any more and that must be made void by a new partition epoch.
    fn needs_change(&self, leader: &Leader, adopted: &Adopted, wanted: &[BrokerId]) -> bool {
        let same = wanted.len() == adopted.isr.len()
            && wanted.iter().all(|replica| adopted.isr.contains(replica));
        let void = |replica: &BrokerId| !adopted.isr.contains(replica) && !wanted.contains(replica);
        !same || leader.change.proposed.iter().any(void)
    }

    /// Asks for the ISR as it should be, when that differs and nothing is in flight.
    pub(super) fn consider_isr(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let (Role::Leader(leader), Some(adopted)) = (&self.role, &self.adopted) else { return };
        if now < leader.change.next_at {
            return;
        }
        let wanted = self.wanted_isr(leader, adopted, now);
        if !self.needs_change(leader, adopted, &wanted) {
            return;
        }
        let isr = self.with_lives(leader, &wanted);
        let partition_epoch = adopted.partition_epoch;
        let retry_ms = self.settings.alter_retry_ms;
        let partition = self.key;
        if let Role::Leader(leader) = &mut self.role {
            let change = &mut leader.change;
            let Some(isr) = isr else {
                change.next_at = now.plus(retry_ms);
                return;
            };
            change.attempt = change.attempt.saturating_add(1);
            change.in_flight = true;
            change.next_at = now.plus(retry_ms);
            change.proposed.extend(wanted.iter().copied());
            effects.push(Effect::Alter(AlterRequest {
                partition,
                attempt: change.attempt,
                leader_epoch: leader.epoch,
                partition_epoch,
                isr,
            }));
        }
    }

    /// Each member with the life that is meant; none while one of them is not registered: the controller takes it out.
    fn with_lives(
        &self,
        leader: &Leader,
        wanted: &[BrokerId],
    ) -> Option<Vec<(BrokerId, BrokerEpoch)>> {
        wanted
            .iter()
            .map(|&replica| {
                let live = *self.live.get(&replica)?;
                let meant = leader.followers.get(&replica).map_or(live, |p| p.broker_epoch);
                Some((replica, if replica == self.me { live } else { meant }))
            })
            .collect()
    }
}
