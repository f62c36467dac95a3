//! Which replicas new partitions get.
//!
//! *Called by* topic creation and growth. Rack-unaware. Invariants: within the topic leaders and replicas differ by at most one between brokers where the
//! replication factor allows it; ties go to the broker with fewer of them in the whole cluster, then to the lower number, so that the same image
//! yields the same assignment.

use std::collections::BTreeMap;

use crate::ids::{BrokerId, PartitionId};
use crate::image::Image;

/// Load of one broker: within the topic and in the whole cluster.
#[derive(Clone, Copy, Default)]
struct Load {
    topic_leaders: usize,
    topic_replicas: usize,
    leaders: usize,
    replicas: usize,
}

/// Replicas by partition, the preferred leader first.
pub type Assignment = BTreeMap<PartitionId, Vec<BrokerId>>;

/// Assigns `partitions` times `replication_factor` replicas to the registered brokers. The partitions are numbered from behind those
/// that the topic has already (`present`), which count as load within it. The caller has checked that there are enough brokers.
#[must_use]
pub fn assign(
    image: &Image,
    present: &Assignment,
    partitions: usize,
    replication_factor: usize,
) -> Assignment {
    let mut loads = cluster_load(image);
    for replicas in present.values() {
        note(&mut loads, replicas, Place::Topic);
    }
    let mut assignment = BTreeMap::new();
    for partition in present.len()..present.len().saturating_add(partitions) {
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
        note(&mut loads, &replicas, Place::Topic);
        note(&mut loads, &replicas, Place::Cluster);
        assignment.insert(PartitionId::new(number), replicas);
    }
    assignment
}

#[derive(Clone, Copy)]
enum Place {
    Topic,
    Cluster,
}

fn note(loads: &mut BTreeMap<BrokerId, Load>, replicas: &[BrokerId], place: Place) {
    for (at, id) in replicas.iter().enumerate() {
        if let Some(load) = loads.get_mut(id) {
            let (held, led) = match place {
                Place::Topic => (&mut load.topic_replicas, &mut load.topic_leaders),
                Place::Cluster => (&mut load.replicas, &mut load.leaders),
            };
            *held = held.saturating_add(1);
            *led = led.saturating_add(usize::from(at == 0));
        }
    }
}

fn cluster_load(image: &Image) -> BTreeMap<BrokerId, Load> {
    let mut loads: BTreeMap<_, _> =
        image.brokers().map(|broker| (broker.id, Load::default())).collect();
    for topic in image.topics() {
        for replicas in topic.node.partitions.values() {
            note(&mut loads, replicas, Place::Cluster);
        }
    }
    loads
}
