//! What keeps a member from its share, and since when: for callers that would otherwise see nothing at all.
//!
//! *Called by* the shell. Decides nothing.

use std::fmt;

use client_protocol::ErrorCode;

use super::{Answer, Failure, Kind, Known, Member, Phase};

/// What a member is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It asks who coordinates the group.
    Find,
    /// It joins, which takes until all members that the group has have joined again, or are given up.
    Join,
    /// It leads, and asks how many partitions the topics have.
    Count,
    /// It waits for the leader to share out.
    Share,
    /// It asks how far the group has read.
    Offsets,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Find => "no broker says that it coordinates the group",
            Self::Join => "the group's other members have not joined again yet",
            Self::Count => "no broker says how many partitions the topics have",
            Self::Share => "the group's leader has not shared out yet",
            Self::Offsets => "the group coordinator does not say how far the group has read",
        })
    }
}

/// What the group coordinator, or whoever was asked for it, said last instead of helping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setback {
    /// Its answer, if it gave one.
    pub code: Option<ErrorCode>,
    /// In words.
    pub reason: String,
}

/// What a member waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Since when it has had no share, or not all that belongs to it.
    pub since_ms: u64,
    /// What it is about now.
    pub step: Step,
    /// What stood in the way last.
    pub setback: Option<Setback>,
}

impl Member {
    /// What the member waits for, if it wants anything that it does not have.
    #[must_use]
    pub fn wait(&self) -> Option<Wait> {
        let (since_ms, step) = (self.waits_since_ms?, self.step()?);
        Some(Wait { since_ms, step, setback: self.setback.clone() })
    }

    fn step(&self) -> Option<Step> {
        let wants_offsets =
            !self.wanted.is_empty() || self.is_waiting_for(|k| matches!(k, Kind::Committed(_)));
        let wants_any = self.phase != Phase::Away || wants_offsets || !self.commits.is_empty();
        if !wants_any {
            return None;
        }
        match (&self.coordinator, &self.phase) {
            (Known::No { .. } | Known::Asking { .. }, _) => Some(Step::Find),
            (Known::Yes(_), Phase::Unjoined | Phase::Joining) => Some(Step::Join),
            (Known::Yes(_), Phase::Sharing { .. }) => Some(Step::Count),
            (Known::Yes(_), Phase::Syncing) => Some(Step::Share),
            (Known::Yes(_), Phase::Away | Phase::Stable | Phase::Revoking) => {
                wants_offsets.then_some(Step::Offsets)
            }
        }
    }

    /// Keeps the time since which it waits.
    pub(super) fn note_wait(&mut self, now_ms: u64) {
        if self.step().is_some() {
            self.waits_since_ms.get_or_insert(now_ms);
        } else {
            self.waits_since_ms = None;
            self.setback = None;
        }
    }

    /// Keeps what an answer says against it.
    pub(super) fn note_setback(&mut self, answer: &Result<Answer, Failure>) {
        let setback = match answer {
            Ok(answer) => setback_of(answer),
            Err(failure) => Some(Setback { code: None, reason: failure.reason.clone() }),
        };
        self.setback = setback.or(self.setback.take());
    }
}

