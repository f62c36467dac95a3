//! What a fetch may read, and its fences.
//!
//! *Called by* the shell for each partition of a Fetch, ListOffsets or OffsetForLeaderEpoch request. Invariants: a consumer never reads at
//! or above the high watermark; a follower's progress counts only after its log is shown to be a prefix of the leader's.

use client_protocol::ErrorCode;

use crate::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Millis, Offset};

use super::effect::Effect;
use super::epochs::EpochEnd;
use super::replica::{Partition, Role};

/// One partition of a follower's Fetch (v13 and our tagged fields, D4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FollowerFetch {
    /// Who fetches.
    pub replica: BrokerId,
    /// Which life of it.
    pub broker_epoch: BrokerEpoch,
    /// The epoch that it follows.
    pub leader_epoch: LeaderEpoch,
    /// Its log end offset, where it wants to go on.
    pub fetch_offset: Offset,
    /// Epoch of its last record, none when its log holds none.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// Its durable end, at most `fetch_offset`.
    pub durable_end: Offset,
}

/// One partition of a consumer's Fetch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConsumerFetch {
    /// Where it wants to read.
    pub fetch_offset: Offset,
    /// The leader epoch it knows, when it says one.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Epoch of the last record it read, when it says one (v12).
    pub last_fetched_epoch: Option<LeaderEpoch>,
}

/// What may be read: offsets `from..up_to`, nothing when they are equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Readable {
    /// First offset.
    pub from: Offset,
    /// Exclusive end.
    pub up_to: Offset,
    /// The leader's high watermark.
    pub high_watermark: Offset,
    /// The leader's log start offset.
    pub log_start: Offset,
    /// The fetcher's log is not a prefix of this one; where its last epoch ends here. Then nothing is to be read.
    pub diverging: Option<EpochEnd>,
}

/// Why nothing may be read, with what the answer carries besides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchRefused {
    /// The wire code.
    pub error: ErrorCode,
    /// Log start offset, which tells a follower that is out of range where to begin.
    pub log_start: Offset,
}

impl Partition {
    /// Kafka's order: a wrong epoch is told before a wrong leader.
    fn check_leader(&self, asked: Option<LeaderEpoch>) -> Result<(), ErrorCode> {
        let current = self.leader_epoch().ok_or(ErrorCode::NotLeaderOrFollower)?;
        match asked {
            Some(_) if planted!(self.settings.planted, SkipEpochCheck) => self.check_leader(None),
            Some(asked) if asked < current => Err(ErrorCode::FencedLeaderEpoch),
            Some(asked) if asked > current => Err(ErrorCode::UnknownLeaderEpoch),
            Some(_) | None if self.leading().is_some() => Ok(()),
            Some(_) | None => Err(ErrorCode::NotLeaderOrFollower),
        }
    }

    fn refused(&self, error: ErrorCode) -> FetchRefused {
        FetchRefused { error, log_start: self.log.start }
    }

    /// Where the fetcher's log leaves this one; `Ok(None)` when it is a prefix.
    fn divergence(
        &self,
        fetch_offset: Offset,
        last_epoch: Option<LeaderEpoch>,
    ) -> Result<Option<EpochEnd>, FetchRefused> {
        let out_of_range = || self.refused(ErrorCode::OffsetOutOfRange);
        if let Some(asked) = last_epoch {
            let end = self.log.epochs.end_of(asked, self.log.end).ok_or_else(out_of_range)?;
            if end.leader_epoch < asked || end.end_offset < fetch_offset {
                return Ok(Some(end));
            }
        }
        if fetch_offset < self.log.start || fetch_offset > self.log.end {
            return Err(out_of_range());
        }
        Ok(None)
    }

