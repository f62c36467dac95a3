//! What a client knows of brokers and leaders, from answers and from notifications.
//!
//! *Called by* `producer` and `consumer`. *Calls* nothing.
//!
//! Invariant: the leader epoch of a partition never goes back, whichever way the news comes; a topic that comes with
//! another id is another topic and begins anew. Knows no socket: it says which address, not whether it answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use client_protocol::messages::{LeaderIdAndEpoch, MetadataResponse, NodeEndpoint};
use client_protocol::{BrokerId, ErrorCode, LeaderEpoch, PartitionId, TopicId};

/// A partition of a topic. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: PartitionId,
}

impl TopicPartition {
    /// Names a partition.
    #[must_use]
    pub fn new(topic: &str, partition: i32) -> Self {
        Self { topic: topic.into(), partition: PartitionId::new(partition) }
    }
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Who leads a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leader {
    /// The broker, if there is one.
    pub broker: Option<BrokerId>,
    /// Its epoch, from brokers that tell.
    pub epoch: Option<LeaderEpoch>,
}

/// News of the cluster that did not come as an answer, but as a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// A broker registered, perhaps anew.
    BrokerUp {
        /// Its number.
        broker: BrokerId,
        /// `host:port`.
        address: String,
    },
    /// A broker's session ended.
    BrokerDown(BrokerId),
    /// A partition has this leader.
    Leader {
        /// The partition.
        partition: TopicPartition,
        /// Its leader.
        leader: Leader,
    },
}

#[derive(Clone, Debug, Default)]
struct Topic {
    id: Option<TopicId>,
    /// By partition number, from 0.
    leaders: Vec<Leader>,
}

/// A view of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    brokers: BTreeMap<BrokerId, String>,
    topics: BTreeMap<Arc<str>, Topic>,
    /// What the cluster said of topics that cannot be used.
    refused: BTreeMap<Arc<str>, ErrorCode>,
}

impl Metadata {
    /// Takes an answer; `asked` are the topics it is about. Gives the partitions whose leader is another one now.
    pub fn adopt(&mut self, answer: MetadataResponse, asked: &[Arc<str>]) -> Vec<TopicPartition> {
        let brokers = answer.brokers.into_iter().map(|broker| {
            let host =
                if broker.host.contains(':') { format!("[{}]", broker.host) } else { broker.host };
            (broker.node_id, format!("{host}:{}", broker.port))
        });
        self.brokers = brokers.collect();
        let mut moved = Vec::new();
        let mut said: Vec<Arc<str>> = Vec::new();
        for topic in answer.topics {
            let Some(name) = topic.name.as_deref() else { continue };
            let name = self.name(name);
            said.push(name.clone());
            if !topic.error_code.is_none() {
                self.refused.insert(name.clone(), topic.error_code);
                if topic.partitions.is_empty() {
                    continue;
                }
            } else {
                self.refused.remove(&name);
            }
            let known = self.topics.entry(name.clone()).or_default();
            if known.id != topic.topic_id && topic.topic_id.is_some() {
                *known = Topic { id: topic.topic_id, leaders: Vec::new() };
            }
            for partition in topic.partitions {
                let leader = Leader { broker: partition.leader_id, epoch: partition.leader_epoch };
                if known.set(partition.partition_index, leader) {
                    let partition = partition.partition_index;
                    moved.push(TopicPartition { topic: name.clone(), partition });
                }
            }
        }
        for name in asked.iter().filter(|name| !said.contains(name)) {
            self.refused.insert(name.clone(), ErrorCode::UnknownTopicOrPartition);
        }
        moved
    }

    /// Takes the leader that a broker named when it refused. Whether it is news.
    pub fn adopt_hint(
        &mut self,
        partition: &TopicPartition,
        hint: &LeaderIdAndEpoch,
        endpoints: &[NodeEndpoint],
    ) -> bool {
        let (Some(broker), Some(epoch)) = (hint.leader_id, hint.leader_epoch) else { return false };
        if let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.node_id == broker) {
            let address = format!("{}:{}", endpoint.host, endpoint.port);
            self.brokers.entry(broker).or_insert(address);
        }
        let leader = Leader { broker: Some(broker), epoch: Some(epoch) };
        self.brokers.contains_key(&broker) && self.set_leader(partition, leader)
    }

    /// Takes a notification. Whether it changes who leads a partition that is known here.
    pub fn adopt_route(&mut self, route: &Route) -> bool {
        match route {
            Route::BrokerUp { broker, address } => {
                self.brokers.entry(*broker).or_insert_with(|| address.clone());
                false
            }
            Route::BrokerDown(_) => false,
            Route::Leader { partition, leader } => self.set_leader(partition, *leader),
        }
    }

    fn set_leader(&mut self, partition: &TopicPartition, leader: Leader) -> bool {
        let Some(topic) = self.topics.get_mut(&partition.topic) else { return false };
        topic.is_known(partition.partition) && topic.set(partition.partition, leader)
    }

    /// The name as it is kept here, so that it is kept once.
    #[must_use]
    pub fn name(&self, name: &str) -> Arc<str> {
        self.topics.get_key_value(name).map_or_else(|| name.into(), |(known, _)| known.clone())
    }

    /// How many partitions a topic has; `None` when it is not known.
    #[must_use]
    pub fn partitions(&self, topic: &str) -> Option<usize> {
        self.topics.get(topic).map(|topic| topic.leaders.len()).filter(|count| *count > 0)
    }

    /// A topic's id, if the cluster tells.
    #[must_use]
    pub fn topic_id(&self, topic: &str) -> Option<TopicId> {
        self.topics.get(topic)?.id
    }

    /// What the last answer said against a topic.
    #[must_use]
    pub fn refusal(&self, topic: &str) -> Option<ErrorCode> {
        self.refused.get(topic).copied()
    }

    /// Forgets what was said against a topic, so that the next answer counts.
    pub fn forget_refusal(&mut self, topic: &str) {
        self.refused.remove(topic);
    }

    /// Who leads a partition, as far as is known.
    #[must_use]
    pub fn leader(&self, partition: &TopicPartition) -> Leader {
        let index = usize::try_from(partition.partition.get()).ok();
        let topic = self.topics.get(&partition.topic);
        topic.and_then(|topic| topic.leaders.get(index?)).copied().unwrap_or_default()
    }

    /// Where a broker listens.
    #[must_use]
    pub fn address(&self, broker: BrokerId) -> Option<&str> {
        self.brokers.get(&broker).map(String::as_str)
    }

    /// All addresses known.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.brokers.values().map(String::as_str)
    }

    /// The topics known, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<str>> {
        self.topics.keys()
    }
}

