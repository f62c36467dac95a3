//! The error table: what a number in a response means, and whether to try again.
//!
//! *Called by* `field`, the broker and the client. *Calls* nothing. An error code is a value in a response, not
//! a Rust error: it is never logged as one.

use std::fmt;

macro_rules! error_codes {
    ($($(#[$meta:meta])* $name:ident = $code:literal, $wire_name:literal, $retriable:literal, $message:literal;)*) => {
        /// An error code of Kafka's protocol.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $(
                #[doc = concat!($message, " (", stringify!($code), ").")]
                $(#[$meta])*
                $name,
            )*
            /// A code this table does not know; never one of the above.
            Unknown(i16),
        }

        impl ErrorCode {
            /// All codes of the table, ascending.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code of a number on the wire; any number has one.
            #[must_use]
            pub const fn from_code(code: i16) -> Self {
                match code {
                    $($code => Self::$name,)*
                    other => Self::Unknown(other),
                }
            }

            /// Its number on the wire.
            #[must_use]
            pub const fn code(self) -> i16 {
                match self {
                    $(Self::$name => $code,)*
                    Self::Unknown(code) => code,
                }
            }

            /// Kafka's name for it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $wire_name,)*
                    Self::Unknown(_) => "UNKNOWN",
                }
            }

            /// The same request may succeed later, perhaps at another broker.
            #[must_use]
            pub const fn is_retriable(self) -> bool {
                match self {
                    $(Self::$name => $retriable,)*
                    Self::Unknown(_) => false,
                }
            }

            /// One sentence for a person.
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self {
                    $(Self::$name => $message,)*
                    Self::Unknown(_) => "An error code that this version does not know",
                }
            }
        }
    };
}

