//! The persistent znodes that have to be there before anything else: Kafka 3.9's, and a folder of ours.
//!
//! Called by: `membership`, with each new session. Calls: the coordinator.
//! Invariant: every step may have been done before, by this broker or another one at the same time; what is there is not written, so that a
//! broker comes back also while the coordinators have no room for writes, and waits where something is missing then.

use bytes::Bytes;
use client_protocol::TopicId;
use coordinator_client::protocol::{CreateMode, ErrorCode};
use coordinator_client::{Client, Error};

use broker_core::ids::ControllerEpoch;
use broker_core::image::{json, path};

use super::asking::NO_ROOM_PAUSE;
use super::random;

/// Folders, each below those that stand before it.
const FOLDERS: [&str; 16] = [
    "/consumers",
    "/cluster",
    "/brokers/ids",
    "/brokers/topics",
    "/brokers/seqid",
    "/config/changes",
    "/config/topics",
    "/config/clients",
    "/config/users",
    "/config/brokers",
    "/config/ips",
    "/admin/delete_topics",
    "/isr_change_notification",
    "/log_dir_event_notification",
    "/latest_producer_id_block",
    "/tidegate/brokers",
];

/// Creates what is missing, and answers with the cluster's id.
///
/// # Errors
/// Those of the session; a lost answer is met with another attempt.
pub(super) async fn found(client: &Client) -> Result<String, Error> {
    loop {
        match found_once(client).await {
            Err(Error::ConnectionLoss) => {}
            Err(error) if error.is(ErrorCode::QuotaExceeded) => {
                tracing::warn!(
                    "the coordinators refuse writes, which the cluster's layout still needs: make room on their disks"
                );
                tokio::time::sleep(NO_ROOM_PAUSE).await;
            }
            result => return result,
        }
    }
}

async fn found_once(client: &Client) -> Result<String, Error> {
    client.create_root().await?;
    for folder in FOLDERS {
        if client.exists(folder).await?.is_none() {
            client.create_all(folder).await?;
        }
    }
    // Epoch 0 is no controller's: the first one raises it.
    let epoch = json::encode_controller_epoch(ControllerEpoch::new(0));
    create_if_absent(client, path::CONTROLLER_EPOCH, epoch.into()).await?;
    let id = random::bytes().map(TopicId::from_bytes).unwrap_or_default().to_string();
    create_if_absent(client, path::CLUSTER_ID, json::encode_cluster_id(&id).into()).await?;
    let (data, _) = client.get_data(path::CLUSTER_ID).await?;
    json::decode_cluster_id(&data.unwrap_or_default()).map_err(|error| {
        tracing::error!(path = path::CLUSTER_ID, "unreadable: {}", error.0);
        Error::UnexpectedAnswer
    })
}

async fn create_if_absent(client: &Client, path: &str, data: Bytes) -> Result<(), Error> {
    if client.exists(path).await?.is_some() {
        return Ok(());
    }
    match client.create(path, Some(data), CreateMode::Persistent).await {
        Err(error) if error.is(ErrorCode::NodeExists) => Ok(()),
        result => result.map(|_| ()),
    }
}
