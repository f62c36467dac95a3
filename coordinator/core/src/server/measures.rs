//! What is counted while requests are answered, for metrics.
//!
//! Called by `reply` and `apply`, read by the shell. Calls nothing. Invariant: to count is a few additions, whatever is
//! counted; what counts up never falls. It does not know names of metrics.

use coordinator_protocol::{EventType, FRAME_BYTES_MAX, OpCode};

use super::limits::LARGE_REPLY_BYTES;
use super::step::Server;
use crate::watch::Notification;

/// Upper bounds of the times from request to reply.
const LATENCY_BOUNDS_MS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000];
/// Upper bounds of the notifications that one change fires.
const FAN_OUT_BOUNDS: [u64; 6] = [0, 1, 10, 100, 1_000, 10_000];

/// Upper bounds of the bytes of answers; among them, within a byte, what Java's clients take unless told, of today and before 3.6.
const REPLY_BOUNDS: [u64; 7] =
    [1 << 10, 16 << 10, 128 << 10, FRAME_BYTES_MAX as u64, 4 << 20, 16 << 20, 64 << 20];

/// The operations that are counted apart, by ZooKeeper's names; those of no name here share the last place.
const OPERATIONS: [(OpCode, &str); 33] = [
    (OpCode::Create, "create"),
    (OpCode::Delete, "delete"),
    (OpCode::Exists, "exists"),
    (OpCode::GetData, "getData"),
    (OpCode::SetData, "setData"),
    (OpCode::GetAcl, "getACL"),
    (OpCode::SetAcl, "setACL"),
    (OpCode::GetChildren, "getChildren"),
    (OpCode::Sync, "sync"),
    (OpCode::Ping, "ping"),
    (OpCode::GetChildren2, "getChildren2"),
    (OpCode::Check, "check"),
    (OpCode::Multi, "multi"),
    (OpCode::Create2, "create2"),
    (OpCode::Reconfig, "reconfig"),
    (OpCode::CheckWatches, "checkWatches"),
    (OpCode::RemoveWatches, "removeWatches"),
    (OpCode::CreateContainer, "createContainer"),
    (OpCode::CreateTtl, "createTTL"),
    (OpCode::MultiRead, "multiRead"),
    (OpCode::Auth, "auth"),
    (OpCode::SetWatches, "setWatches"),
    (OpCode::Sasl, "sasl"),
    (OpCode::GetEphemerals, "getEphemerals"),
    (OpCode::GetAllChildrenNumber, "getAllChildrenNumber"),
    (OpCode::SetWatches2, "setWatches2"),
    (OpCode::AddWatch, "addWatch"),
    (OpCode::WhoAmI, "whoAmI"),
    (OpCode::Subscribe, "subscribe"),
    (OpCode::Unsubscribe, "unsubscribe"),
    (OpCode::SessionOptions, "sessionOptions"),
    (OpCode::GetChildrenPage, "getChildrenPage"),
    (OpCode::CloseSession, "closeSession"),
];
const OTHER: &str = "other";

/// With which others an operation's latency is counted.
enum Kind {
    /// Answered from the tree or the tables of watches and subscriptions.
    Read,
    /// Has a place in the log, unless it is refused before.
    Update,
    /// Says nothing of either: who somebody is, who leads, that somebody lives, and what is not known.
    Neither,
}

/// By the operation alone: a write that is refused at once is not a read.
fn kind(op: OpCode) -> Kind {
    match op {
        OpCode::Create
        | OpCode::Create2
        | OpCode::CreateContainer
        | OpCode::CreateTtl
        | OpCode::Delete
        | OpCode::DeleteContainer
        | OpCode::SetData
        | OpCode::SetAcl
        | OpCode::Check
        | OpCode::Multi
        | OpCode::Reconfig
        | OpCode::SessionOptions
        | OpCode::CreateSession
        | OpCode::CloseSession => Kind::Update,
        OpCode::Exists
        | OpCode::GetData
        | OpCode::GetAcl
        | OpCode::GetChildren
        | OpCode::GetChildren2
        | OpCode::GetChildrenPage
        | OpCode::GetEphemerals
        | OpCode::GetAllChildrenNumber
        | OpCode::MultiRead
        | OpCode::Sync
        | OpCode::AddWatch
        | OpCode::CheckWatches
        | OpCode::RemoveWatches
        | OpCode::SetWatches
        | OpCode::SetWatches2
        | OpCode::Subscribe
        | OpCode::Unsubscribe => Kind::Read,
        OpCode::Ping
        | OpCode::Auth
        | OpCode::Sasl
        | OpCode::WhoAmI
        | OpCode::TransferLeader
        | OpCode::DescribeEnsemble
        | OpCode::Error
        | OpCode::Other(_) => Kind::Neither,
    }
}

