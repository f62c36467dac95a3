//! The znodes' JSON: Kafka 3.9's, and `/tidegate/brokers/N` of ours.
//!
//! *Called by* the feed (decode) and by whoever writes a node (encode). Fields are written in the order that Kafka 3.9 writes them, so that
//! the bytes are the same; when read, any order and unknown fields are taken. Invariant: `decode(encode(x)) == x`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{
    BrokerId, ControllerEpoch, DirectoryId, Incarnation, LeaderEpoch, PartitionId, TopicId, Zxid,
};

/// A node's data that does not say what it should.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct MalformedNode(pub String);

impl From<serde_json::Error> for MalformedNode {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

fn malformed(what: &str) -> MalformedNode {
    MalformedNode(what.to_owned())
}

fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    // Only maps with non-string keys or a failing Serialize can fail, and there are none here.
    serde_json::to_vec(value).unwrap_or_default()
}

/// State of one partition, as its state znode says. Written by the controller alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionState {
    /// Who leads; none when nobody may.
    pub leader: Option<BrokerId>,
    /// Epoch of that leadership.
    pub leader_epoch: LeaderEpoch,
    /// Which controller wrote it.
    pub controller_epoch: ControllerEpoch,
    /// In-sync replicas.
    pub isr: Vec<BrokerId>,
    /// The leader was elected uncleanly and has not repaired the partition yet.
    pub recovering: bool,
}

#[derive(Serialize, Deserialize)]
struct StateJson {
    controller_epoch: i32,
    leader: i32,
    version: i32,
    leader_epoch: i32,
    isr: Vec<i32>,
    #[serde(default, skip_serializing_if = "is_zero")]
    leader_recovery_state: u8,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(value: &u8) -> bool {
    *value == 0
}

impl PartitionState {
    /// The state znode's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_bytes(&StateJson {
            controller_epoch: self.controller_epoch.get(),
            leader: self.leader.map_or(-1, BrokerId::get),
            version: 1,
            leader_epoch: self.leader_epoch.get(),
            isr: self.isr.iter().map(|b| b.get()).collect(),
            leader_recovery_state: u8::from(self.recovering),
        })
    }

    /// Reads a state znode.
    ///
    /// # Errors
    /// The bytes are not such JSON.
    pub fn decode(data: &[u8]) -> Result<Self, MalformedNode> {
        let json: StateJson = serde_json::from_slice(data)?;
        Ok(Self {
            leader: (json.leader >= 0).then(|| BrokerId::new(json.leader)),
            leader_epoch: LeaderEpoch::new(json.leader_epoch),
            controller_epoch: ControllerEpoch::new(json.controller_epoch),
            isr: json.isr.into_iter().map(BrokerId::new).collect(),
            recovering: json.leader_recovery_state != 0,
        })
    }
}

/// A topic's id and assignment, as `/brokers/topics/T` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicNode {
    /// The topic's id.
    pub id: TopicId,
    /// Replicas of each partition, the preferred leader first.
    pub partitions: BTreeMap<PartitionId, Vec<BrokerId>>,
}

#[derive(Serialize, Deserialize)]
struct TopicJson {
    partitions: BTreeMap<String, Vec<i32>>,
    topic_id: String,
    #[serde(default)]
    adding_replicas: BTreeMap<String, Vec<i32>>,
    #[serde(default)]
    removing_replicas: BTreeMap<String, Vec<i32>>,
    version: i32,
}

impl TopicNode {
    /// The topic znode's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let partitions = self
            .partitions
            .iter()
            .map(|(p, replicas)| (p.get().to_string(), replicas.iter().map(|b| b.get()).collect()))
            .collect();
        to_bytes(&TopicJson {
            partitions,
            topic_id: self.id.to_string(),
            adding_replicas: BTreeMap::new(),
            removing_replicas: BTreeMap::new(),
            version: 3,
        })
    }

    /// Reads a topic znode.
    ///
    /// # Errors
    /// The bytes are not such JSON, or the topic has no id (written by Kafka before 2.8).
    pub fn decode(data: &[u8]) -> Result<Self, MalformedNode> {
        let json: TopicJson = serde_json::from_slice(data)?;
        let id = json.topic_id.parse().map_err(|_| malformed("topic_id is not an id"))?;
        let mut partitions = BTreeMap::new();
        for (partition, replicas) in json.partitions {
            let number: i32 =
                partition.parse().map_err(|_| malformed("partition is not a number"))?;
            let replicas: Vec<_> = replicas.into_iter().map(BrokerId::new).collect();
            if number < 0 || replicas.is_empty() {
                return Err(malformed("partition without number or replicas"));
            }
            partitions.insert(PartitionId::new(number), replicas);
        }
        Ok(Self { id, partitions })
    }
}

