//! What this broker's own partitions tell the cluster and hear from it.
//!
//! Called by: `membership`, `registration`, `alters`. Calls: `partitions`.
//! It is a trait so that membership can be tested without logs.

use std::collections::BTreeMap;
use std::io;

use broker_core::ids::{DirectoryId, TopicPartition, Zxid};
use broker_core::image::{Applied, Image};
use broker_core::registration::DirectoryRecord;
use client_protocol::ErrorCode;

use crate::partitions::Partitions;

/// The log directories and the partitions in them. They are locked and recovered (safety.md B4).
pub trait Local: Send + Sync {
    /// Each log directory with what it remembers of incarnations; a new one nothing.
    fn directories(&self) -> BTreeMap<DirectoryId, Option<DirectoryRecord>>;

    /// The machine was started since, without the directories having been closed in order.
    fn boot_changed(&self) -> bool;

    /// Takes the directories into use for this cluster. Blocks; durable when it returns.
    ///
    /// # Errors
    /// They are another cluster's, or the disk failed.
    fn claim(&self, cluster_id: &str) -> io::Result<()>;

    /// Writes `record` into every directory. Blocks; durable when it returns.
    ///
    /// # Errors
    /// The disk failed.
    fn record(&self, record: DirectoryRecord) -> io::Result<()>;

    /// This broker is registered since `started`, and the image shows it.
    fn begin(&self, started: Zxid, image: &Image);

    /// The metadata changed.
    fn apply(&self, applied: &Applied);

    /// The metadata changed, but this broker is not registered, or not shown to be: only what is gone
    /// counts.
    fn drop_gone(&self, applied: &Applied);

    /// The controller answered, or could not be asked.
    fn alter_answered(
        &self,
        partition: TopicPartition,
        attempt: u64,
        result: Result<(), ErrorCode>,
    );
}

impl Local for Partitions {
    fn directories(&self) -> BTreeMap<DirectoryId, Option<DirectoryRecord>> {
        self.held().directories
    }

    fn boot_changed(&self) -> bool {
        self.held().boot_changed
    }

    fn claim(&self, cluster_id: &str) -> io::Result<()> {
        Partitions::claim(self, cluster_id).map_err(io::Error::other)
    }

    fn record(&self, record: DirectoryRecord) -> io::Result<()> {
        Partitions::record(self, record).map_err(io::Error::other)
    }

    fn begin(&self, started: Zxid, image: &Image) {
        Partitions::begin(self, started, image);
    }

    fn apply(&self, applied: &Applied) {
        Partitions::apply(self, applied);
    }

    fn drop_gone(&self, applied: &Applied) {
        Partitions::drop_gone(self, applied);
    }

    fn alter_answered(
        &self,
        partition: TopicPartition,
        attempt: u64,
        result: Result<(), ErrorCode>,
    ) {
        Partitions::alter_answered(self, partition, attempt, result);
    }
}
