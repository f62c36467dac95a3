//! The engine's messages in our own form, so that no protobuf is parsed from the network.
//!
//! Called by the engine, on the way out and in. Calls: nothing. Invariant: what arrives is a
//! message that the engine accepts without panicking: a kind that travels, contiguous entries
//! whose terms do not fall. It does not know the envelope it travels in.

use bytes::Bytes;
use raft::eraftpb;
use raft::eraftpb::MessageType;
use serde::{Deserialize, Serialize};

use super::record::{EntryKind, LogEntry};

/// Kinds of message that travel between members. Snapshots travel in chunks of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum RaftKind {
    Append,
    AppendResponse,
    RequestVote,
    RequestVoteResponse,
    Heartbeat,
    HeartbeatResponse,
    TimeoutNow,
    ReadIndex,
    ReadIndexResponse,
    RequestPreVote,
    RequestPreVoteResponse,
}

/// One message of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RaftMessage {
    kind: RaftKind,
    term: u64,
    log_term: u64,
    index: u64,
    commit: u64,
    commit_term: u64,
    reject: bool,
    reject_hint: u64,
    priority: i64,
    context: Bytes,
    entries: Vec<LogEntry>,
}

/// Takes the engine's message apart; `None` for kinds that never travel this way.
pub(super) fn outgoing(message: eraftpb::Message) -> Option<RaftMessage> {
    let kind = match message.msg_type {
        MessageType::MsgAppend => RaftKind::Append,
        MessageType::MsgAppendResponse => RaftKind::AppendResponse,
        MessageType::MsgRequestVote => RaftKind::RequestVote,
        MessageType::MsgRequestVoteResponse => RaftKind::RequestVoteResponse,
        MessageType::MsgHeartbeat => RaftKind::Heartbeat,
        MessageType::MsgHeartbeatResponse => RaftKind::HeartbeatResponse,
        MessageType::MsgTimeoutNow => RaftKind::TimeoutNow,
        MessageType::MsgReadIndex => RaftKind::ReadIndex,
        MessageType::MsgReadIndexResp => RaftKind::ReadIndexResponse,
        MessageType::MsgRequestPreVote => RaftKind::RequestPreVote,
        MessageType::MsgRequestPreVoteResponse => RaftKind::RequestPreVoteResponse,
        MessageType::MsgSnapshot
        | MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader => return None,
    };
    Some(RaftMessage {
        kind,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        commit: message.commit,
        commit_term: message.commit_term,
        reject: message.reject,
        reject_hint: message.reject_hint,
        priority: message.priority,
        context: message.context,
        entries: message.entries.into_iter().map(log_entry).collect(),
    })
}

/// Puts the engine's message together; `None` if no member of good faith can have sent it.
pub(super) fn incoming(from: u64, to: u64, message: RaftMessage) -> Option<eraftpb::Message> {
    if message.term == 0 && message.kind != RaftKind::ReadIndex {
        return None;
    }
    let shape_holds = match message.kind {
        RaftKind::Append => entries_follow(message.index, message.log_term, &message),
        RaftKind::ReadIndex | RaftKind::ReadIndexResponse => message.entries.len() == 1,
        _ => message.entries.is_empty(),
    };
    if !shape_holds {
        return None;
    }
    let mut built = eraftpb::Message::default();
    built.set_msg_type(match message.kind {
        RaftKind::Append => MessageType::MsgAppend,
        RaftKind::AppendResponse => MessageType::MsgAppendResponse,
        RaftKind::RequestVote => MessageType::MsgRequestVote,
        RaftKind::RequestVoteResponse => MessageType::MsgRequestVoteResponse,
        RaftKind::Heartbeat => MessageType::MsgHeartbeat,
        RaftKind::HeartbeatResponse => MessageType::MsgHeartbeatResponse,
        RaftKind::TimeoutNow => MessageType::MsgTimeoutNow,
        RaftKind::ReadIndex => MessageType::MsgReadIndex,
        RaftKind::ReadIndexResponse => MessageType::MsgReadIndexResp,
        RaftKind::RequestPreVote => MessageType::MsgRequestPreVote,
        RaftKind::RequestPreVoteResponse => MessageType::MsgRequestPreVoteResponse,
    });
    built.from = from;
    built.to = to;
    built.term = message.term;
    built.log_term = message.log_term;
    built.index = message.index;
    built.commit = message.commit;
    built.commit_term = message.commit_term;
    built.reject = message.reject;
    built.reject_hint = message.reject_hint;
    built.priority = message.priority;
    built.context = message.context;
    built.entries = message.entries.into_iter().map(raft_entry).collect::<Vec<_>>().into();
    Some(built)
}

impl RaftMessage {
    /// The same with what the leader knows to be committed, where it is a heartbeat. The engine's tell only as much of that
    /// as their receiver is known to have, and use no index.
    pub(super) fn with_leaders_commit(mut self, commit: u64) -> Self {
        if self.kind == RaftKind::Heartbeat {
            self.index = commit;
        }
        self
    }