/// Where a broker listens under one name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Name of the listener.
    pub listener: String,
    /// Security protocol of the listener, as in `PLAINTEXT`.
    pub protocol: String,
    /// Host to connect to, without brackets.
    pub host: String,
    /// Port to connect to.
    pub port: u16,
}

/// A broker's registration, as `/brokers/ids/N` says (version 5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerRegistration {
    /// Listeners, the public one first.
    pub endpoints: Vec<Endpoint>,
    /// Rack, when one is set.
    pub rack: Option<String>,
    /// When it was written, wall clock, milliseconds.
    pub timestamp_ms: i64,
}

#[derive(Serialize, Deserialize)]
struct BrokerJson {
    #[serde(default)]
    features: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    listener_security_protocol_map: BTreeMap<String, String>,
    endpoints: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rack: Option<String>,
    jmx_port: i32,
    port: i32,
    host: Option<String>,
    version: i32,
    timestamp: String,
}

impl BrokerRegistration {
    /// The endpoint of this listener.
    #[must_use]
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|e| e.listener == listener)
    }

    /// The registration znode's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let plain = self.endpoints.iter().find(|e| e.protocol == "PLAINTEXT");
        let protocols = self.endpoints.iter().map(|e| (e.listener.clone(), e.protocol.clone()));
        to_bytes(&BrokerJson {
            features: BTreeMap::new(),
            listener_security_protocol_map: protocols.collect(),
            endpoints: self.endpoints.iter().map(endpoint_text).collect(),
            rack: self.rack.clone(),
            jmx_port: -1,
            port: plain.map_or(-1, |e| i32::from(e.port)),
            host: plain.map(|e| e.host.clone()),
            version: 5,
            timestamp: self.timestamp_ms.to_string(),
        })
    }

    /// Reads a registration znode.
    ///
    /// # Errors
    /// The bytes are not such JSON, or an endpoint is not `NAME://host:port`.
    pub fn decode(data: &[u8]) -> Result<Self, MalformedNode> {
        let json: BrokerJson = serde_json::from_slice(data)?;
        let mut endpoints = Vec::new();
        for text in &json.endpoints {
            let mut endpoint = parse_endpoint(text)
                .ok_or_else(|| malformed("endpoint is not NAME://host:port"))?;
            // A listener that the map leaves out is named after its protocol, as Kafka had it before listener names.
            if let Some(protocol) = json.listener_security_protocol_map.get(&endpoint.listener) {
                endpoint.protocol.clone_from(protocol);
            }
            endpoints.push(endpoint);
        }
        let timestamp_ms = json.timestamp.parse().unwrap_or(0);
        Ok(Self { endpoints, rack: json.rack, timestamp_ms })
    }
}

fn endpoint_text(endpoint: &Endpoint) -> String {
    if endpoint.host.contains(':') {
        format!("{}://[{}]:{}", endpoint.listener, endpoint.host, endpoint.port)
    } else {
        format!("{}://{}:{}", endpoint.listener, endpoint.host, endpoint.port)
    }
}

fn parse_endpoint(text: &str) -> Option<Endpoint> {
    let (listener, address) = text.split_once("://")?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    Some(Endpoint {
        listener: listener.to_owned(),
        protocol: listener.to_owned(),
        host: host.to_owned(),
        port: port.parse().ok()?,
    })
}

/// A broker's identity over restarts, as `/tidegate/brokers/N` says (safety.md B1, B3, B4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Which start of the broker wrote this.
    pub incarnation: Incarnation,
    /// Its log directories.
    pub directories: Vec<DirectoryId>,
    /// This start found a directory of the former one gone, wiped or from a backup.
    pub lost: bool,
    /// A former start did; the zxid of that start's write. Zero: never.
    pub lost_zxid: Zxid,
    /// This start follows an unclean stop of the machine.
    pub boot_changed: bool,
    /// A former start did; the zxid of that start's write. Zero: never.
    pub boot_changed_zxid: Zxid,
}

