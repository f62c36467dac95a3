//! What the controller is asked, what it answers, and what it wants done.
//!
//! *Called by* the shell, which fills requests from the wire and does the effects. Invariant: every request is answered exactly once, also when
//! the office is lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use client_protocol::ErrorCode;

use crate::ids::{
    BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, PartitionEpoch, PartitionId, TopicId,
    TopicPartition, Zxid,
};
use crate::partition::ReplicaReport;
use crate::store::{Ask, Op};

/// Number of a request, chosen by the shell, never used twice.
pub type RequestId = u64;

/// Number of a multi, chosen by the controller.
pub type WriteId = u64;

/// The election was won: `multi[create(/controller), setData(/controller_epoch)]` went through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Election {
    /// The new content of `/controller_epoch`.
    pub epoch: ControllerEpoch,
    /// The node's version after it: the fencing token.
    pub epoch_version: i32,
    /// zxid of the election: nothing is decided before the image is complete up to it (C4).
    pub zxid: Zxid,
}

/// A topic to create.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewTopic {
    /// Name.
    pub name: String,
    /// Random id, drawn by the shell.
    pub id: TopicId,
    /// Number of partitions; none: `num.partitions`.
    pub partitions: Option<i32>,
    /// Replication factor; none: `default.replication.factor`, at most the number of brokers.
    pub replication_factor: Option<i16>,
    /// Replicas by partition, chosen by the requester; then the two numbers must be none.
    pub assignment: BTreeMap<PartitionId, Vec<BrokerId>>,
    /// Settings that differ from the defaults.
    pub config: BTreeMap<String, String>,
}

/// A topic that is to have more partitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MorePartitions {
    /// Name.
    pub name: String,
    /// Number of partitions afterwards, those that are there included.
    pub count: i32,
    /// Replicas of the new partitions in their order, chosen by the requester; none: the controller chooses.
    pub assignment: Option<Vec<Vec<BrokerId>>>,
}

/// A topic to delete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MeantTopic {
    /// Name.
    pub name: String,
    /// The id that it must have; none: whichever has the name is meant.
    pub id: Option<TopicId>,
}

/// Why a topic is not created, deleted or given more partitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicRefusal {
    /// The wire code.
    pub error: ErrorCode,
    /// For humans.
    pub message: String,
}

/// One partition of an AlterPartition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AlterItem {
    /// Which partition.
    pub partition: TopicPartition,
    /// The requester's leader epoch.
    pub leader_epoch: LeaderEpoch,
    /// The state version that it starts from.
    pub partition_epoch: PartitionEpoch,
    /// The wished ISR with the life of each member that is meant.
    pub isr: Vec<(BrokerId, BrokerEpoch)>,
    /// The requester says that it is still repairing after an unclean election.
    pub recovering: bool,
}

/// An AlterPartition request (v3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AlterPartitions {
    /// Who asks.
    pub broker: BrokerId,
    /// Which life of it.
    pub broker_epoch: BrokerEpoch,
    /// The partitions that it leads.
    pub items: Vec<AlterItem>,
}

/// One partition of an answer to DescribeReplicas (C5); none: the broker has lost the replica, and this life of it is elected no more.
/// A broker that has not yet taken in the metadata up to its own registration, or not yet opened the log, has not answered: ask again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionReport {
    /// Which partition.
    pub partition: TopicPartition,
    /// What it holds.
    pub report: Option<ReplicaReport>,
}

/// An answer to a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// To CreateTopics: for each topic its assignment, or why not.
    Created(Vec<(String, Result<CreatedTopic, TopicRefusal>)>),
    /// To DeleteTopics: for each name the deleted id, or why not.
    Deleted(Vec<(String, Result<TopicId, TopicRefusal>)>),
    /// To CreatePartitions: for each name nothing, or why not.
    Grown(Vec<(String, Result<(), TopicRefusal>)>),
    /// To AlterPartition as a whole, or for each partition.
    Altered(Result<Vec<AlteredPartition>, ErrorCode>),
    /// To ElectLeaders: what came of each partition.
    Elected(Result<Vec<Elected>, ErrorCode>),
    /// To ControlledShutdown: the partitions that the broker still leads.
    ShutDown(Result<Vec<(Arc<str>, PartitionId)>, ErrorCode>),
}

/// One partition of an answer to ElectLeaders.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Elected {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Number of the partition.
    pub partition: PartitionId,
    /// The wire code.
    pub error: ErrorCode,
}

/// One partition of an answer to AlterPartition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AlteredPartition {
    /// Which partition.
    pub partition: TopicPartition,
    /// The wire code; the state itself comes with the metadata (C3).
    pub error: ErrorCode,
}

/// A topic that was created.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreatedTopic {
    /// Its id.
    pub id: TopicId,
    /// Its replicas by partition, leader first.
    pub partitions: BTreeMap<PartitionId, Vec<BrokerId>>,
}

/// What the controller wants done, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Send this multi; tell [`super::Controller::write_done`]. Several may be under way; they are sent in order.
    Write {
        /// Its number.
        id: WriteId,
        /// Its operations; the first checks `/controller_epoch`.
        ops: Vec<Op>,
    },
    /// Answer a request.
    Answer {
        /// The request.
        request: RequestId,
        /// The answer.
        answer: Answer,
    },
    /// Ask a broker for its replicas of these partitions; tell [`super::Controller::described`]. Ask again while the broker lives and does
    /// not answer.
    Describe {
        /// The broker.
        broker: BrokerId,
        /// The life that is meant.
        epoch: BrokerEpoch,
        /// The partitions.
        partitions: Vec<TopicPartition>,
    },
    /// A replica that may lack committed records is about to be elected, as the topic's settings allow (D6): to be logged as an error. What it
    /// holds is all that is kept; the write follows.
    UncleanElection {
        /// Name of the topic.
        topic: Arc<str>,
        /// Number of the partition.
        partition: PartitionId,
        /// The one that is elected.
        leader: Option<BrokerId>,
        /// The epoch under which it will lead.
        leader_epoch: LeaderEpoch,
        /// What it said that it holds.
        report: ReplicaReport,
    },
    /// Ask the ensemble, one such thing at a time; tell [`super::Seat::found`], [`super::Seat::written`], or, where it could not be asked,
    /// [`super::Seat::put_off`].
    Ask(Ask),
    /// The election was won: to be logged.
    Won(Election),
    /// The office is lost, as another one has it: to be logged.
    Resign,
    /// Nobody can be elected, as `/controller_epoch` is missing or was never readable: to be told to humans.
    EpochMissing,
}
