//! What a shard is told to do by the broker's configuration, and the limits it keeps by itself.
//!
//! *Called by* the broker's configuration and the shard. Invariant: everything that clients can make
//! a shard hold has a limit here.

/// Settings of a shard; names and defaults as the broker's.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `group.min.session.timeout.ms`.
    pub session_timeout_min_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_max_ms: i32,
    /// `group.initial.rebalance.delay.ms`: how long an empty group waits for more members.
    pub initial_rebalance_delay_ms: u64,
    /// `group.max.size`: members of a group.
    pub members_max: usize,
    /// `offset.metadata.max.bytes`: the note beside an offset.
    pub offset_metadata_bytes_max: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub retention_check_ms: u64,
    /// `offsets.commit.timeout.ms`: how long a commit waits for the in-sync replicas before its
    /// client is told that the outcome is unknown.
    pub commit_timeout_ms: u64,
    /// Largest batch that the topic takes, in bytes.
    pub batch_bytes_max: usize,
    /// A bug put in on purpose.
    #[cfg(planted)]
    pub planted: Option<crate::planted::Planted>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            session_timeout_min_ms: 6_000,
            session_timeout_max_ms: 1_800_000,
            initial_rebalance_delay_ms: 300,
            members_max: 2_000,
            offset_metadata_bytes_max: 4_096,
            retention_ms: 7 * 24 * 3_600_000,
            retention_check_ms: 600_000,
            commit_timeout_ms: 5_000,
            batch_bytes_max: 1_048_588,
            #[cfg(planted)]
            planted: None,
        }
    }
}

/// Groups in one shard.
pub const GROUPS_MAX: usize = 50_000;
/// Longest group id, member id, instance id, protocol name, in bytes: records hold them as 16-bit
/// strings, and a shard many of them.
pub const NAME_BYTES_MAX: usize = 1_000;
/// Protocols that one member may know.
pub const PROTOCOLS_MAX: usize = 32;
/// Bytes of protocol names and metadata that the members of one group may bring together.
pub const GROUP_METADATA_BYTES_MAX: usize = 8 << 20;
/// Bytes that all members of a shard make it hold, with their work and with ids that were given out.
pub const MEMBER_BYTES_MAX: usize = 128 << 20;
/// What keeping a member, or an id that was given out, costs besides its texts.
pub const MEMBER_ENTRY_BYTES: usize = 512;
/// Bytes of all committed offsets of a shard, names and notes included.
pub const OFFSET_BYTES_MAX: usize = 128 << 20;
/// Writes of a shard that may be on their way.
pub const WRITES_MAX: usize = 10_000;
/// Bytes of the records of those writes; one alone may have more. The shard, the log and the answer
/// hold them, each in its own way, so they take about three times as much memory.
pub const WRITE_BYTES_MAX: usize = 64 << 20;
/// How long a new member may wait for its first generation: nobody hears whether it still lives.
pub const NEW_MEMBER_WAIT_MS: u64 = 300_000;
