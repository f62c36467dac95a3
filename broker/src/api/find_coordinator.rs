//! FindCoordinator (key 10, versions 0-4): which broker coordinates a group or a transaction.
//!
//! A group's coordinator is the leader of the group's partition of `__consumer_offsets`. That topic is
//! created when it is first asked for and enough brokers are there for its replicas; until it is led,
//! the answer is COORDINATOR_NOT_AVAILABLE, which clients take as "not now", with the reason. There are no
//! transactions yet: a transactional id is answered with an error that clients report at once, as
//! waiting would not help. Version 4 asks for many keys.

use std::sync::Arc;
use std::time::Instant;

use broker_core::group::{OFFSETS_TOPIC, OffsetsTopic, offsets_topic};
use broker_core::image::Image;
use client_protocol::ErrorCode;
use client_protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfig};
use client_protocol::messages::find_coordinator::{
    Coordinator, KEY_TYPE_GROUP, KEY_TYPE_TRANSACTION,
};
use client_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use tracing::warn;

use super::auto_create::AutoCreate;
use super::call::Call;
use super::shared::{Shared, public_endpoint};
use crate::groups::Groups;
use crate::response::Dispatch;

/// First version that asks for many keys.
const MANY_KEYS_FROM: i16 = 4;
/// "No port", where there is no coordinator.
const NO_PORT: i32 = -1;

pub(super) fn handle(
    shared: &Arc<Shared>,
    call: &Call<'_>,
    request: &FindCoordinatorRequest,
) -> Dispatch {
    let image = shared.image();
    let missing = match request.key_type {
        KEY_TYPE_GROUP => create_topic(shared, &image),
        _ => None,
    };
    let find = |key: &String| {
        let mut found = find(shared, &image, request.key_type, key);
        if missing.is_some() && !found.error_code.is_none() {
            found.error_message.clone_from(&missing);
        }
        found
    };
    if call.version < MANY_KEYS_FROM {
        let found = find(&request.key);
        return call.respond(&FindCoordinatorResponse {
            error_code: found.error_code,
            error_message: found.error_message,
            node_id: found.node_id,
            host: found.host,
            port: found.port,
            ..Default::default()
        });
    }
    let coordinators = request.coordinator_keys.iter().map(find).collect();
    call.respond(&FindCoordinatorResponse { coordinators, ..Default::default() })
}

fn find(shared: &Shared, image: &Image, key_type: i8, key: &str) -> Coordinator {
    let refused = |error_code: ErrorCode| Coordinator {
        key: key.to_owned(),
        port: NO_PORT,
        error_code,
        error_message: Some(error_code.message().to_owned()),
        ..Default::default()
    };
    match key_type {
        KEY_TYPE_GROUP => {}
        KEY_TYPE_TRANSACTION => return refused(ErrorCode::TransactionalIdAuthorizationFailed),
        _ => return refused(ErrorCode::InvalidRequest),
    }
    let partition = Groups::partition_of(image, key);
    let leader = partition.and_then(|partition| image.leader(OFFSETS_TOPIC, partition));
    // One that may have died just now would only be tried in vain.
    let leader = leader.filter(|leader| !shared.contacts.is_lost(leader.id));
    match leader.and_then(|leader| Some((leader, public_endpoint(leader)?))) {
        Some((leader, endpoint)) => Coordinator {
            key: key.to_owned(),
            node_id: Some(leader.id),
            host: endpoint.host.clone(),
            port: i32::from(endpoint.port),
            ..Default::default()
        },
        None => refused(ErrorCode::CoordinatorNotAvailable),
    }
}

/// Asks for the topic where it is missing and can be had; else why it cannot, for humans.
fn create_topic(shared: &Arc<Shared>, image: &Image) -> Option<String> {
    if image.topic(OFFSETS_TOPIC).is_some() {
        return None;
    }
    let config = shared.config.offsets_topic;
    let replication_factor = match offsets_topic(image, config.replication_factor) {
        OffsetsTopic::Create(replicas) => replicas,
        OffsetsTopic::Wait(why) => {
            if shared.auto_create.may_tell(Instant::now()) {
                warn!("no groups yet: {why}");
            }
            return Some(why);
        }
    };
    let setting = |name: &str, value: String| CreatableTopicConfig {
        name: name.to_owned(),
        value: Some(value),
    };
    let topic = CreatableTopic {
        name: OFFSETS_TOPIC.to_owned(),
        num_partitions: config.partitions,
        replication_factor,
        configs: vec![
            setting("cleanup.policy", "compact".to_owned()),
            setting("compression.type", "producer".to_owned()),
            setting("segment.bytes", config.segment_bytes.to_string()),
        ],
        ..Default::default()
    };
    AutoCreate::start(shared, vec![topic]);
    None
}
