//! What a server is told at its birth, with defaults and limits in one table.
//!
//! Called by the shell and the simulator; read by all of `server/` and `consensus/`. Invariant:
//! [`Config::validate`] has accepted it before a server exists. It does not know files or flags.

use coordinator_protocol::FRAME_BYTES_MAX;

use super::limits::{REPLY_BYTES_MAX_MIN, REQUEST_BYTES_MAX_MAX, REQUEST_BYTES_MAX_MIN};
use super::sasl::SaslConfig;
use crate::ServerId;

pub use crate::members::MEMBERS_MAX;
use crate::members::{Member, Members, Role};
use crate::watch::WatchLimits;

/// Settings of one member. All times are milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This server; one of `members`, or an observer among `servers`.
    pub id: ServerId,
    /// All voting members, sorted, without repetition.
    pub members: Vec<ServerId>,
    /// The same with their addresses, observers too, where the settings tell them: what the log begins with when members may
    /// change. Empty for a server that stands alone.
    pub servers: Members,
    /// Whether members may be changed over the protocol.
    pub reconfig_enabled: bool,
    /// Where election jitter comes from, and what tells this life from earlier ones: should differ
    /// between members and lives.
    pub seed: u64,
    /// Length of a consensus tick.
    pub tick_ms: u64,
    /// Ticks between two heartbeats of the leader.
    pub heartbeat_ticks: usize,
    /// Ticks without a leader before a follower campaigns (up to twice as many, by jitter).
    /// `tick_ms * election_ticks` should not be under a second on a busy machine: a killed leader
    /// is noticed at once by its closed sockets, and only a silent one by this.
    pub election_ticks: usize,
    /// Lower bound of a session's time-out.
    pub session_timeout_ms_min: u32,
    /// Upper bound of a session's time-out.
    pub session_timeout_ms_max: u32,
    /// How long a handshake may wait for a leader, for its log entry, or for this server to have
    /// applied what the client has seen.
    pub handshake_wait_ms: u64,
    /// Upper bound for answering without a confirmed leader (safety.md A7).
    pub unconfirmed_ms_max: u64,
    /// A snapshot is taken after this many applied entries...
    pub snapshot_entries: u64,
    /// ...or when the log since the last one has this many bytes, and as many as that one.
    pub snapshot_bytes: u64,
    /// Entries kept before a snapshot so that a follower that is a little behind needs no snapshot: who gets one closes all
    /// its clients...
    pub log_entries_kept: u64,
    /// ...as long as they have no more bytes than this, in memory, beside those since the snapshot.
    pub log_bytes_kept: u64,
    /// With those since the snapshot so many more stay in memory, however many came since.
    pub log_bytes_kept_since: u64,
    /// Bytes in one chunk of a snapshot that is sent to a follower.
    pub snapshot_chunk_bytes: usize,
    /// Bytes of the largest request, which the shell keeps to; what sets watches again has a limit of its own. The same at
    /// all members: a node is as large as the one allowed that wrote it.
    pub request_bytes_max: usize,
    /// Bytes of the largest answer to a read, without its length prefix; what would be larger is answered by -127. 0 for any.
    pub reply_bytes_max: usize,
    /// How many watches there may be on this server.
    pub watch_limits: WatchLimits,
    /// Sessions that live and that one client has made here, by its certificate or address; one more is refused. 0 for any.
    pub sessions_per_client_max: usize,
    /// Proposals that may be on their way at once; requests that come meanwhile share the next.
    pub proposals_in_flight_max: usize,
    /// Changes kept for subscribers that resume.
    pub subscription_history_max: usize,
    /// Between two looks of the leader for containers and TTL nodes that nothing keeps any more.
    pub container_check_ms: u64,
    /// Whether each read first asks a quorum what is committed, as if a sync stood before it.
    pub linearizable_reads: bool,
    /// Free bytes of the disk, beside those for a snapshot, below which clients' writes are refused; 0 for never.
    pub disk_free_bytes_min: u64,
    /// Whether clients that asked for it are served reads without a quorum.
    pub read_only_mode: bool,
    /// Whether changes and denials are told for an audit log.
    pub audit: bool,
    /// Whose credentials have this digest (`super:` and Base64) stands above all access lists.
    pub super_digest: Option<String>,
    /// Whether everybody who connects here stands above all access lists.
    pub skip_acl: bool,
    /// Users who can prove their password by SASL.
    pub sasl: SaslConfig,
    /// A bug put in on purpose.
    #[cfg(planted)]
    pub planted: Option<crate::planted::Planted>,
}