#[derive(Serialize, Deserialize)]
struct IdentityJson {
    version: i32,
    incarnation: u64,
    directories: Vec<String>,
    #[serde(default)]
    lost: bool,
    #[serde(default)]
    lost_zxid: i64,
    #[serde(default)]
    boot_changed: bool,
    #[serde(default)]
    boot_changed_zxid: i64,
}

impl Identity {
    /// The identity znode's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_bytes(&IdentityJson {
            version: 1,
            incarnation: self.incarnation.get(),
            directories: self.directories.iter().map(ToString::to_string).collect(),
            lost: self.lost,
            lost_zxid: self.lost_zxid.get(),
            boot_changed: self.boot_changed,
            boot_changed_zxid: self.boot_changed_zxid.get(),
        })
    }

    /// Reads an identity znode.
    ///
    /// # Errors
    /// The bytes are not such JSON.
    pub fn decode(data: &[u8]) -> Result<Self, MalformedNode> {
        let json: IdentityJson = serde_json::from_slice(data)?;
        let directories: Option<Vec<_>> =
            json.directories.iter().map(|text| DirectoryId::parse(text)).collect();
        Ok(Self {
            incarnation: Incarnation::new(json.incarnation),
            directories: directories.ok_or_else(|| malformed("directory is not an id"))?,
            lost: json.lost,
            lost_zxid: Zxid::new(json.lost_zxid),
            boot_changed: json.boot_changed,
            boot_changed_zxid: Zxid::new(json.boot_changed_zxid),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct ControllerJson {
    version: i32,
    brokerid: i32,
    timestamp: String,
    #[serde(rename = "kraftControllerEpoch", default = "no_kraft_epoch")]
    kraft_controller_epoch: i32,
}

fn no_kraft_epoch() -> i32 {
    -1
}

/// Bytes of `/controller`. `timestamp_ms`: wall clock.
#[must_use]
pub fn encode_controller(broker: BrokerId, timestamp_ms: i64) -> Vec<u8> {
    to_bytes(&ControllerJson {
        version: 2,
        brokerid: broker.get(),
        timestamp: timestamp_ms.to_string(),
        kraft_controller_epoch: -1,
    })
}

/// Who holds `/controller`.
///
/// # Errors
/// The bytes are not such JSON.
pub fn decode_controller(data: &[u8]) -> Result<BrokerId, MalformedNode> {
    let json: ControllerJson = serde_json::from_slice(data)?;
    Ok(BrokerId::new(json.brokerid))
}

/// Bytes of `/controller_epoch`.
#[must_use]
pub fn encode_controller_epoch(epoch: ControllerEpoch) -> Vec<u8> {
    epoch.get().to_string().into_bytes()
}

/// Reads `/controller_epoch`.
///
/// # Errors
/// The bytes are not a decimal number.
pub fn decode_controller_epoch(data: &[u8]) -> Result<ControllerEpoch, MalformedNode> {
    let text = std::str::from_utf8(data).map_err(|_| malformed("not UTF-8"))?;
    text.trim().parse().map(ControllerEpoch::new).map_err(|_| malformed("not a number"))
}

#[derive(Serialize, Deserialize)]
struct ClusterIdJson {
    version: String,
    id: String,
}

/// Bytes of `/cluster/id`.
#[must_use]
pub fn encode_cluster_id(id: &str) -> Vec<u8> {
    to_bytes(&ClusterIdJson { version: "1".to_owned(), id: id.to_owned() })
}

/// Reads `/cluster/id`.
///
/// # Errors
/// The bytes are not such JSON.
pub fn decode_cluster_id(data: &[u8]) -> Result<String, MalformedNode> {
    let json: ClusterIdJson = serde_json::from_slice(data)?;
    Ok(json.id)
}

#[derive(Serialize, Deserialize)]
struct ConfigJson {
    version: i32,
    #[serde(default)]
    config: BTreeMap<String, String>,
}

/// Bytes of `/config/topics/T`.
#[must_use]
pub fn encode_config(config: &BTreeMap<String, String>) -> Vec<u8> {
    to_bytes(&ConfigJson { version: 1, config: config.clone() })
}

/// Reads `/config/topics/T`.
///
/// # Errors
/// The bytes are not such JSON.
pub fn decode_config(data: &[u8]) -> Result<BTreeMap<String, String>, MalformedNode> {
    let json: ConfigJson = serde_json::from_slice(data)?;
    Ok(json.config)
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
