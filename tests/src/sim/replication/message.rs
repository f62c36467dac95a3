//! What travels between brokers and clients, over a network that loses, doubles and delays.
//!
//! Called by: `process`, `client`, `world`. Invariant: a message carries all that its receiver needs to tell whether it is still meant.

use broker_core::controller::{AlterPartitions, PartitionReport};
use broker_core::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionId, TopicPartition};
use broker_core::image::FeedEvent;
use broker_core::partition::{FetchAnswer, FollowerFetch};
use broker_core::store::{Ask, Nodes, Op};
use bytes::Bytes;
use client_protocol::{ErrorCode, ProducerId};
use coordinator_protocol::SessionId;

use super::inquiry::Told;

/// Who a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    Broker(BrokerId),
    Producer(usize),
    Consumer(usize),
    /// The native client's producer.
    Native,
    /// Its consumer.
    Reader,
}

/// A fetch of a follower.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    pub number: u64,
    pub items: Vec<(TopicPartition, FollowerFetch)>,
    /// Of each partition; with 0 it only tells how far the follower is, and is answered at once.
    pub bytes_max: u32,
}

/// A message.
#[derive(Debug, Clone)]
pub enum Message {
    Fetch(FetchRequest),
    Fetched { number: u64, answers: Vec<(TopicPartition, FetchAnswer, Bytes)> },
    Alter { number: u64, request: AlterPartitions },
    Altered { number: u64, key: TopicPartition, result: Result<(), ErrorCode> },
    Describe { number: u64, controller_epoch: i32, partitions: Vec<TopicPartition> },
    Described { number: u64, epoch: BrokerEpoch, reports: Vec<PartitionReport> },
    ShutDown { number: u64, broker: BrokerId, epoch: BrokerEpoch },
    Produce { number: u64, topic: String, key: PartitionId, acks: i16, batch: Bytes },
    Produced { number: u64, error: ErrorCode, base_offset: i64 },
    Consume(ConsumeRequest),
    Consumed(ConsumeAnswer),
    Told { number: u64, told: Told },
}

/// A fetch of a consumer.
#[derive(Debug, Clone)]
pub struct ConsumeRequest {
    pub number: u64,
    pub topic: String,
    pub partition: PartitionId,
    pub offset: Offset,
    pub leader_epoch: Option<LeaderEpoch>,
    pub bytes_max: u32,
}

/// The answer to it.
#[derive(Debug, Clone)]
pub struct ConsumeAnswer {
    pub number: u64,
    pub error: ErrorCode,
    pub log_start: Offset,
    pub high_watermark: Option<Offset>,
    pub records: Bytes,
}

/// What a broker asks the coordinator, in order on one connection.
#[derive(Debug, Clone)]
pub enum CoordinatorRequest {
    Open,
    Attach,
    Ping,
    Read(Vec<String>),
    Multi(Vec<Op>),
}

impl From<Ask> for CoordinatorRequest {
    fn from(ask: Ask) -> Self {
        match ask {
            Ask::Read(paths) => Self::Read(paths),
            Ask::Write(ops) => Self::Multi(ops),
        }
    }
}

/// What the coordinator answers; it also says its zxid.
#[derive(Debug, Clone)]
pub enum CoordinatorReply {
    Opened(SessionId),
    Attached,
    Pong,
    Nodes(Nodes),
    Multi(Result<(), usize>),
}

/// Something that reaches a process on its coordinator connection.
#[derive(Debug, Clone)]
pub enum FromCoordinator {
    Reply {
        number: u64,
        zxid: broker_core::ids::Zxid,
        reply: CoordinatorReply,
    },
    Feed(FeedEvent),
    /// The session is over.
    Over,
}

/// A process's own alarms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    Tick,
    Submit,
    LogThread,
    RoundStart,
    RoundEnd,
    /// Nothing came for as long as the wait of this number may take.
    WaitEnd(u64),
    MarksEnd,
    Clean,
    Fetch(BrokerId),
}

/// What a process wants done after a step.
#[derive(Debug, Default)]
pub struct Outbox {
    pub messages: Vec<(Address, Message)>,
    pub requests: Vec<(u64, CoordinatorRequest)>,
    /// After so many microseconds.
    pub alarms: Vec<(u64, Alarm)>,
    /// High watermarks that moved, for the ledger: partition, from, to, and whether the mover leads.
    pub watermarks: Vec<(TopicPartition, Offset, Offset, bool)>,
    /// Log starts that retention moved, here or at the leader.
    pub trimmed: Vec<(TopicPartition, Offset)>,
    /// Ids that producers were given.
    pub producer_ids: Vec<ProducerId>,
    /// A client's request was taken in to be served.
    pub serves: bool,
    /// The disk failed: the process is to end.
    pub failed: bool,
    /// Partitions whose leader may lack committed records, as their topic allows.
    pub unclean: Vec<(TopicPartition, (BrokerId, Offset))>,
    /// Partitions that were cut below the high watermark, which only the like of that explains.
    pub committed_cuts: Vec<(TopicPartition, Offset, Offset)>,
    /// What the cores decided, by name.
    pub decided: Vec<&'static str>,
    /// Leaders whose records were damaged when they came, and how.
    pub complaints: Vec<(BrokerId, String)>,
    /// Leaders that said that they cannot read what a follower asked for.
    pub unread: Vec<BrokerId>,
}