pub(super) fn setback_of(answer: &Answer) -> Option<Setback> {
    let (code, words) = match answer {
        Answer::Find(answer) => match answer.coordinators.first() {
            Some(found) => (found.error_code, found.error_message.clone()),
            None => (answer.error_code, answer.error_message.clone()),
        },
        Answer::Join(answer) => (answer.error_code, None),
        Answer::Sync(answer) => (answer.error_code, None),
        Answer::Heartbeat(answer) => (answer.error_code, None),
        Answer::Committed(answer) => {
            let (whole, topics) = match answer.groups.first() {
                Some(group) => (group.error_code, &group.topics),
                None => (answer.error_code, &answer.topics),
            };
            let mut parts = topics.iter().flat_map(|topic| &topic.partitions);
            let part = parts.find(|part| !part.error_code.is_none());
            let part = part.map_or(ErrorCode::None, |part| part.error_code);
            (if whole.is_none() { part } else { whole }, None)
        }
        // A commit is not waited for here: it tells its own end.
        Answer::Commit(_) | Answer::Leave(_) => return None,
    };
    // The first join of all is answered so, with the id to join under.
    let is_setback = !code.is_none() && code != ErrorCode::MemberIdRequired;
    let known = code.to_string();
    is_setback.then(|| Setback {
        code: Some(code),
        // Brokers often say in words what the code says already.
        reason: match words.filter(|words| !known.contains(words)) {
            Some(words) => format!("{known} ({words})"),
            None => known,
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use client_protocol::BrokerId;
    use client_protocol::messages::{FindCoordinatorResponse, HeartbeatResponse};

    use super::*;
    use crate::group::{Effect, Settings};
    use crate::metadata::Metadata;

    struct Asked {
        member: Member,
        effects: Vec<Effect>,
    }

    impl Asked {
        /// The number of the one request that the member makes at `now_ms`.
        fn next(&mut self, now_ms: u64) -> u64 {
            self.member.poll(&Metadata::default(), now_ms, &mut self.effects);
            let asks = self.effects.drain(..).filter_map(|effect| match effect {
                Effect::Ask { number, .. } => Some(number),
                _ => None,
            });
            let asks: Vec<_> = asks.collect();
            assert_eq!(asks.len(), 1, "requests at {now_ms}");
            asks[0]
        }

        fn answer(&mut self, number: u64, answer: Result<Answer, Failure>, now_ms: u64) {
            self.member.answered(number, answer, now_ms, &mut self.effects);
        }
    }

    fn found(code: ErrorCode, words: Option<&str>) -> Result<Answer, Failure> {
        Ok(Answer::Find(FindCoordinatorResponse {
            error_code: code,
            error_message: words.map(str::to_owned),
            node_id: code.is_none().then(|| BrokerId::new(1)),
            host: "a".to_owned(),
            port: 1,
            ..FindCoordinatorResponse::default()
        }))
    }

    #[test]
    fn what_is_waited_for_is_told_from_the_subscription_on() {
        let member = Member::new(Settings { group_id: "g".to_owned(), ..Settings::default() });
        let mut asked = Asked { member, effects: Vec::new() };
        assert_eq!(asked.member.wait(), None);
        let topics: BTreeSet<Arc<str>> = BTreeSet::from(["t".into()]);
        asked.member.subscribe(topics, 1_000, &mut asked.effects);
        let number = asked.next(1_000);
        let wait = Wait { since_ms: 1_000, step: Step::Find, setback: None };
        assert_eq!(asked.member.wait(), Some(wait.clone()));

        asked.answer(number, found(ErrorCode::CoordinatorNotAvailable, Some("no room")), 1_005);
        let code = Some(ErrorCode::CoordinatorNotAvailable);
        let reason = format!("{} (no room)", ErrorCode::CoordinatorNotAvailable);
        let wait = Wait { setback: Some(Setback { code, reason }), ..wait };
        assert_eq!(asked.member.wait(), Some(wait.clone()));

        let number = asked.next(2_000);
        let reason = "nobody is there".to_owned();
        let failure = Failure { reason: reason.clone(), may_be_done: false, is_final: false };
        asked.answer(number, Err(failure), 2_001);
        let wait = Wait { setback: Some(Setback { code: None, reason }), ..wait };
        assert_eq!(asked.member.wait(), Some(wait.clone()));

        // It goes on: what stood in the way last is told until there is a share.
        let number = asked.next(4_000);
        asked.answer(number, found(ErrorCode::None, None), 4_001);
        asked.next(4_001);
        assert_eq!(asked.member.wait(), Some(Wait { step: Step::Join, ..wait }));
    }

    #[test]
    fn an_answer_without_an_error_is_no_setback() {
        let heartbeat = |code| {
            setback_of(&Answer::Heartbeat(HeartbeatResponse {
                error_code: code,
                ..HeartbeatResponse::default()
            }))
        };
        assert_eq!(heartbeat(ErrorCode::None), None);
        assert_eq!(heartbeat(ErrorCode::MemberIdRequired), None);
        let code = ErrorCode::NotCoordinator;
        assert_eq!(heartbeat(code), Some(Setback { code: Some(code), reason: code.to_string() }));
    }
}