    /// What a leader says to be committed.
    pub(super) fn leaders_commit(&self) -> u64 {
        if self.kind == RaftKind::Heartbeat { self.commit.max(self.index) } else { self.commit }
    }

    /// Whether only the leader of the message's term sends this.
    pub(super) fn comes_from_leader(&self) -> bool {
        matches!(self.kind, RaftKind::Append | RaftKind::Heartbeat)
    }

    /// Whether it brings entries that would have to be written.
    pub(super) fn brings_entries(&self) -> bool {
        !self.entries.is_empty()
    }

    /// The committed index that a heartbeat tells; the follower must hold all of it.
    pub(super) fn heartbeat_commit(&self) -> Option<u64> {
        (self.kind == RaftKind::Heartbeat).then_some(self.commit)
    }

    /// Whether it brings a change of the members.
    pub(super) fn brings_members(&self) -> bool {
        self.entries.iter().any(|entry| entry.kind == EntryKind::Members)
    }

    pub(super) fn term(&self) -> u64 {
        self.term
    }
}

/// Entries of an append continue its anchor one by one, and terms do not fall.
fn entries_follow(anchor_index: u64, anchor_term: u64, message: &RaftMessage) -> bool {
    let (mut index, mut term) = (anchor_index, anchor_term);
    message.entries.iter().all(|entry| {
        let follows = index.checked_add(1) == Some(entry.index)
            && term <= entry.term
            && entry.term <= message.term;
        (index, term) = (entry.index, entry.term);
        follows
    })
}

pub(super) fn log_entry(entry: eraftpb::Entry) -> LogEntry {
    let (kind, data) = match entry.entry_type {
        eraftpb::EntryType::EntryNormal => (EntryKind::Normal, entry.data),
        // Beside the engine's own form, which nobody reads again, stands ours.
        eraftpb::EntryType::EntryConfChange | eraftpb::EntryType::EntryConfChangeV2 => {
            (EntryKind::Members, entry.context)
        }
    };
    LogEntry { index: entry.index, term: entry.term, kind, data }
}

pub(super) fn raft_entry(entry: LogEntry) -> eraftpb::Entry {
    let LogEntry { index, term, kind, data } = entry;
    let built = eraftpb::Entry { term, index, ..eraftpb::Entry::default() };
    match kind {
        EntryKind::Normal => eraftpb::Entry { data, ..built },
        EntryKind::Members => {
            let entry_type = eraftpb::EntryType::EntryConfChangeV2;
            eraftpb::Entry { entry_type, context: data, ..built }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: coordinator_disk::envelope::Schema =
        coordinator_disk::envelope::Schema { kind: 0, version: 0 };

    fn append(entries: Vec<LogEntry>) -> RaftMessage {
        RaftMessage {
            kind: RaftKind::Append,
            term: 3,
            log_term: 2,
            index: 10,
            commit: 9,
            commit_term: 0,
            reject: false,
            reject_hint: 0,
            priority: 0,
            context: Bytes::new(),
            entries,
        }
    }

    fn entry(index: u64, term: u64) -> LogEntry {
        LogEntry { index, term, kind: EntryKind::Normal, data: Bytes::from_static(b"x") }
    }

    #[test]
    fn message_survives_the_way_out_and_in() {
        let message = append(vec![entry(11, 2), entry(12, 3)]);
        let built = incoming(1, 2, message.clone()).unwrap();
        assert_eq!((built.from, built.to, built.term), (1, 2, 3));
        assert_eq!(outgoing(built), Some(message));
    }

    #[test]
    fn entries_that_do_not_follow_are_refused() {
        for entries in [
            vec![entry(10, 2)],
            vec![entry(12, 2)],
            vec![entry(11, 1)],
            vec![entry(11, 4)],
            vec![entry(11, 3), entry(12, 2)],
            vec![entry(11, 3), entry(13, 3)],
        ] {
            assert_eq!(incoming(1, 2, append(entries)), None);
        }
        assert_eq!(incoming(1, 2, RaftMessage { term: 0, ..append(vec![]) }), None);
        let kind = RaftKind::ReadIndex;
        assert_eq!(incoming(1, 2, RaftMessage { kind, ..append(vec![]) }), None);
        let kind = RaftKind::Heartbeat;
        assert_eq!(incoming(1, 2, RaftMessage { kind, ..append(vec![entry(11, 3)]) }), None);
    }

    /// Members of different versions exchange these bytes: a change is a new version of the
    /// envelope in `server/peer`.
    #[test]
    fn golden_bytes_stay() {
        let message = append(vec![entry(11, 3)]);
        let bytes = coordinator_disk::envelope::encode(SCHEMA, &message).unwrap();
        let payload = &bytes[coordinator_disk::envelope::HEADER_BYTES..];
        assert_eq!(payload, [0, 3, 2, 10, 9, 0, 0, 0, 0, 0, 1, 11, 3, 0, 1, b'x']);
    }
}
