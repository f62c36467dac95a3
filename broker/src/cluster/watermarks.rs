//! High watermarks of partitions that other brokers lead, for whoever counts how far groups are behind.
//!
//! Called by: `handle`. Calls: `peers`.
//! Invariant: each leader is asked once; one that does not answer in time is left out. Does not know groups.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use broker_core::ids::{BrokerId, Offset, TopicPartition};
use broker_core::image::Image;
use client_protocol::messages::ListOffsetsRequest;
use client_protocol::messages::list_offsets::{
    LATEST_TIMESTAMP, ListOffsetsPartition, ListOffsetsTopic,
};
use tokio::task::JoinSet;

use super::peers::{Asking, Peers};

const VERSION: i16 = 7;

/// What was found.
pub type Watermarks = HashMap<TopicPartition, Offset>;

pub(super) async fn ask(
    peers: Arc<Peers>,
    image: Arc<Image>,
    me: BrokerId,
    wanted: BTreeSet<TopicPartition>,
    limit: Duration,
) -> Watermarks {
    let mut asking = JoinSet::new();
    for (leader, request) in requests(&image, me, wanted) {
        let (peers, image) = (Arc::clone(&peers), Arc::clone(&image));
        asking.spawn(async move {
            let asking = Asking::again(&request, VERSION);
            let asked = peers.ask(&image, leader, asking, limit);
            // A connection is waited for longer than that.
            tokio::time::timeout(limit, asked).await.ok()?.ok()
        });
    }
    let mut found = HashMap::new();
    while let Some(answered) = asking.join_next().await {
        let Ok(Some(response)) = answered else { continue };
        for topic in response.topics {
            let Some(id) = image.topic(&topic.name).map(|known| known.node.id) else { continue };
            found.extend(topic.partitions.into_iter().filter_map(|one| {
                let key = TopicPartition { topic: id, partition: one.partition_index };
                Some((key, one.offset.filter(|_| one.error_code.is_none())?))
            }));
        }
    }
    found
}

/// What to ask of whom.
fn requests(
    image: &Image,
    me: BrokerId,
    wanted: BTreeSet<TopicPartition>,
) -> BTreeMap<BrokerId, ListOffsetsRequest> {
    let mut requests: BTreeMap<BrokerId, ListOffsetsRequest> = BTreeMap::new();
    for key in wanted {
        let Some((topic, stored)) = image.partition(key) else { continue };
        let Some(leader) = stored.state.leader.filter(|&leader| leader != me) else { continue };
        let topics = &mut requests.entry(leader).or_default().topics;
        let partition = ListOffsetsPartition {
            partition_index: key.partition,
            current_leader_epoch: None,
            timestamp: LATEST_TIMESTAMP,
        };
        // They come ordered by topic.
        match topics.last_mut().filter(|asked| *asked.name == *topic.name) {
            Some(asked) => asked.partitions.push(partition),
            None => topics.push(ListOffsetsTopic {
                name: topic.name.to_string(),
                partitions: vec![partition],
            }),
        }
    }
    requests
}
