//! Elections that were asked for: preferred leaders that come back, by themselves or on request, and unclean ones on request.
//!
//! *Called by* the shell through [`Controller`] (requests, and the balance now and then) and by the tenure. Invariants: the preferred replica
//! leads again only as an in-sync member that has stayed, so that nothing is lost by it; a request is answered when what it asked for
//! is written and seen, or cannot be. An unclean election on request is the operator's word for one partition once (D6).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client_protocol::ErrorCode;

use crate::ids::{BrokerId, PartitionId, TopicPartition};
use crate::image::{Image, StoredState};

use super::message::{Answer, Effect, Elected, RequestId};
use super::tenure::{Controller, Office};

/// What kind of election is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ElectionKind {
    /// The first assigned replica leads, if it is in sync.
    Preferred,
    /// Where nobody leads, the best replica that is there, though records may be lost.
    Unclean,
}

/// A request that is not answered.
#[derive(Clone, Debug)]
pub(super) struct OpenElection {
    kind: ElectionKind,
    waiting: BTreeSet<TopicPartition>,
    results: Vec<Elected>,
}

fn elected(topic: &str, partition: PartitionId, error: ErrorCode) -> Elected {
    Elected { topic: topic.into(), partition, error }
}

/// Why there is nothing to do for a partition; none when there is.
fn refusal(
    kind: ElectionKind,
    stored: &StoredState,
    preferred: Option<BrokerId>,
) -> Option<ErrorCode> {
    let leader = stored.state.leader;
    match kind {
        ElectionKind::Preferred if leader.is_some() && leader == preferred => {
            Some(ErrorCode::ElectionNotNeeded)
        }
        ElectionKind::Unclean if leader.is_some() => Some(ErrorCode::ElectionNotNeeded),
        ElectionKind::Preferred | ElectionKind::Unclean => None,
    }
}

impl Controller {
    /// Elects leaders of these partitions, or of all that need it.
    pub fn elect_leaders(
        &mut self,
        request: RequestId,
        kind: ElectionKind,
        asked: Option<Vec<(String, PartitionId)>>,
        effects: &mut Vec<Effect>,
    ) {
        let image = self.image.clone();
        let Some(office) = self.office.as_mut().filter(|office| office.complete) else {
            let answer = Answer::Elected(Err(ErrorCode::NotController));
            effects.push(Effect::Answer { request, answer });
            return;
        };
        let is_all = asked.is_none();
        let asked = asked.unwrap_or_else(|| all_partitions(&image));
        let mut open = OpenElection { kind, waiting: BTreeSet::new(), results: Vec::new() };
        for (topic, partition) in asked {
            let known = image.topic(&topic).and_then(|known| {
                let preferred = known.node.partitions.get(&partition)?.first().copied();
                let key = TopicPartition { topic: known.node.id, partition };
                Some((key, preferred, image.state(&topic, partition)?))
            });
            let Some((key, preferred, stored)) = known else {
                let error = ErrorCode::UnknownTopicOrPartition;
                open.results.push(elected(&topic, partition, error));
                continue;
            };
            match refusal(kind, stored, preferred) {
                // Of all partitions only those are told of that something was done for.
                Some(_) if is_all => {}
                Some(error) => open.results.push(elected(&topic, partition, error)),
                None => {
                    open.waiting.insert(key);
                    office.want(key, kind);
                }
            }
        }
        office.elections.insert(request, open);
        self.work(effects);
    }

    /// Brings leaders back to brokers that lead too little of what they are preferred for: those where more than `percentage` of it is led by
    /// others.
    pub fn balance(&mut self, percentage: u32, effects: &mut Vec<Effect>) {
        let image = self.image.clone();
        let Some(office) = self.office.as_mut().filter(|office| office.complete) else { return };
        let mut brokers: BTreeMap<BrokerId, (u64, Vec<TopicPartition>)> = BTreeMap::new();
        for topic in image.topics().filter(|topic| !image.is_deleting(&topic.name)) {
            for (partition, stored) in image.states(&topic.name) {
                let replicas = topic.node.partitions.get(&partition);
                let Some(&preferred) = replicas.and_then(|replicas| replicas.first()) else {
                    continue;
                };
                let (all, elsewhere) = brokers.entry(preferred).or_default();
                *all = all.saturating_add(1);
                if stored.state.leader != Some(preferred) {
                    elsewhere.push(TopicPartition { topic: topic.node.id, partition });
                }
            }
        }
        for (broker, (all, elsewhere)) in brokers {
            let missing = u64::try_from(elsewhere.len()).unwrap_or(u64::MAX);
            let is_due = missing.saturating_mul(100) > all.saturating_mul(percentage.into());
            if is_due && image.broker(broker).is_some() && !office.leaving.contains_key(&broker) {
                elsewhere.into_iter().for_each(|key| office.want(key, ElectionKind::Preferred));
            }
        }
        self.work(effects);
    }

    /// Answers what is settled.
    pub(super) fn answer_elections(&mut self, effects: &mut Vec<Effect>) {
        let image = &self.image;
        let Some(office) = &mut self.office else { return };
        for (request, mut open) in std::mem::take(&mut office.elections) {
            for key in std::mem::take(&mut open.waiting) {
                match office.outcome(image, key, open.kind) {
                    Some(Some(done)) => open.results.push(done),
                    // Deleted meanwhile.
                    Some(None) => {}
                    None => {
                        open.waiting.insert(key);
                    }
                }
            }
            if open.waiting.is_empty() {
                let answer = Answer::Elected(Ok(open.results));
                effects.push(Effect::Answer { request, answer });
            } else {
                office.elections.insert(request, open);
            }
        }
    }
}

fn all_partitions(image: &Image) -> Vec<(String, PartitionId)> {
    let of = |name: &Arc<str>| -> Vec<_> {
        image.states(name).map(|(partition, _)| (name.to_string(), partition)).collect()
    };
    image.topics().flat_map(|topic| of(&topic.name)).collect()
}

impl Office {
    fn want(&mut self, key: TopicPartition, kind: ElectionKind) {
        match kind {
            ElectionKind::Preferred => self.preferred.insert(key),
            ElectionKind::Unclean => self.unclean_once.insert(key),
        };
        self.dirty.insert(key);
    }

    /// What came of it; none as long as something is under way. The inner none: the partition is gone.
    fn outcome(
        &self,
        image: &Image,
        key: TopicPartition,
        kind: ElectionKind,
    ) -> Option<Option<Elected>> {
        let Some((topic, stored)) = image.partition(key) else { return Some(None) };
        let is_wanted = match kind {
            ElectionKind::Preferred => self.preferred.contains(&key),
            ElectionKind::Unclean => self.unclean_once.contains(&key),
        };
        if is_wanted || self.busy.contains_key(&key) || self.dirty.contains(&key) {
            return None;
        }
        let leader = stored.state.leader;
        let preferred = topic.node.partitions.get(&key.partition).and_then(|r| r.first()).copied();
        let error = match kind {
            ElectionKind::Preferred if leader.is_some() && leader == preferred => ErrorCode::None,
            ElectionKind::Preferred => ErrorCode::PreferredLeaderNotAvailable,
            ElectionKind::Unclean if leader.is_some() => ErrorCode::None,
            ElectionKind::Unclean => ErrorCode::EligibleLeadersNotAvailable,
        };
        Some(Some(elected(&topic.name, key.partition, error)))
    }
}
