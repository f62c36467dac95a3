//! What a partition asks the shell to do.
//!
//! *Called by* the partition, which pushes them; *read by* the shell and the simulator, in order. Each effect that changes the log names
//! the leader epoch that it was decided under: the log's thread refuses one whose epoch is not the one it adopted last.

use crate::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionEpoch, TopicPartition};

/// Asks the controller for another ISR (AlterPartition v3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AlterRequest {
    /// Which partition.
    pub partition: TopicPartition,
    /// Number of this try, to be given back with the answer.
    pub attempt: u64,
    /// The epoch that this leader leads under.
    pub leader_epoch: LeaderEpoch,
    /// The state version that the change starts from.
    pub partition_epoch: PartitionEpoch,
    /// The wished ISR with the life of each member that is meant.
    pub isr: Vec<(BrokerId, BrokerEpoch)>,
}

/// One thing to do for a partition; the shell does them in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// The log refuses from here on what was permitted under another epoch, finishes what is queued before,
    /// and answers [`super::Partition::epoch_adopted`].
    AdoptEpoch {
        /// The epoch to adopt.
        leader_epoch: LeaderEpoch,
    },
    /// Append the records of the fetch answer just handled; answer [`super::Partition::appended`]
    /// or [`super::Partition::append_refused`].
    AppendFetched {
        /// Decided under this epoch.
        leader_epoch: LeaderEpoch,
        /// The log end offset at which the records must begin.
        base_offset: Offset,
    },
    /// Lower the mark, then cut the log to end at `to`; answer [`super::Partition::truncated`].
    Truncate {
        /// Decided under this epoch.
        leader_epoch: LeaderEpoch,
        /// The new log end offset.
        to: Offset,
    },
    /// Drop everything and begin again, empty, at `start`; answer [`super::Partition::truncated`].
    RestartAt {
        /// Decided under this epoch.
        leader_epoch: LeaderEpoch,
        /// The new log start and end.
        start: Offset,
    },
    /// The leader's log starts later: drop what is below; answer [`super::Partition::log_start_moved`].
    DropBelow {
        /// The new log start.
        start: Offset,
    },
    /// The high watermark moved: wake produces and consumers that wait for it, note it for the checkpoint.
    HighWatermark {
        /// The new high watermark.
        high_watermark: Offset,
    },
    /// The log was cut below the high watermark: records that were committed are gone here. No clean election causes it; to be logged as an
    /// error. The high watermark that falls with it follows.
    CommittedCut {
        /// Everything below was committed.
        high_watermark: Offset,
        /// The new log end offset.
        end_offset: Offset,
    },
    /// The leader's log grew: wake followers that wait for it.
    EndMoved {
        /// The new log end offset.
        end_offset: Offset,
    },
    /// This follower holds more, or more durably, than its last fetch said: tell the leader without delay.
    ReportProgress,
    /// Begin to fetch from this leader.
    FetchFrom {
        /// The leader.
        leader: BrokerId,
        /// Its epoch.
        leader_epoch: LeaderEpoch,
    },
    /// Do not fetch any more.
    StopFetching,
    /// The lead is gone: answer NOT_LEADER_OR_FOLLOWER to all that waits here.
    LeadershipLost,
    /// Send this to the controller.
    Alter(AlterRequest),
    /// The replica that had cut below its mark is in sync again: the note of it in the directory can go.
    CutRepaired,
}
