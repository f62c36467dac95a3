//! What can go wrong, by what a caller can do about it.
//!
//! *Called by* all of the crate.

use std::io;
use std::time::Duration;

use client_core::consumer::read::ReadError;
use client_core::group::GroupError;
use client_protocol::{BrokerId, DecodeError, EncodeError, ErrorCode};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody accepts connections there, or not in time.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// As it was given.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The connection ended before the answer; whether the request took effect is unknown.
    #[error("the connection to {address} ended: {reason}")]
    Closed {
        /// The broker.
        address: String,
        /// Who ended it and why.
        reason: String,
    },
    /// No answer in time; whether the request took effect is unknown.
    #[error("no answer from {address} within {timeout:?}")]
    Timeout {
        /// The broker.
        address: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// The answer is not what the protocol says.
    #[error("{address} answered with what is not a {api} response: {source}")]
    Answer {
        /// The broker.
        address: String,
        /// The API asked.
        api: &'static str,
        /// What is wrong.
        source: DecodeError,
    },
    /// The request cannot be written in the version that the broker speaks.
    #[error("cannot write the request: {0}")]
    Request(#[from] EncodeError),
    /// Broker and client have no version of the API in common.
    #[error("{address} speaks no version of {api} that this client knows")]
    Unsupported {
        /// The broker.
        address: String,
        /// The API.
        api: &'static str,
    },
    /// The broker says no.
    #[error("{what}: {code}{}", .detail.as_ref().map(|d| format!(" ({d})")).unwrap_or_default())]
    Broker {
        /// What was asked for.
        what: String,
        /// The broker's answer.
        code: ErrorCode,
        /// The broker's own words.
        detail: Option<String>,
    },
    /// The cluster names a broker that it does not list.
    #[error("broker {0} is not among the live brokers")]
    NoSuchBroker(BrokerId),
    /// The partition has no leader at the moment.
    #[error("partition {partition} of {topic} has no leader")]
    NoLeader {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// The topic has no such partition.
    #[error("topic {topic} has no partition {partition}")]
    NoSuchPartition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// A batch that was fetched cannot be read.
    #[error("batch at position {offset} of {partition}: {source}")]
    Unreadable {
        /// The partition, as `topic/partition`.
        partition: String,
        /// The position at which it was met.
        offset: i64,
        /// What is wrong.
        source: ReadError,
    },
    /// The log was cut below what was read: those records are gone.
    #[error("{partition} was cut to offset {end}, but read up to {position}")]
    Truncated {
        /// The partition, as `topic/partition`.
        partition: String,
        /// Where reading would have gone on.
        position: i64,
        /// Where the log has what was read (exclusive).
        end: i64,
    },
    /// The partition is not among those that are read.
    #[error("{0} is not assigned")]
    NotAssigned(String),
    /// No group was named in the consumer's options.
    #[error("the consumer has no group")]
    NoGroup,
    /// The group says no, or cannot be reached.
    #[error(transparent)]
    Group(GroupError),
    /// Too many requests wait on one connection.
    #[error("too many requests wait for {0}")]
    Busy(String),
    /// Records were not written, or nobody knows whether they were.
    #[error("{partition} not written: {reason}{}", if *.may_be_written { " (it may have been)" } else { "" })]
    Undelivered {
        /// Where they were to go, as `topic/partition`.
        partition: String,
        /// In words.
        reason: String,
        /// The broker's answer, if it was the broker that said no.
        code: Option<ErrorCode>,
        /// The records may be there, once. Otherwise they are certainly not.
        may_be_written: bool,
    },
    /// The producer's buffer has no room now.
    #[error("the producer's buffer of {bytes_max} bytes is full")]
    BufferFull {
        /// The limit.
        bytes_max: usize,
    },
    /// A record that is larger than the producer ever takes.
    #[error("a record of {bytes} bytes, at most {bytes_max} are taken")]
    RecordTooLarge {
        /// What it takes, about.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The producer or consumer was closed.
    #[error("closed")]
    ShutDown,
    /// No bootstrap server was given.
    #[error("no bootstrap server given")]
    NoBootstrap,
}

impl ClientError {
    /// An error code as an error; `what` says what was asked for.
    #[must_use]
    pub fn broker(what: impl Into<String>, code: ErrorCode, detail: Option<String>) -> Self {
        Self::Broker { what: what.into(), code, detail }
    }

    /// The same call may succeed later, perhaps at another broker.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Closed { .. }
            | Self::Timeout { .. }
            | Self::NoSuchBroker(_)
            | Self::NoLeader { .. }
            | Self::Busy(_)
            | Self::BufferFull { .. } => true,
            Self::Broker { code, .. } => code.is_retriable(),
            Self::Group(error) => error.code().is_none_or(|code| code.is_retriable()),
            // Time ran out, or the broker's reason may pass.
            Self::Undelivered { code, .. } => code.is_none_or(|code| code.is_retriable()),
            Self::Answer { .. }
            | Self::Request(_)
            | Self::Unsupported { .. }
            | Self::NoSuchPartition { .. }
            | Self::Unreadable { .. }
            | Self::Truncated { .. }
            | Self::NotAssigned(_)
            | Self::NoGroup
            | Self::RecordTooLarge { .. }
            | Self::ShutDown
            | Self::NoBootstrap => false,
        }
    }

    /// The broker's error code, if it is the broker that said no.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker { code, .. } => Some(*code),
            Self::Undelivered { code, .. } => *code,
            Self::Group(error) => error.code(),
            _ => None,
        }
    }

    /// What to do next, for errors that people meet often.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Connect { .. } => Some(
                "is the broker running, and is that its address? Set --bootstrap or TIDEGATE_BOOTSTRAP",
            ),
            Self::Answer { .. } => Some(
                "is that the port of a broker? Coordinators listen elsewhere, on 2181 by default",
            ),
            Self::Closed { .. } => Some(
                "the broker's log says why it hung up; a listener with TLS does so with plain clients",
            ),
            Self::Timeout { .. } => {
                Some("the broker is there but does not answer; look at `tidegate cluster status`")
            }
            Self::NoLeader { .. } => {
                Some("its replicas may be down; look at `tidegate cluster status`")
            }
            Self::NoSuchPartition { .. } => {
                Some("`tidegate topic describe` shows the topic's partitions")
            }
            Self::Undelivered { code: None, .. } => Some(
                "the cluster did not take it in time; `tidegate cluster status` shows what is down",
            ),
            Self::BufferFull { .. } => {
                Some("wait for deliveries, or give the producer a larger buffer")
            }
            Self::RecordTooLarge { .. } => Some("send smaller records, or raise the buffer's size"),
            Self::Truncated { .. } => {
                Some("an unclean election lost records; seek to where reading is to go on")
            }
            Self::Broker { code, .. } => hint_of(*code),
            Self::Undelivered { code: Some(code), .. } => hint_of(*code),
            Self::Group(error) => error.code().and_then(hint_of),
            Self::Request(_)
            | Self::Unsupported { .. }
            | Self::NoSuchBroker(_)
            | Self::Unreadable { .. }
            | Self::NotAssigned(_)
            | Self::NoGroup
            | Self::Busy(_)
            | Self::ShutDown
            | Self::NoBootstrap => None,
        }
    }

    /// The connection cannot be used any more.
    #[must_use]
    pub(crate) fn spoils_connection(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::Timeout { .. } | Self::Answer { .. })
    }
}

