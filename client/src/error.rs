//! What can go wrong, by what a caller can do about it.
//!
//! *Called by* all of the crate.

use std::io;
use std::time::Duration;

use client_protocol::records::BatchError;
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
    /// A batch that was fetched is damaged, or compressed, which this client cannot read.
    #[error("batch at position {offset} of {topic}/{partition}: {source}")]
    Batch {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The position at which it was met.
        offset: i64,
        /// What is wrong.
        source: BatchError,
    },
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
            | Self::NoLeader { .. } => true,
            Self::Broker { code, .. } => code.is_retriable(),
            Self::Answer { .. }
            | Self::Request(_)
            | Self::Unsupported { .. }
            | Self::NoSuchPartition { .. }
            | Self::Batch { .. }
            | Self::NoBootstrap => false,
        }
    }

    /// The broker's error code, if it is the broker that said no.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The connection cannot be used any more.
    #[must_use]
    pub(crate) fn spoils_connection(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::Timeout { .. } | Self::Answer { .. })
    }
}