/// ZooKeeper's name of an operation.
pub(super) fn name(op: OpCode) -> &'static str {
    OPERATIONS.iter().find(|(known, _)| *known == op).map_or(OTHER, |(_, name)| name)
}

/// Whether an answer to it says what was done.
pub(super) fn is_update(op: OpCode) -> bool {
    matches!(kind(op), Kind::Update)
}

/// How often something came to how much, in fixed steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// Inclusive upper bounds, ascending.
    pub bounds: &'static [u64],
    /// One for each bound, for what is not within the one before, and one for all beyond.
    pub counts: Vec<u64>,
    /// Of all values.
    pub sum: u64,
}

impl Histogram {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len().saturating_add(1)], sum: 0 }
    }

    fn add(&mut self, value: u64) {
        let place = self.bounds.iter().take_while(|bound| **bound < value).count();
        if let Some(count) = self.counts.get_mut(place) {
            *count = count.saturating_add(1);
        }
        self.sum = self.sum.saturating_add(value);
    }
}

/// How often, and how much in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// How often.
    pub count: u64,
    /// How much in all.
    pub sum: u64,
}

impl Summary {
    fn add(&mut self, value: u64) {
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.saturating_add(value);
    }
}

/// Notifications of each kind of event, by the changes that fired any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fired {
    /// A node was created.
    pub created: Summary,
    /// A node was deleted.
    pub deleted: Summary,
    /// A node's data was replaced.
    pub changed: Summary,
    /// A child came or went.
    pub children: Summary,
}

/// Counted since start.
#[derive(Debug)]
pub(super) struct Counted {
    /// By place in `OPERATIONS`, the rest last.
    latencies: Vec<Histogram>,
    reads: Summary,
    updates: Summary,
    fan_out: Histogram,
    fired: Fired,
    replies: Histogram,
    large_replies: u64,
    pub(super) refused_replies: u64,
    pub(super) refused_watches: u64,
    pub(super) refused_sessions: u64,
}

impl Default for Counted {
    fn default() -> Self {
        Self {
            latencies: vec![Histogram::new(&LATENCY_BOUNDS_MS); OPERATIONS.len().saturating_add(1)],
            reads: Summary::default(),
            updates: Summary::default(),
            fan_out: Histogram::new(&FAN_OUT_BOUNDS),
            fired: Fired::default(),
            replies: Histogram::new(&REPLY_BOUNDS),
            large_replies: 0,
            refused_replies: 0,
            refused_watches: 0,
            refused_sessions: 0,
        }
    }
}

impl Counted {
    /// A request was answered, or refused, after so long.
    pub(super) fn answered(&mut self, op: OpCode, took_ms: u64) {
        let known = OPERATIONS.iter().position(|(known, _)| *known == op);
        if let Some(histogram) = self.latencies.get_mut(known.unwrap_or(OPERATIONS.len())) {
            histogram.add(took_ms);
        }
        match kind(op) {
            Kind::Update => self.updates.add(took_ms),
            Kind::Read => self.reads.add(took_ms),
            Kind::Neither => {}
        }
    }

    /// A request is answered by so many bytes.
    pub(super) fn replied(&mut self, bytes: usize) {
        self.replies.add(bytes as u64);
        self.large_replies =
            self.large_replies.saturating_add(u64::from(bytes >= LARGE_REPLY_BYTES));
    }

    /// A change fired these.
    pub(super) fn fired(&mut self, notifications: &[Notification]) {
        self.fan_out.add(notifications.len() as u64);
        for (event, summary) in [
            (EventType::NodeCreated, &mut self.fired.created),
            (EventType::NodeDeleted, &mut self.fired.deleted),
            (EventType::NodeDataChanged, &mut self.fired.changed),
            (EventType::NodeChildrenChanged, &mut self.fired.children),
        ] {
            let count = notifications.iter().filter(|told| told.event == event).count();
            if count > 0 {
                summary.add(count as u64);
            }
        }
    }
}

