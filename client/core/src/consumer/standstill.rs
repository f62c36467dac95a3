//! Which partitions get no answer, since when, and why: for callers that would otherwise see nothing at all.
//!
//! *Called by* the shell. Decides nothing.

use std::fmt;

use client_protocol::BrokerId;

use super::{Consumer, FETCH_SLOTS, QUERY_SLOT};
use crate::metadata::TopicPartition;

/// Why nothing of a partition is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No broker says who leads it.
    NoLeader,
    /// There is no connection to its leader.
    Unreached {
        /// The leader.
        broker: BrokerId,
        /// Where it listens, if that is known.
        address: Option<String>,
    },
    /// Its leader does not answer, or not with records.
    Unanswered(BrokerId),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLeader => write!(f, "no broker leads it, or none says so"),
            Self::Unreached { broker, address: Some(address) } => {
                write!(f, "its leader, broker {broker} at {address}, cannot be reached")
            }
            Self::Unreached { broker, address: None } => {
                write!(f, "nobody says where its leader, broker {broker}, listens")
            }
            Self::Unanswered(broker) => write!(f, "its leader, broker {broker}, does not answer"),
        }
    }
}

/// A partition of which nothing is read, though it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standstill {
    /// The partition.
    pub partition: TopicPartition,
    /// Since when there has been no answer.
    pub since_ms: u64,
    /// Why.
    pub cause: Cause,
}

impl Consumer {
    /// The partitions that are to be read and have not been answered for `longer_than_ms`. An answer without records is
    /// one: leaders give it every `fetch_wait_ms`.
    #[must_use]
    pub fn standstills(&self, now_ms: u64, longer_than_ms: u64) -> Vec<Standstill> {
        let stands = self.partitions.iter().filter_map(|(partition, known)| {
            let since_ms = known.unanswered_since_ms?;
            let is_long = now_ms.saturating_sub(since_ms) > longer_than_ms;
            is_long.then(|| Standstill {
                partition: partition.clone(),
                since_ms,
                cause: self.cause(partition),
            })
        });
        stands.collect()
    }

    fn cause(&self, partition: &TopicPartition) -> Cause {
        let Some(broker) = self.metadata.leader(partition).broker else { return Cause::NoLeader };
        let mut slots = (0..FETCH_SLOTS).chain([QUERY_SLOT]);
        if slots.any(|slot| self.links.is_up((broker, slot))) {
            return Cause::Unanswered(broker);
        }
        let address = self.metadata.address(broker).map(str::to_owned);
        Cause::Unreached { broker, address }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use client_protocol::messages::LeaderIdAndEpoch;
    use client_protocol::{ErrorCode, Offset};

    use super::*;
    use crate::consumer::read::{PartitionAnswer, Position};
    use crate::consumer::{Effect, Settings, Start};
    use crate::model::{self, TOPIC};

    const FROM_START: Position = Position { offset: Offset::ZERO, epoch: None };

    /// A consumer of partition 0 that has asked for metadata at 0.
    fn consumer() -> Consumer {
        let mut core = Consumer::new(Settings::default());
        core.seek(&TopicPartition::new(TOPIC, 0), Start::At(FROM_START));
        core.poll(0, &mut Vec::new());
        core
    }

    fn stands(core: &Consumer, now_ms: u64) -> Vec<(u64, Cause)> {
        let stands = core.standstills(now_ms, 5_000).into_iter();
        stands.map(|stand| (stand.since_ms, stand.cause)).collect()
    }

    #[test]
    fn a_partition_without_leader_stands_still() {
        let mut core = consumer();
        core.metadata_answered(Ok(model::metadata([(None, 1)])), &[model::topic()], 10);
        core.poll(11, &mut Vec::new());
        assert_eq!(stands(&core, 5_000), []);
        assert_eq!(stands(&core, 5_001), [(0, Cause::NoLeader)]);
    }

    #[test]
    fn a_leader_that_is_not_reached_or_silent_is_named() {
        let mut core = consumer();
        core.metadata_answered(Ok(model::metadata([(Some(2), 1)])), &[model::topic()], 10);
        let mut effects = Vec::new();
        core.poll(11, &mut effects);
        let broker = BrokerId::new(2);
        let unreached = Cause::Unreached { broker, address: Some("h:2".to_owned()) };
        assert_eq!(stands(&core, 6_000), [(0, unreached)]);
        let mut slots = effects.into_iter().filter_map(|effect| match effect {
            Effect::Connect { slot, .. } => Some(slot),
            _ => None,
        });
        core.connected(broker, slots.next().unwrap());
        assert_eq!(stands(&core, 6_000), [(0, Cause::Unanswered(broker))]);
    }

    #[test]
    fn an_answer_without_records_is_one() {
        let mut core = consumer();
        core.metadata_answered(Ok(model::metadata([(Some(2), 1)])), &[model::topic()], 10);
        let mut effects = Vec::new();
        for _ in 0..2 {
            core.poll(11, &mut effects);
            for slot in 0..=QUERY_SLOT {
                core.connected(BrokerId::new(2), slot);
            }
        }
        let mut asked = BTreeMap::new();
        for effect in effects {
            if let Effect::Fetch { request, body, .. } = effect {
                asked.insert(request, body);
            }
        }
        let (request, _) = asked.pop_first().unwrap();
        let answer = PartitionAnswer {
            partition: TopicPartition::new(TOPIC, 0),
            code: ErrorCode::None,
            leader: LeaderIdAndEpoch::default(),
            high_watermark: Some(Offset::ZERO),
            log_start: None,
            chunks: Vec::new(),
            epochs: Vec::new(),
            next: None,
            error: None,
        };
        core.fetched(request, Ok(vec![answer]), 7_000);
        core.poll(7_000, &mut Vec::new());
        assert_eq!(stands(&core, 12_000), []);
        assert_eq!(stands(&core, 12_001).len(), 1, "the next answer is late");
    }
}
