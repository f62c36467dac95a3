//! What people should hear of: what was refused, or soon will be.
//!
//! Called by who decides so; taken by the shell, which has a log. Calls nothing. Invariant: of each kind there is at most one
//! for each [`NOTICE_PAUSE_MS`], however often it happens, with how often it did since the one before; what is not taken takes
//! no more room. It does not know words.

use coordinator_protocol::SessionId;

use super::step::Server;
use crate::{Millis, ServerId};

/// Between two of one kind.
pub const NOTICE_PAUSE_MS: u64 = 10_000;

/// Something that happened, as of the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// An answer is larger than clients take that are not told to take more, or than this server's setting allows.
    LargeReply {
        /// The operation, by ZooKeeper's name.
        operation: &'static str,
        /// Whose data or children it asked for, cut; of many together none.
        path: Option<String>,
        /// What the answer has, or would have.
        bytes: usize,
        /// Who asked.
        session: SessionId,
        /// Whether it was answered by an error instead.
        is_refused: bool,
    },
    /// A subtree holds more than the soft limit of its quota.
    SoftQuota {
        /// Its top, cut.
        path: String,
        /// Of what: `count` or `bytes`.
        what: &'static str,
        /// How many there should be.
        limit: u64,
        /// How many there are.
        usage: u64,
    },
    /// A leader gave this server a snapshot in place of its log.
    SnapshotInstalled {
        /// Who leads.
        from: Option<ServerId>,
        /// Bytes of it.
        bytes: usize,
        /// Last log index inside.
        index: u64,
    },
    /// There would be too many sessions.
    SessionRefused {
        /// Who is counted, cut: the subject of a certificate, or an address.
        client: String,
        /// How many there may be: of one client, or of all.
        limit: usize,
    },
    /// Other members take larger requests than this server, or smaller ones.
    UnlikeLimits {
        /// This server, and bytes of its largest request.
        own: (ServerId, u64),
        /// The others, all of which are known to have another, and theirs.
        others: Vec<(ServerId, u64)>,
    },
    /// There would be too many watches.
    WatchesRefused {
        /// Who is counted, cut: the subject of a certificate, or an address.
        client: String,
        /// Who asked.
        session: SessionId,
        /// Paths that its connection watches.
        watches: usize,
        /// Those of all connections of this server.
        all: usize,
    },
}

impl Notice {
    const KINDS: usize = 8;

    fn kind(&self) -> usize {
        match self {
            Self::LargeReply { is_refused: false, .. } => 0,
            Self::LargeReply { is_refused: true, .. } => 1,
            Self::WatchesRefused { .. } => 2,
            Self::SessionRefused { .. } => 3,
            // Who is over both limits hears of both.
            Self::SoftQuota { what: "bytes", .. } => 4,
            Self::SoftQuota { .. } => 5,
            Self::SnapshotInstalled { .. } => 6,
            Self::UnlikeLimits { .. } => 7,
        }
    }
}

/// One notice that is due, and how often the same kind of thing happened since the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noticed {
    /// The first of them.
    pub notice: Notice,
    /// How many there were.
    pub times: u64,
}

/// What is not taken yet.
#[derive(Debug, Default)]
pub(super) struct Notices {
    kinds: [Kind; Notice::KINDS],
}

#[derive(Debug, Default)]
struct Kind {
    /// When the last one became due.
    last: Option<Millis>,
    /// Since the last one was taken.
    times: u64,
    due: Option<Notice>,
}

impl Kind {
    fn has_place(&self, now: Millis) -> bool {
        let is_early = self.last.is_some_and(|last| now.since(last) < NOTICE_PAUSE_MS);
        self.due.is_none() && !is_early
    }
}

impl Notices {
    fn note(&mut self, now: Millis, notice: Notice) {
        let Some(kind) = self.kinds.get_mut(notice.kind()) else { return };
        kind.times = kind.times.saturating_add(1);
        if kind.has_place(now) {
            kind.last = Some(now);
            kind.due = Some(notice);
        }
    }

    fn take(&mut self) -> Vec<Noticed> {
        let due = self.kinds.iter_mut().filter_map(|kind| {
            let notice = kind.due.take()?;
            Some(Noticed { notice, times: std::mem::take(&mut kind.times) })
        });
        due.collect()
    }
}

impl Server {
    /// What people should hear of since this was asked last; mostly nothing.
    pub fn take_notices(&mut self) -> Vec<Noticed> {
        self.notices.take()
    }

    /// Whether it would become due, and not only be counted.
    pub(super) fn has_place_for(&self, notice: &Notice) -> bool {
        let now = self.now.mono;
        self.notices.kinds.get(notice.kind()).is_some_and(|kind| kind.has_place(now))
    }

    pub(super) fn note(&mut self, notice: Notice) {
        self.notices.note(self.now.mono, notice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_each_kind_is_due_at_a_time_and_says_how_often_it_happened() {
        let large = |bytes, is_refused| Notice::LargeReply {
            operation: "getData",
            path: None,
            bytes,
            session: SessionId::NONE,
            is_refused,
        };
        let mut notices = Notices::default();
        let mut at = |ms: u64, notice| {
            notices.note(Millis::new(ms), notice);
            notices.take().into_iter().map(|one| (one.notice, one.times)).collect::<Vec<_>>()
        };
        assert_eq!(at(0, large(1, false)), [(large(1, false), 1)]);
        assert_eq!(at(1, large(2, false)), []);
        assert_eq!(at(2, large(3, true)), [(large(3, true), 1)]);
        assert_eq!(at(NOTICE_PAUSE_MS - 1, large(4, false)), []);
        assert_eq!(at(NOTICE_PAUSE_MS, large(5, false)), [(large(5, false), 3)]);
        for number in 0..5 {
            let ms = (3 + number) * NOTICE_PAUSE_MS;
            notices.note(Millis::new(ms), large(6, true));
        }
        assert_eq!(notices.take(), [Noticed { notice: large(6, true), times: 5 }]);
        assert_eq!(notices.take(), []);
    }
}