/// A reading of what was counted, and of queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measures {
    /// Milliseconds from request to reply, of operations that were asked for.
    pub latencies_ms: Vec<(&'static str, Histogram)>,
    /// The same of reads, of watches and subscriptions too.
    pub reads_ms: Summary,
    /// The same of writes, refused ones too.
    pub updates_ms: Summary,
    /// Notifications by change.
    pub fan_out: Histogram,
    /// The same by kind of event.
    pub fired: Fired,
    /// Bytes of answers to requests.
    pub replies_bytes: Histogram,
    /// Answers that are larger than what Java's clients take unless they are told to take more.
    pub large_replies: u64,
    /// Reads that were answered by an error because their answer would have been larger than the setting allows.
    pub refused_replies: u64,
    /// Requests that were answered by an error because there would have been too many watches.
    pub refused_watches: u64,
    /// Sessions that were refused because there would have been too many.
    pub refused_sessions: u64,
    /// Voting members.
    pub quorum_size: usize,
    /// Of a leader: other members with a vote that have everything that is committed.
    pub synced_followers: usize,
    /// The same of members without one.
    pub synced_observers: usize,
    /// Commands that wait at the leader for a place in an entry.
    pub commands_waiting: usize,
    /// Bytes of those.
    pub commands_waiting_bytes: usize,
    /// Entries that the leader has proposed and not applied.
    pub entries_in_flight: usize,
    /// Records that the audit log was not told because the disk had little room.
    pub audit_left_out: u64,
    /// Bytes of requests that are not answered yet.
    pub outstanding_bytes: usize,
}

impl Server {
    /// A reading for metrics. Copies some kilobytes.
    #[must_use]
    pub fn measures(&self) -> Measures {
        let counted = &self.counters.counted;
        let names = OPERATIONS.iter().map(|(_, name)| *name).chain([OTHER]);
        let latencies = names.zip(&counted.latencies);
        let (commands_waiting, commands_waiting_bytes, entries_in_flight) = self.proposals.depths();
        Measures {
            latencies_ms: latencies
                .filter(|(_, found)| found.counts.iter().any(|count| *count > 0))
                .map(|(name, found)| (name, found.clone()))
                .collect(),
            reads_ms: counted.reads,
            updates_ms: counted.updates,
            fan_out: counted.fan_out.clone(),
            fired: counted.fired,
            replies_bytes: counted.replies.clone(),
            large_replies: counted.large_replies,
            refused_replies: counted.refused_replies,
            refused_watches: counted.refused_watches,
            refused_sessions: counted.refused_sessions,
            quorum_size: self.consensus.members().voters.len(),
            synced_followers: self.consensus.synced_followers(),
            synced_observers: self.consensus.synced_observers(),
            commands_waiting,
            commands_waiting_bytes,
            entries_in_flight,
            audit_left_out: self.counters.audit_left_out,
            outstanding_bytes: self.counters.pending_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_counts_up_to_its_bound_and_beyond_the_last_one_too() {
        let mut histogram = Histogram::new(&FAN_OUT_BOUNDS);
        for value in [0, 1, 2, 10, 11, 10_000, 10_001, 50_000] {
            histogram.add(value);
        }
        assert_eq!(histogram.counts, [1, 1, 2, 1, 0, 1, 2]);
        assert_eq!(histogram.sum, 70_025);
    }

    #[test]
    fn operations_without_a_name_share_a_place() {
        let mut counted = Counted::default();
        counted.answered(OpCode::Other(9_999), 3);
        counted.answered(OpCode::Other(8_888), 3);
        counted.answered(OpCode::Create, 7);
        counted.answered(OpCode::Exists, 2);
        counted.answered(OpCode::Ping, 1);
        assert_eq!(counted.latencies.last().unwrap().counts.iter().sum::<u64>(), 2);
        assert_eq!(counted.latencies[0].sum, 7);
        assert_eq!(counted.reads, Summary { count: 1, sum: 2 });
        assert_eq!(counted.updates, Summary { count: 1, sum: 7 });
    }
}
