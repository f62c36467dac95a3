//! What the consumer's handle and its driver share.
//!
//! *Called by* `consumer`, `driver`, `membership`. *Calls* the cores.
//!
//! Invariant: `processed <= the caller's position`: what the last call of poll gave out counts as processed when the next
//! one begins, and only what was processed is committed unasked.

use std::collections::{BTreeMap, VecDeque};

use client_core::TopicPartition;
use client_core::consumer::read::Position;
use client_core::consumer::{Consumer as Fetcher, Fetched, Settings, Start, Trouble};
use client_core::group::{self, GroupError, Member, Notice};
use client_protocol::ErrorCode;
use tokio::sync::oneshot;

use crate::error::ClientError;

/// The token of a commit that nobody waits for.
pub(super) const UNASKED: u64 = 0;

/// How a commit comes to its end.
pub(super) type Done = oneshot::Receiver<Result<(), GroupError>>;

/// What the group told, and how far the caller is with it.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) notice: Notice,
    /// The listener has heard of it, and said this commit, which a call that is dropped leaves under way.
    pub(super) commit: Option<Done>,
    pub(super) is_told: bool,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) fetcher: Fetcher,
    pub(super) member: Option<Member>,
    /// What the member wants done, from calls of the handle's.
    pub(super) effects: Vec<group::Effect>,
    pub(super) notices: VecDeque<Notice>,
    /// What the caller is to be told after the records it was given last.
    pub(super) postponed: Option<Trouble>,
    pub(super) processed: BTreeMap<TopicPartition, Position>,
    pub(super) waiting: BTreeMap<u64, oneshot::Sender<Result<(), GroupError>>>,
    /// The driver has ended: nothing will happen any more.
    pub(super) is_over: bool,
    /// What the last unasked commit said.
    last_committed: BTreeMap<TopicPartition, Position>,
    auto_commit_ms: Option<u64>,
    auto_commit_at_ms: u64,
    next_token: u64,
}

impl State {
    pub(super) fn new(
        settings: Settings,
        member: Option<group::Settings>,
        auto_commit_ms: Option<u64>,
    ) -> Self {
        Self {
            fetcher: Fetcher::new(settings),
            member: member.map(Member::new),
            effects: Vec::new(),
            notices: VecDeque::new(),
            postponed: None,
            processed: BTreeMap::new(),
            waiting: BTreeMap::new(),
            is_over: false,
            last_committed: BTreeMap::new(),
            auto_commit_ms,
            auto_commit_at_ms: 0,
            next_token: UNASKED + 1,
        }
    }

    /// Nothing is assigned, and nobody will assign anything.
    pub(super) fn is_idle(&self) -> bool {
        self.fetcher.positions().next().is_none() && self.member.is_none()
    }

    /// The caller has dealt with what it was given.
    pub(super) fn caller_is_back(&mut self, now_ms: u64) {
        if let Some(member) = &mut self.member {
            member.caller_lives(now_ms);
            for (partition, position) in self.fetcher.positions() {
                if let Some(position) = position {
                    self.processed.insert(partition.clone(), position);
                }
            }
        }
    }

    /// Records for the caller, at most about `bytes_max`; the trouble that comes after them is postponed.
    pub(super) fn take(&mut self, bytes_max: usize) -> Vec<Fetched> {
        let mut all = Vec::new();
        let mut bytes = 0usize;
        while bytes < bytes_max {
            match self.fetcher.take() {
                Some(Ok(fetched)) => {
                    bytes += fetched.chunks.iter().map(|chunk| chunk.size()).sum::<usize>();
                    all.push(fetched);
                }
                Some(Err(trouble)) => {
                    self.postponed = Some(trouble);
                    break;
                }
                None => break,
            }
        }
        all
    }

    /// Reads a partition from `start` on; nothing of its former place counts any more.
    pub(super) fn seek(&mut self, partition: &TopicPartition, start: Start) {
        self.leave_place(partition);
        self.fetcher.seek(partition, start);
    }

