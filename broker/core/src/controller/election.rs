//! Who leads a partition and who stays in sync: a pure decision on one partition.
//!
//! *Called by* the tenure for each partition that something happened to. Invariants: a leader is elected from the in-sync replicas that are
//! known to hold what they held (B3, D6); each election and each end of one has an epoch of its own; no write keeps a member that lost
//! something, or came back and was not asked (C5), because the write's zxid would make it look sound.
//!
//! ```text
//! state written ----------- life of the broker began ---------> came back: ask before it may lead
//! life began -------------- state written --------------------> stayed
//! state written ----------- directories lost -----------------> void: membership says nothing any more
//! ```

use crate::ids::{BrokerEpoch, BrokerId, TopicPartition};
use crate::image::{Image, PartitionState, StoredState};
use crate::partition::ReplicaReport;

use super::tenure::{Leaving, Reports};

/// What an in-sync member's membership is worth now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Registered since before the state was written.
    Stayed,
    /// The same, but it is shutting down.
    Leaving,
    /// Came back since; it was asked and holds what it held.
    Kept,
    /// Came back since; it was not asked yet.
    Returned(BrokerEpoch),
    /// Not registered; nothing speaks against what it holds.
    Gone,
    /// It lost what it held, or cut below its durable mark.
    Void,
}

/// What is known beside the partition's own state.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub(super) image: &'a Image,
    pub(super) reports: &'a Reports,
    pub(super) leaving: &'a Leaving,
    /// The topic's records may live in memory only.
    pub(super) memory: bool,
    /// The topic would rather lose records than wait (`unclean.leader.election.enable`).
    pub(super) unclean: bool,
    #[cfg(planted)]
    pub(super) planted: Option<crate::planted::Planted>,
}

/// What to do about a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Nothing.
    Keep,
    /// Write this state.
    Write(PartitionState),
    /// Write this state, whose leader may lack committed records: it holds what it reported.
    WriteUnclean(PartitionState, ReplicaReport),
    /// First ask these what they hold.
    Ask(Vec<(BrokerId, BrokerEpoch)>),
}

