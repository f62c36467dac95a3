//! What a server says about itself: for `srvr`, `mntr`, HTTP and metrics.
//!
//! Called by the shell at any time; built by [`super::Server::status`]. Invariant: reading it
//! changes nothing. It does not know the formats in which it is shown.

use coordinator_protocol::Zxid;

use super::room::DiskRoom;
use super::standing::Links;
use super::traffic::{Sizes, Traffic};
use crate::ServerId;

/// Part in the ensemble, in ZooKeeper's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The only member.
    Standalone,
    /// In office.
    Leader,
    /// Knows a leader.
    Follower,
    /// Knows one, and never votes.
    Observer,
    /// Knows no leader at the moment, or is no member.
    Looking,
    /// Stopped being a voter after a failed write.
    Halted,
}

/// What a server that comes up has to apply before it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lack {
    /// It has applied the log up to here...
    pub applied: u64,
    /// ...and its leader up to there at least; nothing before that said so.
    pub committed: Option<u64>,
}

impl Status {
    /// Whether clients find here what the ensemble has.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.confirmed && self.lack.is_none()
    }
}

/// A reading of all gauges and counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// This server.
    pub id: ServerId,
    /// Its part.
    pub mode: Mode,
    /// Who leads, as far as known.
    pub leader: Option<ServerId>,
    /// Whether a leader with a quorum was heard of within the bound of safety.md A7.
    pub confirmed: bool,
    /// What it lacks of what clients should find here; "ready" is who is confirmed and lacks nothing.
    pub lack: Option<Lack>,
    /// Whether it is a member of the ensemble, as far as it knows.
    pub member: bool,
    /// Consensus term.
    pub term: u64,
    /// Committed log index.
    pub commit_index: u64,
    /// Applied log index.
    pub applied_index: u64,
    /// Last log index.
    pub last_index: u64,
    /// Bytes of log entries that wait for this server's disk.
    pub unsynced_bytes: u64,
    /// Index of the last snapshot saved or installed.
    pub snapshot_index: u64,
    /// Last applied zxid.
    pub zxid: Zxid,
    /// Open client connections, handshakes included.
    pub connections: usize,
    /// Requests received and not yet answered.
    pub outstanding: usize,
    /// Sessions of the ensemble.
    pub sessions: usize,
    /// Nodes in the tree.
    pub nodes: usize,
    /// Ephemeral nodes in the tree.
    pub ephemerals: usize,
    /// Approximate bytes of paths and data.
    pub data_bytes: u64,
    /// Watches registered here.
    pub watches: usize,
    /// Subscriptions open here.
    pub subscriptions: usize,
    /// Requests received since start.
    pub received: u64,
    /// Frames sent since start.
    pub sent: u64,
    /// Shortest time from request to reply, ms; 0 before the first.
    pub latency_ms_min: u64,
    /// Longest time from request to reply, ms.
    pub latency_ms_max: u64,
    /// Sum over all replies, ms.
    pub latency_ms_sum: u64,
    /// Replies counted in the three above.
    pub latency_count: u64,
    /// Peers whose stream works.
    pub peers_up: usize,
    /// Who of the other voting members they are, and who are not.
    pub links: Links,
    /// Room on the disks.
    pub disk: DiskRoom,
    /// Whether clients that asked for it are served reads without a quorum.
    pub read_only: bool,
    /// Connections that are served so.
    pub local_sessions: usize,
    /// What came and went since the last reset.
    pub since_reset: Traffic,
    /// Bytes of answers since then.
    pub answer_sizes: Sizes,
    /// Bytes of log entries proposed here since then.
    pub proposal_sizes: Sizes,
    /// How long it has been in office, ms; nothing where it is not.
    pub office_ms: Option<u64>,
    /// Requests here that wait for a quorum's word.
    pub pending_syncs: usize,
    /// Last zxid in the last snapshot saved or installed.
    pub snapshot_zxid: Option<Zxid>,
}