    /// Reads a partition no more.
    pub(super) fn unassign(&mut self, partition: &TopicPartition) {
        self.leave_place(partition);
        self.fetcher.unassign(partition);
    }

    fn leave_place(&mut self, partition: &TopicPartition) {
        self.processed.remove(partition);
        self.postponed.take_if(|trouble| trouble.partition() == partition);
    }

    pub(super) fn token(&mut self) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        token
    }

    /// What was processed of these partitions.
    pub(super) fn processed_of(
        &self,
        is_meant: impl Fn(&TopicPartition) -> bool,
    ) -> Vec<(TopicPartition, Position)> {
        let processed = self.processed.iter().filter(|(partition, _)| is_meant(partition));
        processed.map(|(partition, position)| (partition.clone(), *position)).collect()
    }

    /// Commits unasked, when it is time; when to look again.
    pub(super) fn commit_unasked(&mut self, now_ms: u64) -> Option<u64> {
        let interval_ms = self.auto_commit_ms?;
        self.member.as_ref()?;
        if self.auto_commit_at_ms > now_ms {
            return Some(self.auto_commit_at_ms);
        }
        self.auto_commit_at_ms = now_ms.saturating_add(interval_ms);
        let new = |partition: &TopicPartition| {
            self.fetcher.is_assigned(partition)
                && self.processed.get(partition) != self.last_committed.get(partition)
        };
        let offsets = self.processed_of(new);
        if !offsets.is_empty() {
            self.last_committed.extend(offsets.iter().cloned());
            if let Some(member) = &mut self.member {
                member.commit(UNASKED, offsets, now_ms);
            }
        }
        Some(self.auto_commit_at_ms)
    }

    /// The driver ends: whoever waits for it waits in vain.
    pub(super) fn end(&mut self) {
        self.is_over = true;
        self.waiting.clear();
    }

    /// A commit has come to its end.
    pub(super) fn commit_done(&mut self, token: u64, result: Result<(), GroupError>) {
        if token == UNASKED {
            if let Err(error) = &result {
                tracing::warn!(%error, "offsets not committed");
                // All of it again next time.
                self.last_committed.clear();
            }
        } else if let Some(waiting) = self.waiting.remove(&token) {
            // The caller may have given up.
            let _given_up = waiting.send(result);
        }
    }

    /// Takes note of what the group tells. What is lost is not read any further from this moment on; what is given is
    /// read ahead, though the caller hears of it first.
    pub(super) fn told(&mut self, notice: Notice) {
        match &notice {
            Notice::Assigned(partitions) => {
                for partition in partitions {
                    self.seek(partition, Start::Elsewhere);
                }
                if let Some(member) = &mut self.member {
                    member.want_committed(partitions.iter().cloned());
                }
            }
            Notice::Lost(partitions) => self.let_go(partitions),
            // It is read on until the caller has let go.
            Notice::Revoked { .. } | Notice::Out(_) => {}
        }
        self.notices.push_back(notice);
    }

    pub(super) fn let_go(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.unassign(partition);
            self.last_committed.remove(partition);
        }
    }
}

pub(super) fn error(trouble: Trouble) -> ClientError {
    match trouble {
        Trouble::OutOfRange { ref partition, .. } | Trouble::NoPosition(ref partition) => {
            let code = ErrorCode::OffsetOutOfRange;
            ClientError::broker(format!("reading {partition}"), code, Some(trouble.to_string()))
        }
        Trouble::Refused { partition, code } => {
            ClientError::broker(format!("reading {partition}"), code, None)
        }
        Trouble::Truncated { partition, position, end } => ClientError::Truncated {
            partition: partition.to_string(),
            position: position.get(),
            end: end.get(),
        },
        Trouble::Unreadable { partition, offset, source } => ClientError::Unreadable {
            partition: partition.to_string(),
            offset: offset.get(),
            source,
        },
    }
}