impl Facts<'_> {
    /// What the membership of `id` in this state is worth.
    #[must_use]
    pub fn standing(&self, key: TopicPartition, id: BrokerId, stored: &StoredState) -> Standing {
        let Some(identity) = self.image.identity(id) else { return Standing::Void };
        let in_memory = self.memory && !planted!(self.planted, IgnoreBootChange);
        let lost_at = if in_memory { identity.memory_lost_at() } else { identity.lost_at() };
        if stored.written <= lost_at && !planted!(self.planted, ElectWiped) {
            return Standing::Void;
        }
        let Some(broker) = self.image.broker(id) else { return Standing::Gone };
        if broker.epoch.zxid() > stored.written {
            return match self.reports.get(id, broker.epoch, key) {
                None => Standing::Returned(broker.epoch),
                Some(Some(report)) if !report.cut_below_mark => Standing::Kept,
                Some(_) => Standing::Void,
            };
        }
        if self.leaving.get(&id) == Some(&broker.epoch) {
            Standing::Leaving
        } else {
            Standing::Stayed
        }
    }

    /// Decides on one partition.
    #[must_use]
    pub fn decide(
        &self,
        key: TopicPartition,
        stored: &StoredState,
        replicas: &[BrokerId],
    ) -> Decision {
        let isr = &stored.state.isr;
        let members: Vec<(BrokerId, Standing)> =
            isr.iter().map(|&id| (id, self.standing(key, id, stored))).collect();
        let standing = |id: BrokerId| members.iter().find(|m| m.0 == id).map(|m| m.1);
        let leader = stored.state.leader;
        if let Some(leader) = leader.filter(|&id| standing(id) == Some(Standing::Stayed)) {
            return keep_leader(stored, &members, leader);
        }
        let first =
            |wanted: Standing| replicas.iter().copied().find(|&id| standing(id) == Some(wanted));
        if let Some(elected) = first(Standing::Stayed) {
            return elect(stored, &members, elected);
        }
        if let Some(leader) = leader.filter(|&id| standing(id) == Some(Standing::Leaving)) {
            return keep_leader(stored, &members, leader);
        }
        if let Some(elected) = first(Standing::Kept).or_else(|| first(Standing::Leaving)) {
            return elect(stored, &members, elected);
        }
        let ask: Vec<_> = members
            .iter()
            .filter_map(|&(id, standing)| match standing {
                Standing::Returned(epoch) => Some((id, epoch)),
                Standing::Stayed
                | Standing::Leaving
                | Standing::Kept
                | Standing::Gone
                | Standing::Void => None,
            })
            .collect();
        if !ask.is_empty() {
            return Decision::Ask(ask);
        }
        if planted!(self.planted, ElectOutsideIsr)
            && let Some(&alive) = replicas.iter().find(|&&id| self.image.broker(id).is_some())
        {
            return elect(stored, &[(alive, Standing::Stayed)], alive);
        }
        self.last_resort(key, stored, replicas, &members)
    }

    /// The state with the first replica as leader, if it does not lead and nothing is lost by it: it has been in sync all the while.
    #[must_use]
    pub fn prefer(
        &self,
        key: TopicPartition,
        stored: &StoredState,
        replicas: &[BrokerId],
    ) -> Option<PartitionState> {
        let &first = replicas.first()?;
        let isr = &stored.state.isr;
        let members: Vec<(BrokerId, Standing)> =
            isr.iter().map(|&id| (id, self.standing(key, id, stored))).collect();
        if stored.state.leader == Some(first) || !members.contains(&(first, Standing::Stayed)) {
            return None;
        }
        match elect(stored, &members, first) {
            Decision::Write(state) => Some(state),
            Decision::Keep | Decision::WriteUnclean(..) | Decision::Ask(_) => None,
        }
    }

    /// Nobody is eligible (D6). A topic that allows it takes the best of all replicas that are there; one in memory the best of those that were
    /// in sync, once all of them are back; every other one waits.
    fn last_resort(
        &self,
        key: TopicPartition,
        stored: &StoredState,
        replicas: &[BrokerId],
        members: &[(BrokerId, Standing)],
    ) -> Decision {
        let is_back = |&(id, _): &(BrokerId, Standing)| self.image.broker(id).is_some();
        let has_void = members.iter().any(|&(_, standing)| standing == Standing::Void);
        let candidates: Vec<BrokerId> = if self.unclean {
            replicas.to_vec()
        } else if self.memory && has_void {
            if !members.iter().all(is_back) && !planted!(self.planted, TakeAnyOfMemory) {
                // Written anew, the state would no longer tell who lost something.
                return Decision::Keep;
            }
            members.iter().map(|&(id, _)| id).collect()
        } else {
            return go_offline(stored, members);
        };
        let mut ask = Vec::new();
        let mut best: Option<(BrokerId, ReplicaReport)> = None;
        for id in candidates {
            let Some(broker) = self.image.broker(id) else { continue };
            match self.reports.get(id, broker.epoch, key) {
                None => ask.push((id, broker.epoch)),
                Some(Some(report)) if best.is_none_or(|(_, b)| holds_more(&report, &b)) => {
                    best = Some((id, report));
                }
                Some(_) => {}
            }
        }
        if !ask.is_empty() {
            return Decision::Ask(ask);
        }
        let Some((elected, report)) = best else { return go_offline(stored, members) };
        match elect(stored, &[(elected, Standing::Kept)], elected) {
            Decision::Write(state) => Decision::WriteUnclean(state, report),
            other => other,
        }
    }
}

/// Whether one replica's log is the better one to go on with (C5).
fn holds_more(report: &ReplicaReport, than: &ReplicaReport) -> bool {
    (report.last_epoch, report.end_offset) > (than.last_epoch, than.end_offset)
}

/// Those who stay in sync beside `leader`: whoever came back joins again by catching up.
fn staying(members: &[(BrokerId, Standing)], leader: BrokerId) -> Vec<BrokerId> {
    members
        .iter()
        .filter(|&&(id, standing)| id == leader || standing == Standing::Stayed)
        .map(|&(id, _)| id)
        .collect()
}

fn keep_leader(
    stored: &StoredState,
    members: &[(BrokerId, Standing)],
    leader: BrokerId,
) -> Decision {
    let isr = staying(members, leader);
    if isr == stored.state.isr {
        return Decision::Keep;
    }
    Decision::Write(PartitionState { isr, ..stored.state.clone() })
}

fn elect(stored: &StoredState, members: &[(BrokerId, Standing)], elected: BrokerId) -> Decision {
    let Some(leader_epoch) = stored.state.leader_epoch.next() else { return Decision::Keep };
    let isr = staying(members, elected);
    Decision::Write(PartitionState {
        leader: Some(elected),
        leader_epoch,
        isr,
        ..stored.state.clone()
    })
}

/// Nobody may lead. The in-sync list stays the list of those whose return would help; a list of void members only is left alone, so that
/// its zxid goes on telling that they are void.
fn go_offline(stored: &StoredState, members: &[(BrokerId, Standing)]) -> Decision {
    let isr: Vec<_> = members
        .iter()
        .filter(|&&(_, standing)| standing == Standing::Gone)
        .map(|&(id, _)| id)
        .collect();
    if isr.is_empty() || (stored.state.leader.is_none() && isr == stored.state.isr) {
        return Decision::Keep;
    }
    let Some(leader_epoch) = stored.state.leader_epoch.next() else { return Decision::Keep };
    Decision::Write(PartitionState { leader: None, leader_epoch, isr, ..stored.state.clone() })
}