    /// A follower's fetch: notes its progress, which may move the high watermark and the ISR.
    ///
    /// # Errors
    /// The code to answer: fenced or unknown epoch, not leader, stale life, out of range.
    pub fn follower_fetch(
        &mut self,
        fetch: &FollowerFetch,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) -> Result<Readable, FetchRefused> {
        self.check_leader(Some(fetch.leader_epoch)).map_err(|error| self.refused(error))?;
        let assigned = self.adopted.as_ref().is_some_and(|a| a.replicas.contains(&fetch.replica));
        if !assigned || fetch.replica == self.me {
            return Err(self.refused(ErrorCode::NotLeaderOrFollower));
        }
        if self.live.get(&fetch.replica).is_some_and(|&live| fetch.broker_epoch < live) {
            return Err(self.refused(ErrorCode::StaleBrokerEpoch));
        }
        let diverging = self.divergence(fetch.fetch_offset, fetch.last_fetched_epoch)?;
        if diverging.is_none() {
            if let Role::Leader(leader) = &mut self.role {
                if !leader.note_progress(fetch, self.log.end, self.high_watermark) {
                    return Err(self.refused(ErrorCode::StaleBrokerEpoch));
                }
                let durability = self.settings.durability;
                leader.note_caught_up(fetch.replica, durability, self.log.end, now);
            }
            self.leader_progress(now, effects);
        }
        let up_to = if diverging.is_some() { fetch.fetch_offset } else { self.log.end };
        Ok(self.readable(fetch.fetch_offset, up_to, diverging))
    }

    /// A consumer's fetch: below the high watermark only; at or above it there is nothing yet.
    ///
    /// # Errors
    /// The code to answer: fenced or unknown epoch, not leader, out of range.
    pub fn consumer_fetch(&self, fetch: &ConsumerFetch) -> Result<Readable, FetchRefused> {
        self.check_leader(fetch.leader_epoch).map_err(|error| self.refused(error))?;
        let diverging = self.divergence(fetch.fetch_offset, fetch.last_fetched_epoch)?;
        let committed = match planted!(self.settings.planted, ServeAboveHighWatermark) {
            true => self.log.end,
            false => self.high_watermark,
        };
        let up_to = if diverging.is_some() { fetch.fetch_offset } else { committed };
        Ok(self.readable(fetch.fetch_offset, up_to, diverging))
    }

    /// Looks again at a fetch that waited, without counting it as a new one; `None` when the lead under `epoch`, in which it came, is over.
    #[must_use]
    pub fn read_again(
        &self,
        was: Readable,
        epoch: LeaderEpoch,
        replica: Option<BrokerId>,
    ) -> Option<Readable> {
        if self.leading() != Some(epoch) {
            return None;
        }
        if was.diverging.is_some() {
            return Some(was);
        }
        Some(self.readable(was.from, self.read_limit(replica), None))
    }

    /// What a follower, or a consumer, may read to.
    #[must_use]
    pub fn read_limit(&self, replica: Option<BrokerId>) -> Offset {
        match replica {
            Some(_) => self.log.end,
            None => self.high_watermark,
        }
    }

    fn readable(&self, from: Offset, up_to: Offset, diverging: Option<EpochEnd>) -> Readable {
        Readable {
            from,
            up_to: up_to.max(from),
            high_watermark: self.high_watermark,
            log_start: self.log.start,
            diverging,
        }
    }

    /// Where an epoch ends (OffsetForLeaderEpoch); `Ok(None)` when nothing here is that old.
    ///
    /// # Errors
    /// Fenced or unknown epoch, not leader.
    pub fn epoch_end(
        &self,
        current: Option<LeaderEpoch>,
        asked: LeaderEpoch,
    ) -> Result<Option<EpochEnd>, ErrorCode> {
        self.check_leader(current)?;
        Ok(self.log.epochs.end_of(asked, self.log.end))
    }

    /// The offset that ListOffsets calls latest: the high watermark.
    ///
    /// # Errors
    /// Fenced or unknown epoch, not leader; OFFSET_NOT_AVAILABLE while a new leader does not yet know all that was committed before it.
    pub fn latest_offset(&self, current: Option<LeaderEpoch>) -> Result<Offset, ErrorCode> {
        self.check_leader(current)?;
        match &self.role {
            Role::Leader(leader) if self.high_watermark < leader.epoch_start => {
                Err(ErrorCode::OffsetNotAvailable)
            }
            Role::Leader(_) | Role::Follower(_) | Role::Idle => Ok(self.high_watermark),
        }
    }

    /// The offset that ListOffsets calls earliest: the log start.
    ///
    /// # Errors
    /// Fenced or unknown epoch, not leader.
    pub fn earliest_offset(&self, current: Option<LeaderEpoch>) -> Result<Offset, ErrorCode> {
        self.check_leader(current)?;
        Ok(self.log.start)
    }
}
