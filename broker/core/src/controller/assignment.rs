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

/// What each registered broker bears: as an image says, and what was assigned since.
pub struct Loads(BTreeMap<BrokerId, Load>);

impl Loads {
    /// Walks all partitions of the cluster: once for a request, however many topics it is about.
    #[must_use]
    pub fn of(image: &Image) -> Self {
        let brokers = image.brokers().map(|broker| (broker.id, Load::default()));
        let mut loads = Self(brokers.collect());
        for topic in image.topics() {
            for replicas in topic.node.partitions.values() {
                loads.note(replicas, Place::Cluster);
            }
        }
        loads
    }

    /// Counts an assignment that was chosen by somebody else.
    pub fn add(&mut self, chosen: &Assignment) {
        for replicas in chosen.values() {
            self.note(replicas, Place::Cluster);
        }
    }

    fn note(&mut self, replicas: &[BrokerId], place: Place) {
        for (at, id) in replicas.iter().enumerate() {
            if let Some(load) = self.0.get_mut(id) {
                let (held, led) = match place {
                    Place::Topic => (&mut load.topic_replicas, &mut load.topic_leaders),
                    Place::Cluster => (&mut load.replicas, &mut load.leaders),
                };
                *held = held.saturating_add(1);
                *led = led.saturating_add(usize::from(at == 0));
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Place {
    Topic,
    Cluster,
}

/// Assigns `partitions` times `replication_factor` replicas to the registered brokers, and counts them in `loads`, so that what one
/// request asks for is spread as a whole. The partitions are numbered from behind those that the topic has already (`present`), which
/// count as load within it. The caller has checked that there are enough brokers.
#[must_use]
pub fn assign(
    loads: &mut Loads,
    present: &Assignment,
    partitions: usize,
    replication_factor: usize,
) -> Assignment {
    for load in loads.0.values_mut() {
        (load.topic_leaders, load.topic_replicas) = (0, 0);
    }
    for replicas in present.values() {
        loads.note(replicas, Place::Topic);
    }
    let mut assignment = BTreeMap::new();
    for partition in present.len()..present.len().saturating_add(partitions) {
        let Ok(number) = i32::try_from(partition) else { break };
        let mut replicas: Vec<BrokerId> = Vec::with_capacity(replication_factor);
        let leader = loads
            .0
            .iter()
            .min_by_key(|&(&id, l)| (l.topic_leaders, l.leaders, l.topic_replicas, l.replicas, id))
            .map(|(&id, _)| id);
        replicas.extend(leader);
        while replicas.len() < replication_factor {
            let follower = loads
                .0
                .iter()
                .filter(|(id, _)| !replicas.contains(id))
                .min_by_key(|&(&id, l)| (l.topic_replicas, l.replicas, id))
                .map(|(&id, _)| id);
            let Some(follower) = follower else { break };
            replicas.push(follower);
        }
        loads.note(&replicas, Place::Topic);
        loads.note(&replicas, Place::Cluster);
        assignment.insert(PartitionId::new(number), replicas);
    }
    assignment
}
