//! What one event of the subscription changed.
//!
//! *Called by* the feed, which makes them; *read by* the controller, the partitions and whoever watches. A change names what to look up in
//! the new image; it does not carry the values.

use std::sync::Arc;

use crate::ids::{BrokerEpoch, BrokerId, PartitionId, TopicId};

/// One thing that the new image says otherwise than the former.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Change {
    /// The cluster's id became known.
    ClusterId,
    /// `/controller` came, went or changed hands.
    Controller,
    /// `/controller_epoch` changed.
    ControllerEpoch,
    /// A broker registered; a new life of it if it was there before.
    BrokerRegistered {
        /// Which broker.
        broker: BrokerId,
        /// Its new life.
        epoch: BrokerEpoch,
    },
    /// A broker's registration changed within the same life.
    BrokerChanged {
        /// Which broker.
        broker: BrokerId,
    },
    /// A broker's registration is gone.
    BrokerGone {
        /// Which broker.
        broker: BrokerId,
        /// The life that ended.
        epoch: BrokerEpoch,
    },
    /// A broker's identity node changed.
    Identity {
        /// Which broker.
        broker: BrokerId,
    },
    /// A topic came, or its node changed (assignment).
    Topic {
        /// Its name.
        topic: Arc<str>,
        /// Its id.
        id: TopicId,
    },
    /// A topic is gone.
    TopicGone {
        /// Its name.
        topic: Arc<str>,
        /// Its id.
        id: TopicId,
    },
    /// A topic's settings changed.
    TopicConfig {
        /// Its name.
        topic: Arc<str>,
    },
    /// A topic was marked for deletion, or the mark is gone.
    TopicDeletion {
        /// Its name.
        topic: Arc<str>,
    },
    /// The state of a partition changed, came or went.
    Partition {
        /// Name of the topic.
        topic: Arc<str>,
        /// Which partition.
        partition: PartitionId,
    },
    /// A node that should be understood is not; the image keeps what it had for that path.
    Unreadable {
        /// The node's path.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}
