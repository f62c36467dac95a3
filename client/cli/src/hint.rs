//! What to try next, for errors that people meet often.
//!
//! *Called by* `main`. Knows errors, not commands.

use client::ClientError;
use client::protocol::ErrorCode;
use client::protocol::records::BatchError;

/// A hint for the error, if there is one.
pub fn of(error: &anyhow::Error) -> Option<String> {
    if let Some(error) = error.downcast_ref::<ClientError>() {
        return of_client(error).map(str::to_owned);
    }
    error.downcast_ref::<coordinator_client::Error>().and_then(of_coordinator).map(str::to_owned)
}

fn of_client(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::Connect { .. } => Some(
            "is the broker running, and is that its address? Set --bootstrap or TIDEGATE_BOOTSTRAP",
        ),
        ClientError::Answer { .. } => {
            Some("is that the port of a broker? Coordinators listen elsewhere, on 2181 by default")
        }
        ClientError::Closed { .. } => Some(
            "the broker's log says why it hung up; a listener with TLS does so with plain clients",
        ),
        ClientError::Timeout { .. } => {
            Some("the broker is there but does not answer; look at `tidegate cluster status`")
        }
        ClientError::NoLeader { .. } => {
            Some("its replicas may be down; look at `tidegate cluster status`")
        }
        ClientError::NoSuchPartition { .. } => {
            Some("`tidegate topic describe` shows the topic's partitions")
        }
        ClientError::Batch { source: BatchError::Compressed, .. } => {
            Some("this command does not read compressed records yet; kcat does")
        }
        ClientError::Broker { code, .. } => of_code(*code),
        ClientError::Request(_)
        | ClientError::Unsupported { .. }
        | ClientError::NoSuchBroker(_)
        | ClientError::Batch { .. }
        | ClientError::NoBootstrap => None,
    }
}

fn of_code(code: ErrorCode) -> Option<&'static str> {
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
            Some("raise max.message.bytes of the topic, or send smaller records")
        }
        _ => None,
    }
}

fn of_coordinator(error: &coordinator_client::Error) -> Option<&'static str> {
    match error {
        error if error.is(coordinator_client::protocol::ErrorCode::Unimplemented) => Some(
            "that is a ZooKeeper server: only Tidegate's own coordinators tell of changes by subscription",
        ),
        coordinator_client::Error::Unavailable => Some(
            "is a majority of the coordinators running? Set --coordinator or TIDEGATE_COORDINATOR",
        ),
        _ => None,
    }
}