/// Why a configuration cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The member list is empty, too long, unsorted or has a repetition.
    #[error("members must be 1 to 9 different server ids in ascending order")]
    Members,
    /// `id` is not in `members`.
    #[error("this server's id must be one of the members")]
    NotMember,
    /// A server id is outside 1..=254.
    #[error("server ids must be 1 to 254")]
    ServerId,
    /// Others could not find a member there, once the log says where the members are.
    #[error("with reconfigEnabled no server may be at an address that stands for all")]
    Nowhere,
    /// Requests would not fit into the log, or hardly any would be taken.
    #[error(
        "requests may be limited (jute.maxbuffer) to {REQUEST_BYTES_MAX_MIN} to {REQUEST_BYTES_MAX_MAX} bytes: an entry of the log carries \
         no more"
    )]
    RequestBytes,
    /// What is never refused would not fit.
    #[error(
        "answers to reads may be limited (maxResponseBytes) to {REPLY_BYTES_MAX_MIN} bytes and more, or 0 for any"
    )]
    ReplyBytes,
    /// A time or count that must be positive is zero, or two of them contradict each other.
    #[error("{0} is out of range")]
    Range(&'static str),
}

impl Config {
    /// The defaults for a member of this ensemble.
    #[must_use]
    pub fn new(id: ServerId, members: Vec<ServerId>) -> Self {
        Self {
            id,
            members,
            servers: Members::new(),
            reconfig_enabled: false,
            seed: 0,
            tick_ms: 50,
            heartbeat_ticks: 2,
            election_ticks: 20,
            session_timeout_ms_min: 4_000,
            session_timeout_ms_max: 40_000,
            handshake_wait_ms: 5_000,
            unconfirmed_ms_max: 2_000,
            snapshot_entries: 100_000,
            snapshot_bytes: 128 * 1024 * 1024,
            log_entries_kept: 10_000,
            log_bytes_kept: 32 * 1024 * 1024,
            log_bytes_kept_since: 16 * 1024 * 1024,
            snapshot_chunk_bytes: 256 * 1024,
            request_bytes_max: FRAME_BYTES_MAX,
            reply_bytes_max: 0,
            watch_limits: WatchLimits::default(),
            sessions_per_client_max: 0,
            proposals_in_flight_max: 2,
            subscription_history_max: 100_000,
            container_check_ms: 60_000,
            linearizable_reads: false,
            disk_free_bytes_min: 64 * 1024 * 1024,
            read_only_mode: false,
            audit: false,
            super_digest: None,
            skip_acl: false,
            sasl: SaslConfig::default(),
            #[cfg(planted)]
            planted: None,
        }
    }

    /// Checks everything that the rest of the core relies on.
    ///
    /// # Errors
    /// Any variant of [`ConfigError`]; never worth a retry.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sorted = self.members.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
        if self.members.is_empty() || self.members.len() > MEMBERS_MAX || !sorted {
            return Err(ConfigError::Members);
        }
        if self.members.iter().any(|member| !(1..=254).contains(&member.get())) {
            return Err(ConfigError::ServerId);
        }
        if self.reconfig_enabled && self.servers.values().any(Member::is_nowhere) {
            return Err(ConfigError::Nowhere);
        }
        let own = self.servers.get(&self.id);
        let is_observer = own.is_some_and(|own| own.role() == Role::Observer);
        if !self.members.contains(&self.id) && !is_observer {
            return Err(ConfigError::NotMember);
        }
        if !(REQUEST_BYTES_MAX_MIN..=REQUEST_BYTES_MAX_MAX).contains(&self.request_bytes_max) {
            return Err(ConfigError::RequestBytes);
        }
        if (1..REPLY_BYTES_MAX_MIN).contains(&self.reply_bytes_max) {
            return Err(ConfigError::ReplyBytes);
        }
        let positive = [
            ("tick_ms", self.tick_ms),
            ("heartbeat_ticks", self.heartbeat_ticks as u64),
            ("session_timeout_ms_min", u64::from(self.session_timeout_ms_min)),
            ("handshake_wait_ms", self.handshake_wait_ms),
            ("unconfirmed_ms_max", self.unconfirmed_ms_max),
            ("container_check_ms", self.container_check_ms),
            ("snapshot_entries", self.snapshot_entries),
            ("snapshot_bytes", self.snapshot_bytes),
            ("snapshot_chunk_bytes", self.snapshot_chunk_bytes as u64),
            ("proposals_in_flight_max", self.proposals_in_flight_max as u64),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::Range(name));
        }
        if self.election_ticks <= self.heartbeat_ticks {
            return Err(ConfigError::Range("election_ticks"));
        }
        if self.session_timeout_ms_max < self.session_timeout_ms_min
            || i32::try_from(self.session_timeout_ms_max).is_err()
        {
            return Err(ConfigError::Range("session_timeout_ms_max"));
        }
        Ok(())
    }
}
