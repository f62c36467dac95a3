//! The metadata image: what the coordinator says the cluster is, in memory, shared cheaply.
//!
//! - [`feed`]: the subscription's events in, an image and what changed out.
//! - [`metadata`]: [`Image`] and its look-ups.
//! - [`change`]: what one event changed.
//! - [`json`]: the znodes' JSON, Kafka 3.9's and the one of ours.
//! - [`settings`]: what a topic's settings mean for replication.
//! - [`path`]: which znode is what.

pub mod change;
pub mod feed;
pub mod json;
pub mod metadata;
pub mod path;
pub mod settings;

pub use change::Change;
pub use feed::{Applied, FeedEvent, ImageFeed, Item, ItemKind, Stat};
pub use json::{BrokerRegistration, Endpoint, Identity, MalformedNode, PartitionState, TopicNode};
pub use metadata::{Broker, ControllerNode, Image, StoredIdentity, StoredState, Topic};
pub use settings::ReplicationSettings;