error_codes! {
    UnknownServerError = -1, "UNKNOWN_SERVER_ERROR", false, "The server met an unexpected error";
    #[default]
    None = 0, "NONE", false, "No error";
    OffsetOutOfRange = 1, "OFFSET_OUT_OF_RANGE", false, "The offset is outside the range that the server keeps for the partition";
    CorruptMessage = 2, "CORRUPT_MESSAGE", true, "The record batch fails its checksum, has a wrong size or is damaged otherwise";
    UnknownTopicOrPartition = 3, "UNKNOWN_TOPIC_OR_PARTITION", true, "The server does not host this topic or partition";
    InvalidFetchSize = 4, "INVALID_FETCH_SIZE", false, "The fetch size is invalid";
    LeaderNotAvailable = 5, "LEADER_NOT_AVAILABLE", true, "The partition has no leader at the moment";
    NotLeaderOrFollower = 6, "NOT_LEADER_OR_FOLLOWER", true, "The broker is not the leader of the partition, or not its replica";
    RequestTimedOut = 7, "REQUEST_TIMED_OUT", true, "The request timed out";
    BrokerNotAvailable = 8, "BROKER_NOT_AVAILABLE", false, "The broker is not available";
    ReplicaNotAvailable = 9, "REPLICA_NOT_AVAILABLE", true, "The replica is not available";
    MessageTooLarge = 10, "MESSAGE_TOO_LARGE", false, "The record batch is larger than the topic allows";
    StaleControllerEpoch = 11, "STALE_CONTROLLER_EPOCH", false, "The controller moved to another broker";
    OffsetMetadataTooLarge = 12, "OFFSET_METADATA_TOO_LARGE", false, "The metadata of the offset commit is too large";
    NetworkException = 13, "NETWORK_EXCEPTION", true, "The server hung up before it answered";
    CoordinatorLoadInProgress = 14, "COORDINATOR_LOAD_IN_PROGRESS", true, "The group or transaction coordinator is still loading";
    CoordinatorNotAvailable = 15, "COORDINATOR_NOT_AVAILABLE", true, "The group or transaction coordinator is not available";
    NotCoordinator = 16, "NOT_COORDINATOR", true, "The broker is not the coordinator of this group or transaction";
    InvalidTopicException = 17, "INVALID_TOPIC_EXCEPTION", false, "The topic's name is not valid, or the operation is not for this topic";
    RecordListTooLarge = 18, "RECORD_LIST_TOO_LARGE", false, "The record batch is larger than a segment of the topic";
    NotEnoughReplicas = 19, "NOT_ENOUGH_REPLICAS", true, "Fewer replicas are in sync than the topic requires";
    NotEnoughReplicasAfterAppend = 20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", true, "The records are written, but fewer replicas are in sync than the topic requires";
    InvalidRequiredAcks = 21, "INVALID_REQUIRED_ACKS", false, "acks must be -1, 0 or 1";
    IllegalGeneration = 22, "ILLEGAL_GENERATION", false, "The group's generation is another one";
    InconsistentGroupProtocol = 23, "INCONSISTENT_GROUP_PROTOCOL", false, "The member's protocols do not fit those of the group";
    InvalidGroupId = 24, "INVALID_GROUP_ID", false, "The group id is not valid";
    UnknownMemberId = 25, "UNKNOWN_MEMBER_ID", false, "The group does not know this member";
    InvalidSessionTimeout = 26, "INVALID_SESSION_TIMEOUT", false, "The session timeout is outside the range that the broker allows";
    RebalanceInProgress = 27, "REBALANCE_IN_PROGRESS", false, "The group is rebalancing; join again";
    InvalidCommitOffsetSize = 28, "INVALID_COMMIT_OFFSET_SIZE", false, "The size of the committed offset data is not valid";
    TopicAuthorizationFailed = 29, "TOPIC_AUTHORIZATION_FAILED", false, "Not authorized for the topic";
    GroupAuthorizationFailed = 30, "GROUP_AUTHORIZATION_FAILED", false, "Not authorized for the group";
    ClusterAuthorizationFailed = 31, "CLUSTER_AUTHORIZATION_FAILED", false, "Not authorized for the cluster";
    InvalidTimestamp = 32, "INVALID_TIMESTAMP", false, "The record's timestamp is outside the range that the topic accepts";
    UnsupportedSaslMechanism = 33, "UNSUPPORTED_SASL_MECHANISM", false, "The broker does not offer this SASL mechanism";
    IllegalSaslState = 34, "ILLEGAL_SASL_STATE", false, "The request does not fit the state of the SASL exchange";
    UnsupportedVersion = 35, "UNSUPPORTED_VERSION", false, "The version of the API is not supported";
    TopicAlreadyExists = 36, "TOPIC_ALREADY_EXISTS", false, "The topic already exists";
    InvalidPartitions = 37, "INVALID_PARTITIONS", false, "The number of partitions is not valid";
    InvalidReplicationFactor = 38, "INVALID_REPLICATION_FACTOR", false, "The replication factor is below 1 or larger than the number of brokers";
    InvalidReplicaAssignment = 39, "INVALID_REPLICA_ASSIGNMENT", false, "The replica assignment is not valid";
    InvalidConfig = 40, "INVALID_CONFIG", false, "The configuration is not valid";
    NotController = 41, "NOT_CONTROLLER", true, "The broker is not the controller";
    InvalidRequest = 42, "INVALID_REQUEST", false, "The request is malformed, or its fields contradict each other";
    UnsupportedForMessageFormat = 43, "UNSUPPORTED_FOR_MESSAGE_FORMAT", false, "The message format on the broker does not support the request";
    PolicyViolation = 44, "POLICY_VIOLATION", false, "The request breaks a policy of the cluster";
    OutOfOrderSequenceNumber = 45, "OUT_OF_ORDER_SEQUENCE_NUMBER", false, "The producer's sequence number is not the next one";
    DuplicateSequenceNumber = 46, "DUPLICATE_SEQUENCE_NUMBER", false, "The producer's sequence number was used before";
    InvalidProducerEpoch = 47, "INVALID_PRODUCER_EPOCH", false, "The producer's epoch is older than the one the broker knows";
    InvalidTxnState = 48, "INVALID_TXN_STATE", false, "The transaction's state does not allow the operation";
    InvalidProducerIdMapping = 49, "INVALID_PRODUCER_ID_MAPPING", false, "The producer id does not belong to this transactional id";
    InvalidTransactionTimeout = 50, "INVALID_TRANSACTION_TIMEOUT", false, "The transaction timeout is larger than the broker allows";
    ConcurrentTransactions = 51, "CONCURRENT_TRANSACTIONS", true, "Another operation on the same transaction is under way";
    TransactionCoordinatorFenced = 52, "TRANSACTION_COORDINATOR_FENCED", false, "The transaction coordinator was replaced";
    TransactionalIdAuthorizationFailed = 53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", false, "Not authorized for the transactional id";
    SecurityDisabled = 54, "SECURITY_DISABLED", false, "Security features are disabled";
    OperationNotAttempted = 55, "OPERATION_NOT_ATTEMPTED", false, "The operation was not attempted";
    KafkaStorageError = 56, "KAFKA_STORAGE_ERROR", true, "The log directory failed";
    LogDirNotFound = 57, "LOG_DIR_NOT_FOUND", false, "The log directory is not in the broker's configuration";
    SaslAuthenticationFailed = 58, "SASL_AUTHENTICATION_FAILED", false, "SASL authentication failed";
    UnknownProducerId = 59, "UNKNOWN_PRODUCER_ID", false, "The broker has no state of this producer id";
    ReassignmentInProgress = 60, "REASSIGNMENT_IN_PROGRESS", false, "A reassignment of the partition is under way";
    DelegationTokenAuthDisabled = 61, "DELEGATION_TOKEN_AUTH_DISABLED", false, "Delegation tokens are not enabled";
    DelegationTokenNotFound = 62, "DELEGATION_TOKEN_NOT_FOUND", false, "The delegation token is not known";
    DelegationTokenOwnerMismatch = 63, "DELEGATION_TOKEN_OWNER_MISMATCH", false, "The delegation token belongs to another principal";
    DelegationTokenRequestNotAllowed = 64, "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", false, "Delegation token requests are not allowed on this connection";
    DelegationTokenAuthorizationFailed = 65, "DELEGATION_TOKEN_AUTHORIZATION_FAILED", false, "Not authorized for the delegation token";
    DelegationTokenExpired = 66, "DELEGATION_TOKEN_EXPIRED", false, "The delegation token has expired";
    InvalidPrincipalType = 67, "INVALID_PRINCIPAL_TYPE", false, "The principal type is not supported";
    NonEmptyGroup = 68, "NON_EMPTY_GROUP", false, "The group is not empty";
    GroupIdNotFound = 69, "GROUP_ID_NOT_FOUND", false, "The group is not known";
    FetchSessionIdNotFound = 70, "FETCH_SESSION_ID_NOT_FOUND", true, "The fetch session is not known";
    InvalidFetchSessionEpoch = 71, "INVALID_FETCH_SESSION_EPOCH", true, "The fetch session's epoch is another one";
    ListenerNotFound = 72, "LISTENER_NOT_FOUND", true, "The leader has no listener of this name";
    TopicDeletionDisabled = 73, "TOPIC_DELETION_DISABLED", false, "Topic deletion is disabled";
    FencedLeaderEpoch = 74, "FENCED_LEADER_EPOCH", true, "The leader epoch in the request is older than the broker's";
    UnknownLeaderEpoch = 75, "UNKNOWN_LEADER_EPOCH", true, "The leader epoch in the request is newer than the broker's";
    UnsupportedCompressionType = 76, "UNSUPPORTED_COMPRESSION_TYPE", false, "The compression is unknown, or newer than the version of the request";
    StaleBrokerEpoch = 77, "STALE_BROKER_EPOCH", false, "The broker's epoch has changed";
    OffsetNotAvailable = 78, "OFFSET_NOT_AVAILABLE", true, "The leader does not know its high watermark yet";
    MemberIdRequired = 79, "MEMBER_ID_REQUIRED", false, "Join again with the member id of this answer";
    PreferredLeaderNotAvailable = 80, "PREFERRED_LEADER_NOT_AVAILABLE", true, "The preferred leader is not available";
    GroupMaxSizeReached = 81, "GROUP_MAX_SIZE_REACHED", false, "The group is full";
    FencedInstanceId = 82, "FENCED_INSTANCE_ID", false, "Another member uses this group instance id";
    EligibleLeadersNotAvailable = 83, "ELIGIBLE_LEADERS_NOT_AVAILABLE", true, "No eligible leader is available";
    ElectionNotNeeded = 84, "ELECTION_NOT_NEEDED", true, "The partition has the leader it should have";
    NoReassignmentInProgress = 85, "NO_REASSIGNMENT_IN_PROGRESS", false, "No reassignment of the partition is under way";
    GroupSubscribedToTopic = 86, "GROUP_SUBSCRIBED_TO_TOPIC", false, "The group is subscribed to the topic";
    InvalidRecord = 87, "INVALID_RECORD", false, "The broker does not accept this record";
    UnstableOffsetCommit = 88, "UNSTABLE_OFFSET_COMMIT", true, "Offset commits of a transaction are still open";
    ThrottlingQuotaExceeded = 89, "THROTTLING_QUOTA_EXCEEDED", true, "The quota is exceeded";
    ProducerFenced = 90, "PRODUCER_FENCED", false, "A newer producer with the same transactional id is at work";
    ResourceNotFound = 91, "RESOURCE_NOT_FOUND", false, "What the request names is not known";
    DuplicateResource = 92, "DUPLICATE_RESOURCE", false, "The request names the same thing twice";
    UnacceptableCredential = 93, "UNACCEPTABLE_CREDENTIAL", false, "The credential does not meet the rules";
    InconsistentVoterSet = 94, "INCONSISTENT_VOTER_SET", false, "Sender and receiver disagree on the voters";
    InvalidUpdateVersion = 95, "INVALID_UPDATE_VERSION", false, "The update is based on an older version";
    FeatureUpdateFailed = 96, "FEATURE_UPDATE_FAILED", false, "The feature could not be updated";
    PrincipalDeserializationFailure = 97, "PRINCIPAL_DESERIALIZATION_FAILURE", false, "The forwarded principal cannot be read";
    SnapshotNotFound = 98, "SNAPSHOT_NOT_FOUND", false, "The snapshot is not known";
    PositionOutOfRange = 99, "POSITION_OUT_OF_RANGE", false, "The position is outside the snapshot";
    UnknownTopicId = 100, "UNKNOWN_TOPIC_ID", true, "The server does not host a topic of this id";
    DuplicateBrokerRegistration = 101, "DUPLICATE_BROKER_REGISTRATION", false, "A broker of this id is already registered";
    BrokerIdNotRegistered = 102, "BROKER_ID_NOT_REGISTERED", false, "The broker id is not registered";
    InconsistentTopicId = 103, "INCONSISTENT_TOPIC_ID", true, "The topic id differs from the one in the log";
    InconsistentClusterId = 104, "INCONSISTENT_CLUSTER_ID", false, "The cluster id differs";
    TransactionalIdNotFound = 105, "TRANSACTIONAL_ID_NOT_FOUND", false, "The transactional id is not known";
    FetchSessionTopicIdError = 106, "FETCH_SESSION_TOPIC_ID_ERROR", true, "The fetch session mixes topic names and topic ids";
    IneligibleReplica = 107, "INELIGIBLE_REPLICA", false, "The replica may not join the ISR";
    NewLeaderElected = 108, "NEW_LEADER_ELECTED", false, "The change led to a new leader; adopt the new state";
    OffsetMovedToTieredStorage = 109, "OFFSET_MOVED_TO_TIERED_STORAGE", false, "The offset lies in tiered storage";
    FencedMemberEpoch = 110, "FENCED_MEMBER_EPOCH", false, "The member's epoch is fenced; join again";
    UnreleasedInstanceId = 111, "UNRELEASED_INSTANCE_ID", false, "The instance id is still used by another member";
    UnsupportedAssignor = 112, "UNSUPPORTED_ASSIGNOR", false, "The assignor is not supported by the group";
    StaleMemberEpoch = 113, "STALE_MEMBER_EPOCH", false, "The member's epoch is old; retry with the new one";
    MismatchedEndpointType = 114, "MISMATCHED_ENDPOINT_TYPE", false, "The request went to the wrong kind of endpoint";
    UnsupportedEndpointType = 115, "UNSUPPORTED_ENDPOINT_TYPE", false, "The kind of endpoint is not supported";
    UnknownControllerId = 116, "UNKNOWN_CONTROLLER_ID", false, "The controller id is not known";
    UnknownSubscriptionId = 117, "UNKNOWN_SUBSCRIPTION_ID", false, "The telemetry subscription is not known";
    TelemetryTooLarge = 118, "TELEMETRY_TOO_LARGE", false, "The telemetry is larger than the broker takes";
    InvalidRegistration = 119, "INVALID_REGISTRATION", false, "The broker's registration is not valid";
    TransactionAbortable = 120, "TRANSACTION_ABORTABLE", false, "The transaction met an error; abort it";
    InvalidRecordState = 121, "INVALID_RECORD_STATE", false, "The record's state does not allow the acknowledgement";
    ShareSessionNotFound = 122, "SHARE_SESSION_NOT_FOUND", true, "The share session is not known";
    InvalidShareSessionEpoch = 123, "INVALID_SHARE_SESSION_EPOCH", true, "The share session's epoch is another one";
    FencedStateEpoch = 124, "FENCED_STATE_EPOCH", false, "The share coordinator's state epoch is older";
    InvalidVoterKey = 125, "INVALID_VOTER_KEY", false, "The voter's key is not that of the receiver";
    DuplicateVoter = 126, "DUPLICATE_VOTER", false, "The voter is already in the set";
    VoterNotFound = 127, "VOTER_NOT_FOUND", false, "The voter is not in the set";
    InvalidRegularExpression = 128, "INVALID_REGULAR_EXPRESSION", false, "The regular expression is not valid";
    RebootstrapRequired = 129, "REBOOTSTRAP_REQUIRED", false, "The client's metadata is stale; bootstrap again";
}

impl ErrorCode {
    /// No error.
    #[must_use]
    pub const fn is_none(self) -> bool {
        matches!(self, Self::None)
    }

    /// `Ok` for no error, else the code.
    ///
    /// # Errors
    /// The code itself.
    pub const fn into_result(self) -> Result<(), Self> {
        match self {
            Self::None => Ok(()),
            code => Err(code),
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.name(), self.code(), self.message())
    }
}

impl std::error::Error for ErrorCode {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_exactly_one_code() {
        for code in i16::MIN..=i16::MAX {
            assert_eq!(ErrorCode::from_code(code).code(), code);
        }
        assert!(ErrorCode::ALL.is_sorted_by_key(|code| code.code()));
        assert_eq!(ErrorCode::default(), ErrorCode::None);
    }
}
