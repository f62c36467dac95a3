//! Which partitions take nothing, since when, and why: for callers that would otherwise see nothing until time runs out.
//!
//! *Called by* the shell. Decides nothing.

use super::{IdentityState, Link, Producer, Topic};
use crate::metadata::TopicPartition;

/// A partition whose oldest records wait longer than usual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standstill {
    /// The partition.
    pub partition: TopicPartition,
    /// When the first of them was taken.
    pub since_ms: u64,
    /// What stands in the way, in words.
    pub reason: String,
}

impl<T: Clone> Producer<T> {
    /// The partitions whose oldest batch was begun more than `longer_than_ms` ago.
    #[must_use]
    pub fn standstills(&self, now_ms: u64, longer_than_ms: u64) -> Vec<Standstill> {
        let mut found = Vec::new();
        for (name, topic) in &self.topics {
            for partition in topic.used_partitions() {
                let partition = TopicPartition { topic: name.clone(), partition };
                found.extend(self.standstill(topic, partition, (now_ms, longer_than_ms)));
            }
        }
        found
    }

    fn standstill(
        &self,
        topic: &Topic<T>,
        partition: TopicPartition,
        (now_ms, longer_than_ms): (u64, u64),
    ) -> Option<Standstill> {
        let lane = topic.lane(partition.partition)?;
        let batch = lane.unsettled.front().or(lane.ready.front())?;
        let since_ms = batch.created_ms;
        if now_ms.saturating_sub(since_ms) <= longer_than_ms {
            return None;
        }
        let leader = self.metadata.leader(&partition).broker;
        let is_up = leader.is_some_and(|broker| matches!(self.links.get(&broker), Some(Link::Up)));
        let reason = match (leader, &batch.last_failure) {
            (None, _) => "no broker leads it, or none says so".to_owned(),
            (Some(broker), _) if !is_up => match self.metadata.address(broker) {
                Some(address) => {
                    format!("its leader, broker {broker} at {address}, cannot be reached")
                }
                None => format!("nobody says where its leader, broker {broker}, listens"),
            },
            (Some(_), Some(last)) => last.clone(),
            (Some(_), None) if matches!(self.identity, IdentityState::Known(..)) => {
                "its leader does not answer".to_owned()
            }
            (Some(_), None) if self.settings.idempotent => {
                "no broker gives a producer id".to_owned()
            }
            (Some(_), None) => "its leader does not answer".to_owned(),
        };
        Some(Standstill { partition, since_ms, reason })
    }
}
