//! Which replicas a new topic's partitions get.
//!
//! *Called by* topic creation. Rack-unaware. Invariants: within the topic leaders and replicas differ by at most one between brokers where the
//! replication factor allows it; ties go to the broker with fewer of them in the whole cluster, then to the lower number, so that the same image
//! yields the same assignment.

use std::collections::BTreeMap;

use crate::ids::{BrokerId, PartitionId};
use crate::image::Image;

/// Load of one broker: within the new topic and in the whole cluster.
#[derive(Clone, Copy, Default)]
struct Load {
    topic_leaders: usize,
    topic_replicas: usize,
    leaders: usize,
    replicas: usize,
}

/// Assigns `partitions` times `replication_factor` replicas to the registered brokers, the preferred leader first.
/// The caller has checked that there are enough brokers.
#[must_use]
pub fn assign(
    image: &Image,
    partitions: usize,
    replication_factor: usize,
) -> BTreeMap<PartitionId, Vec<BrokerId>> {
    let mut loads = cluster_load(image);
    let mut assignment = BTreeMap::new();
    for partition in 0..partitions {
        let Ok(number) = i32::try_from(partition) else { break };
        let mut replicas: Vec<BrokerId> = Vec::with_capacity(replication_factor);
        let leader = loads
            .iter()
            .min_by_key(|&(&id, l)| (l.topic_leaders, l.leaders, l.topic_replicas, l.replicas, id))
            .map(|(&id, _)| id);
        replicas.extend(leader);
        while replicas.len() < replication_factor {
            let follower = loads
                .iter()
                .filter(|(id, _)| !replicas.contains(id))
                .min_by_key(|&(&id, l)| (l.topic_replicas, l.replicas, id))
                .map(|(&id, _)| id);
            let Some(follower) = follower else { break };
            replicas.push(follower);
        }
        note(&mut loads, &replicas, true);
        assignment.insert(PartitionId::new(number), replicas);
    }
    assignment
}

fn note(loads: &mut BTreeMap<BrokerId, Load>, replicas: &[BrokerId], topic: bool) {
    let one_if_topic = usize::from(topic);
    for (at, id) in replicas.iter().enumerate() {
        if let Some(load) = loads.get_mut(id) {
            load.replicas = load.replicas.saturating_add(1);
            load.topic_replicas = load.topic_replicas.saturating_add(one_if_topic);
            if at == 0 {
                load.leaders = load.leaders.saturating_add(1);
                load.topic_leaders = load.topic_leaders.saturating_add(one_if_topic);
            }
        }
    }
}

fn cluster_load(image: &Image) -> BTreeMap<BrokerId, Load> {
    let mut loads: BTreeMap<_, _> =
        image.brokers().map(|broker| (broker.id, Load::default())).collect();
    for topic in image.topics() {
        for replicas in topic.node.partitions.values() {
            note(&mut loads, replicas, false);
        }
    }
    loads
}
