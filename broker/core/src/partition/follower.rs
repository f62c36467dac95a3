//! The follower's part: where to fetch, what to append, where to truncate.
//!
//! *Called by* the replica and the shell's fetcher. Invariants: one thing at a time is done to the log, and an answer counts only when it was
//! asked for in this leadership at the present end; the log is cut where epochs say that it leaves the leader's (KIP-101, KIP-279), never at
//! a high watermark; the high watermark is what the leader said, at most the own end.

use client_protocol::ErrorCode;

use crate::ids::{BrokerId, LeaderEpoch, Offset};

use super::effect::Effect;
use super::epochs::EpochEnd;
use super::replica::{Partition, Role};

/// What to ask the leader for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchPosition {
    /// Whom to ask.
    pub leader: BrokerId,
    /// The epoch that is followed (current leader epoch of the request).
    pub leader_epoch: LeaderEpoch,
    /// The own log end offset.
    pub fetch_offset: Offset,
    /// Epoch of the last own record.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// The own log start.
    pub log_start: Offset,
    /// The own durable end.
    pub durable_end: Offset,
}

/// The leader's answer for one partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchAnswer {
    /// The epoch that was asked under.
    pub leader_epoch: LeaderEpoch,
    /// The offset that was asked for.
    pub fetch_offset: Offset,
    /// The wire code.
    pub error: ErrorCode,
    /// Where the last own epoch ends at the leader, when the logs differ.
    pub diverging: Option<EpochEnd>,
    /// The leader's high watermark, none when it does not say.
    pub high_watermark: Option<Offset>,
    /// The leader's log start, none when it does not say.
    pub log_start: Option<Offset>,
    /// The answer carries records.
    pub has_records: bool,
}

/// What is being done to the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The log has not adopted the epoch yet.
    Adopting,
    Fetching,
    Appending,
    Cutting,
}

/// One leadership that is followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Follower {
    pub(super) leader: BrokerId,
    pub(super) epoch: LeaderEpoch,
    phase: Phase,
    /// The leader's high watermark as of the last answer that counted.
    leader_high_watermark: Offset,
}

impl Follower {
    pub(super) fn new(leader: BrokerId, epoch: LeaderEpoch) -> Self {
        Self { leader, epoch, phase: Phase::Adopting, leader_high_watermark: Offset::ZERO }
    }

    /// The log adopted the epoch; false when it had before.
    pub(super) fn begin(&mut self) -> bool {
        let first = self.phase == Phase::Adopting;
        if first {
            self.phase = Phase::Fetching;
        }
        first
    }

    /// The cut to be made; nothing is fetched before it is.
    pub(super) fn cut_at(&mut self, to: Offset) -> Effect {
        self.phase = Phase::Cutting;
        Effect::Truncate { leader_epoch: self.epoch, to }
    }

    pub(super) fn may_fetch(&self) -> bool {
        self.phase == Phase::Fetching
    }

    /// An append, a cut or its refusal came back. While the epoch is not adopted it was of a former leadership.
    pub(super) fn log_changed(&mut self) {
        if self.phase != Phase::Adopting {
            self.phase = Phase::Fetching;
        }
    }
}

impl Partition {
    /// What to ask the leader for next; none when this replica does not follow or its log is being changed.
    #[must_use]
    pub fn fetch_position(&self) -> Option<FetchPosition> {
        match &self.role {
            Role::Follower(follower) if follower.may_fetch() => Some(FetchPosition {
                leader: follower.leader,
                leader_epoch: follower.epoch,
                fetch_offset: self.log.end,
                last_fetched_epoch: self.log.epochs.last(),
                log_start: self.log.start,
                durable_end: self.log.durable_end,
            }),
            Role::Follower(_) | Role::Leader(_) | Role::Idle => None,
        }
    }

    /// The leader answered a fetch. Records of an answer that yields no [`Effect::AppendFetched`] are dropped.
    pub fn fetch_answered(&mut self, answer: &FetchAnswer, effects: &mut Vec<Effect>) {
        let end = self.log.end;
        let Role::Follower(follower) = &mut self.role else { return };
        let is_of_epoch = answer.leader_epoch == follower.epoch
            || planted!(self.settings.planted, SkipEpochCheck);
        let asked_now = is_of_epoch && answer.fetch_offset == end;
        if !asked_now || !follower.may_fetch() {
            return;
        }
        match answer.error {
            ErrorCode::None => {}
            ErrorCode::OffsetOutOfRange => return self.out_of_range(answer, effects),
            // A wrong epoch or leader: the metadata will tell; anything else: the fetcher tries again.
            _ => return,
        }
        if let Some(theirs) = answer.diverging {
            return self.cut_divergence(theirs, effects);
        }
        if let Some(high_watermark) = answer.high_watermark {
            follower.leader_high_watermark = high_watermark;
        }
        if answer.has_records {
            follower.phase = Phase::Appending;
            let leader_epoch = follower.epoch;
            effects.push(Effect::AppendFetched { leader_epoch, base_offset: end });
        }
        self.follow_marks(answer.log_start, effects);
    }

    /// Adopts the leader's high watermark and log start as far as the own log reaches.
    fn follow_marks(&mut self, log_start: Option<Offset>, effects: &mut Vec<Effect>) {
        let Role::Follower(follower) = &self.role else { return };
        let adopted = follower.leader_high_watermark.min(self.log.end);
        if adopted > self.high_watermark {
            self.high_watermark = adopted;
            effects.push(Effect::HighWatermark { high_watermark: adopted });
        }
        if let Some(start) = log_start.map(|start| start.min(self.high_watermark))
            && start > self.log.start
        {
            effects.push(Effect::DropBelow { start });
        }
    }

    /// Nothing of ours continues in the leader's log: begin where it begins.
    fn out_of_range(&mut self, answer: &FetchAnswer, effects: &mut Vec<Effect>) {
        let Role::Follower(follower) = &mut self.role else { return };
        if let Some(start) = answer.log_start {
            follower.phase = Phase::Cutting;
            effects.push(Effect::RestartAt { leader_epoch: follower.epoch, start });
        }
    }

    /// Cuts to where the leader's epoch ends, or to where the own greatest epoch not above it ends, whichever is lower.
    fn cut_divergence(&mut self, theirs: EpochEnd, effects: &mut Vec<Effect>) {
        let own = self.log.epochs.end_of(theirs.leader_epoch, self.log.end);
        let own_end = match own {
            Some(own) => own.end_offset,
            None => self.log.start,
        };
        let to = own_end.min(theirs.end_offset).max(self.log.start);
        if let Role::Follower(follower) = &mut self.role {
            effects.push(follower.cut_at(to));
        }
    }

    /// Fetched records were appended: the next fetch may go out and says so.
    pub(super) fn follower_appended(&mut self, effects: &mut Vec<Effect>) {
        if let Role::Follower(follower) = &mut self.role {
            follower.log_changed();
            if follower.may_fetch() {
                effects.push(Effect::ReportProgress);
            }
        }
        self.follow_marks(None, effects);
    }

    /// The log refused the fetched records (damaged on the way, or not continuing the log), or a cut: ask again.
    pub fn append_refused(&mut self, leader_epoch: LeaderEpoch) {
        if let Role::Follower(follower) = &mut self.role
            && follower.epoch == leader_epoch
        {
            follower.log_changed();
        }
    }
}
