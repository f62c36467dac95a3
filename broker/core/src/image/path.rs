//! Which znode is what: Kafka 3.9's layout and `/tidegate/brokers/N`.
//!
//! *Called by* the feed and the controller. Paths are below the cluster's root. Invariant: `parse(path_of(x)) == x`.

use crate::ids::{BrokerId, PartitionId};

/// The election node.
pub const CONTROLLER: &str = "/controller";
/// The fencing token of controllers.
pub const CONTROLLER_EPOCH: &str = "/controller_epoch";
/// The newest block of producer ids.
pub const PRODUCER_IDS: &str = "/latest_producer_id_block";
/// The cluster's id.
pub const CLUSTER_ID: &str = "/cluster/id";

/// A znode that the image understands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Node<'a> {
    /// `/cluster/id`
    ClusterId,
    /// `/controller`
    Controller,
    /// `/controller_epoch`
    ControllerEpoch,
    /// `/brokers/ids/N`
    Broker(BrokerId),
    /// `/tidegate/brokers/N`
    Identity(BrokerId),
    /// `/brokers/topics/T`
    Topic(&'a str),
    /// `/brokers/topics/T/partitions/P/state`
    State(&'a str, PartitionId),
    /// `/config/topics/T`
    TopicConfig(&'a str),
    /// `/admin/delete_topics/T`
    Deletion(&'a str),
    /// Something else.
    Other,
}

/// What stands at `path`.
#[must_use]
pub fn parse(path: &str) -> Node<'_> {
    let mut parts = path.split('/').skip(1);
    let parts = [
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
    ];
    match parts {
        [Some("cluster"), Some("id"), None, ..] => Node::ClusterId,
        [Some("controller"), None, ..] => Node::Controller,
        [Some("controller_epoch"), None, ..] => Node::ControllerEpoch,
        [Some("brokers"), Some("ids"), Some(id), None, ..] => {
            number(id).map_or(Node::Other, |id| Node::Broker(BrokerId::new(id)))
        }
        [Some("tidegate"), Some("brokers"), Some(id), None, ..] => {
            number(id).map_or(Node::Other, |id| Node::Identity(BrokerId::new(id)))
        }
        [Some("brokers"), Some("topics"), Some(topic), None, ..] => Node::Topic(topic),
        [
            Some("brokers"),
            Some("topics"),
            Some(topic),
            Some("partitions"),
            Some(p),
            Some("state"),
            None,
        ] => number(p).map_or(Node::Other, |p| Node::State(topic, PartitionId::new(p))),
        [Some("config"), Some("topics"), Some(topic), None, ..] => Node::TopicConfig(topic),
        [Some("admin"), Some("delete_topics"), Some(topic), None, ..] => Node::Deletion(topic),
        _ => Node::Other,
    }
}

/// A number that was written without sign, spaces or leading zeros, so that each has one path.
fn number(text: &str) -> Option<i32> {
    let value: i32 = text.parse().ok()?;
    (value >= 0 && value.to_string() == text).then_some(value)
}

/// `/brokers/ids/N`
#[must_use]
pub fn broker(id: BrokerId) -> String {
    format!("/brokers/ids/{}", id.get())
}

/// `/tidegate/brokers/N`
#[must_use]
pub fn identity(id: BrokerId) -> String {
    format!("/tidegate/brokers/{}", id.get())
}

/// `/brokers/topics/T`
#[must_use]
pub fn topic(name: &str) -> String {
    format!("/brokers/topics/{name}")
}

/// `/brokers/topics/T/partitions`
#[must_use]
pub fn partitions(name: &str) -> String {
    format!("/brokers/topics/{name}/partitions")
}

/// `/brokers/topics/T/partitions/P`
#[must_use]
pub fn partition(name: &str, partition: PartitionId) -> String {
    format!("/brokers/topics/{name}/partitions/{}", partition.get())
}

/// `/brokers/topics/T/partitions/P/state`
#[must_use]
pub fn state(name: &str, partition: PartitionId) -> String {
    format!("/brokers/topics/{name}/partitions/{}/state", partition.get())
}

/// `/config/topics/T`
#[must_use]
pub fn topic_config(name: &str) -> String {
    format!("/config/topics/{name}")
}

/// `/admin/delete_topics/T`
#[must_use]
pub fn deletion(name: &str) -> String {
    format!("/admin/delete_topics/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_round_trip() {
        assert_eq!(parse(&broker(BrokerId::new(7))), Node::Broker(BrokerId::new(7)));
        assert_eq!(parse(&identity(BrokerId::new(7))), Node::Identity(BrokerId::new(7)));
        assert_eq!(parse(&topic("a.b")), Node::Topic("a.b"));
        assert_eq!(parse(&state("t", PartitionId::new(3))), Node::State("t", PartitionId::new(3)));
        assert_eq!(parse(&topic_config("t")), Node::TopicConfig("t"));
        assert_eq!(parse(&deletion("t")), Node::Deletion("t"));
        assert_eq!(parse(CONTROLLER), Node::Controller);
        assert_eq!(parse(CONTROLLER_EPOCH), Node::ControllerEpoch);
        assert_eq!(parse(CLUSTER_ID), Node::ClusterId);
    }

    #[test]
    fn strangers_are_other() {
        for path in [
            "/",
            "",
            "/brokers/ids/x",
            "/brokers/ids/-1",
            "/brokers/ids/01",
            "/brokers/topics/t/partitions/0",
        ] {
            assert_eq!(parse(path), Node::Other, "{path}");
        }
        assert_eq!(parse("/brokers/topics/t/partitions/0/state/more"), Node::Other);
    }
}
