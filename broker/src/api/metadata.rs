//! Metadata (key 3, versions 0-12): brokers, topics, leaders, all as of one image.
//!
//! 0: an empty list asks for all topics; later null does. 4: the client may forbid creation.
//! 10: topic ids; 12: topics may be asked for by id. A missing topic that may be created is
//! answered with LEADER_NOT_AVAILABLE, which makes clients ask again. Only clients' addresses are
//! shown. A name asked for twice is answered once, so that a short request cannot make a long
//! answer.
//!
//! While no broker is registered, as when all have lost their sessions and open new ones, the one that answers
//! shows itself: librdkafka (from 2.12 on) believes an answer without brokers, forgets all of them and never
//! asks again.

use std::collections::BTreeSet;
use std::sync::Arc;

use broker_core::image::{Broker, Image, Topic};
use client_protocol::messages::metadata::{
    MetadataBroker, MetadataPartition, MetadataRequestTopic, MetadataTopic,
};
use client_protocol::messages::{AUTHORIZED_OPERATIONS_OMITTED, MetadataRequest, MetadataResponse};
use client_protocol::{BrokerId, ErrorCode, PartitionId, TopicId};

use super::auto_create::AutoCreate;
use super::call::Call;
use super::shared::{CLUSTER_OPERATIONS, Shared, TOPIC_OPERATIONS, public_endpoint};
use super::topic_name;
use crate::replica::Contacts;
use crate::response::Dispatch;

/// What an answer is made from.
struct View<'a> {
    image: &'a Image,
    contacts: &'a Contacts,
}

pub(super) fn handle(shared: &Arc<Shared>, call: &Call<'_>, request: &MetadataRequest) -> Dispatch {
    let image = shared.image();
    let view = View { image: &image, contacts: &shared.contacts };
    let topic_operations =
        operations(request.include_topic_authorized_operations, TOPIC_OPERATIONS);
    let mut topics = match &request.topics {
        Some(wanted) if !request.wants_all_topics(call.version) => {
            wanted_topics(shared, &view, request, wanted)
        }
        Some(_) | None => image.topics().map(|topic| describe(&view, topic)).collect(),
    };
    for topic in &mut topics {
        topic.topic_authorized_operations = topic_operations;
    }
    call.respond(&MetadataResponse {
        throttle_time_ms: 0,
        brokers: brokers(shared, &image),
        cluster_id: image.cluster_id().map(str::to_owned),
        controller_id: Some(shared.controller(&image)),
        topics,
        cluster_authorized_operations: operations(
            request.include_cluster_authorized_operations,
            CLUSTER_OPERATIONS,
        ),
    })
}

fn operations(asked: bool, operations: i32) -> i32 {
    if asked { operations } else { AUTHORIZED_OPERATIONS_OMITTED }
}

fn brokers(shared: &Shared, image: &Image) -> Vec<MetadataBroker> {
    let described: Vec<_> = image.brokers().filter_map(describe_broker).collect();
    if described.is_empty() {
        return shared.me.iter().filter_map(describe_broker).collect();
    }
    described
}

fn describe_broker(broker: &Broker) -> Option<MetadataBroker> {
    let endpoint = public_endpoint(broker)?;
    Some(MetadataBroker {
        node_id: broker.id,
        host: endpoint.host.clone(),
        port: i32::from(endpoint.port),
        rack: broker.registration.rack.clone(),
    })
}

fn wanted_topics(
    shared: &Arc<Shared>,
    view: &View<'_>,
    request: &MetadataRequest,
    wanted: &[MetadataRequestTopic],
) -> Vec<MetadataTopic> {
    let may_create = request.allow_auto_topic_creation && shared.config.auto_create_topics;
    let mut seen: BTreeSet<(Option<&str>, Option<TopicId>)> = BTreeSet::new();
    let mut topics = Vec::new();
    let mut missing = Vec::new();
    for topic in wanted {
        let name = topic.name.as_deref();
        if !seen.insert((name, topic.topic_id)) {
            continue;
        }
        topics.push(match (name, topic.topic_id) {
            (Some(name), _) => match view.image.topic(name) {
                Some(topic) => describe(view, topic),
                None if topic_name::check(name).is_err() => {
                    absent(Some(name), None, ErrorCode::InvalidTopicException)
                }
                None if may_create && !topic_name::is_internal(name) => {
                    missing.push(name.to_owned());
                    absent(Some(name), None, ErrorCode::LeaderNotAvailable)
                }
                None => absent(Some(name), None, ErrorCode::UnknownTopicOrPartition),
            },
            (None, Some(id)) => match view.image.topic_by_id(id) {
                Some(topic) => describe(view, topic),
                None => absent(None, Some(id), ErrorCode::UnknownTopicId),
            },
            (None, None) => absent(None, None, ErrorCode::InvalidRequest),
        });
    }
    AutoCreate::start_named(shared, missing);
    topics
}

fn absent(name: Option<&str>, id: Option<TopicId>, error_code: ErrorCode) -> MetadataTopic {
    MetadataTopic { error_code, name: name.map(str::to_owned), topic_id: id, ..Default::default() }
}

fn describe(view: &View<'_>, topic: &Topic) -> MetadataTopic {
    let partitions = &topic.node.partitions;
    MetadataTopic {
        name: Some(topic.name.to_string()),
        topic_id: Some(topic.node.id),
        is_internal: topic_name::is_internal(&topic.name),
        partitions: partitions
            .iter()
            .map(|(partition, replicas)| describe_partition(view, topic, *partition, replicas))
            .collect(),
        ..Default::default()
    }
}

fn describe_partition(
    view: &View<'_>,
    topic: &Topic,
    partition: PartitionId,
    replicas: &[BrokerId],
) -> MetadataPartition {
    let image = view.image;
    let state = image.state(&topic.name, partition).map(|stored| &stored.state);
    // A leader that clients cannot reach is none to them, and one that may have died just now would
    // only be tried in vain.
    let leader = image
        .leader(&topic.name, partition)
        .filter(|leader| public_endpoint(leader).is_some() && !view.contacts.is_lost(leader.id));
    let error_code = if leader.is_some() { ErrorCode::None } else { ErrorCode::LeaderNotAvailable };
    MetadataPartition {
        error_code,
        partition_index: partition,
        leader_id: leader.map(|leader| leader.id),
        leader_epoch: state.map(|state| state.leader_epoch),
        replica_nodes: replicas.to_vec(),
        isr_nodes: state.map(|state| state.isr.clone()).unwrap_or_default(),
        offline_replicas: replicas
            .iter()
            .copied()
            .filter(|replica| image.broker(*replica).is_none())
            .collect(),
    }
}