impl Topic {
    fn is_known(&self, partition: PartitionId) -> bool {
        usize::try_from(partition.get()).is_ok_and(|index| index < self.leaders.len())
    }

    /// Whether that is another leader, or the same one anew.
    fn set(&mut self, partition: PartitionId, leader: Leader) -> bool {
        // A cluster with more partitions in one topic than that is none.
        let Some(index) =
            usize::try_from(partition.get()).ok().filter(|index| *index < PARTITIONS_MAX)
        else {
            return false;
        };
        if index >= self.leaders.len() {
            self.leaders.resize(index.saturating_add(1), Leader::default());
        }
        let Some(known) = self.leaders.get_mut(index) else { return false };
        if known.epoch > leader.epoch && leader.epoch.is_some() || *known == leader {
            return false;
        }
        *known = leader;
        true
    }
}

/// How many partitions of one topic are believed.
const PARTITIONS_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use client_protocol::messages::metadata::{MetadataBroker, MetadataPartition, MetadataTopic};

    fn answer(leader: i32, epoch: i32) -> MetadataResponse {
        let partition = MetadataPartition {
            leader_id: Some(BrokerId::new(leader)),
            leader_epoch: Some(LeaderEpoch::new(epoch)),
            ..MetadataPartition::default()
        };
        let broker = |id| MetadataBroker {
            node_id: BrokerId::new(id),
            host: "h".to_owned(),
            port: 9000 + id,
            ..MetadataBroker::default()
        };
        MetadataResponse {
            brokers: vec![broker(1), broker(2)],
            topics: vec![MetadataTopic {
                name: Some("t".to_owned()),
                partitions: vec![partition],
                ..MetadataTopic::default()
            }],
            ..MetadataResponse::default()
        }
    }

    fn leads(metadata: &Metadata) -> (Option<i32>, Option<i32>) {
        let leader = metadata.leader(&TopicPartition::new("t", 0));
        (leader.broker.map(BrokerId::get), leader.epoch.map(LeaderEpoch::get))
    }

    #[test]
    fn a_leader_epoch_never_goes_back() {
        let mut metadata = Metadata::default();
        let partition = TopicPartition::new("t", 0);
        assert_eq!(metadata.adopt(answer(1, 5), &[]), std::slice::from_ref(&partition));
        let leader = Leader { broker: Some(BrokerId::new(2)), epoch: Some(LeaderEpoch::new(6)) };
        let route = Route::Leader { partition: partition.clone(), leader };
        assert!(metadata.adopt_route(&route));
        assert!(!metadata.adopt_route(&route), "no news");
        assert_eq!(metadata.adopt(answer(1, 5), &[]), []);
        assert_eq!(leads(&metadata), (Some(2), Some(6)));
        assert_eq!(metadata.adopt(answer(1, 7), &[]), [partition]);
        assert_eq!(leads(&metadata), (Some(1), Some(7)));
        assert_eq!(metadata.address(BrokerId::new(2)), Some("h:9002"));
    }

    #[test]
    fn a_topic_made_anew_begins_with_its_own_epochs() {
        let mut metadata = Metadata::default();
        let mut first = answer(1, 5);
        first.topics[0].topic_id = Some(TopicId::from_bytes([1; 16]));
        metadata.adopt(first, &[]);
        let mut second = answer(2, 0);
        second.topics[0].topic_id = Some(TopicId::from_bytes([2; 16]));
        metadata.adopt(second, &[]);
        assert_eq!(leads(&metadata), (Some(2), Some(0)));
    }

    #[test]
    fn topics_the_cluster_does_not_have_are_refused_until_it_has() {
        let mut metadata = Metadata::default();
        metadata.adopt(MetadataResponse::default(), &["t".into()]);
        assert_eq!(metadata.refusal("t"), Some(ErrorCode::UnknownTopicOrPartition));
        assert_eq!(metadata.partitions("t"), None);
        metadata.adopt(answer(1, 0), &["t".into()]);
        assert_eq!((metadata.refusal("t"), metadata.partitions("t")), (None, Some(1)));
    }

    #[test]
    fn a_leader_named_in_a_refusal_counts_when_it_is_newer() {
        let mut metadata = Metadata::default();
        metadata.adopt(answer(1, 5), &[]);
        let partition = TopicPartition::new("t", 0);
        let hint = |broker, epoch| LeaderIdAndEpoch {
            leader_id: Some(BrokerId::new(broker)),
            leader_epoch: Some(LeaderEpoch::new(epoch)),
        };
        assert!(!metadata.adopt_hint(&partition, &hint(2, 4), &[]));
        assert!(!metadata.adopt_hint(&partition, &hint(3, 6), &[]), "nobody knows where 3 is");
        assert!(metadata.adopt_hint(&partition, &hint(2, 6), &[]));
        assert_eq!(leads(&metadata), (Some(2), Some(6)));
    }
}