pub(crate) fn hint_of(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::UnknownTopicOrPartition => {
            Some("`tidegate topic list` shows the topics, `tidegate topic create` makes one")
        }
        ErrorCode::TopicAlreadyExists => Some("--if-not-exists makes that no error"),
        ErrorCode::InvalidReplicationFactor => {
            Some("there must be as many brokers as replicas; look at `tidegate cluster status`")
        }
        ErrorCode::InvalidTopicException => {
            Some("a name is up to 249 letters, digits, dots, underscores and hyphens")
        }
        ErrorCode::OffsetOutOfRange => Some("--from beginning starts at the first record there is"),
        ErrorCode::NotEnoughReplicas | ErrorCode::NotEnoughReplicasAfterAppend => Some(
            "brokers are down: `tidegate cluster status` shows which; min.insync.replicas says how many are needed",
        ),
        ErrorCode::MessageTooLarge => {
            Some("raise max.message.bytes of the topic, or send smaller records or batches")
        }
        ErrorCode::CoordinatorNotAvailable => Some(
            "the topic __consumer_offsets keeps what groups commit, and it has no leader or cannot be made before three brokers are up: with fewer set offsets.topic.replication.factor on them; `tidegate cluster status` shows them",
        ),
        ErrorCode::CoordinatorLoadInProgress => {
            Some("a broker reads what the group committed; its log says how far it is")
        }
        ErrorCode::GroupIdNotFound => Some("`tidegate group list` shows the groups"),
        ErrorCode::NonEmptyGroup => {
            Some("stop the group's consumers first; `tidegate group describe` shows them")
        }
        ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration => {
            Some("the group went on without this member: others read its share; poll to join again")
        }
        ErrorCode::InconsistentGroupProtocol => Some(
            "all members of a group need an assignor in common; `tidegate group describe` shows the group's",
        ),
        ErrorCode::FencedInstanceId => Some("another member runs under the same instance id"),
        _ => None,
    }
}
