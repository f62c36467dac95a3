//! When to campaign: our own deterministic jitter, and the fast path after a closed socket.
//!
//! Called by `consensus/mod.rs`. Calls: nothing. Invariant: the same seed, terms and attempts give
//! the same times; a fast campaign is only tried while no leader is known and a quorum of streams
//! is up, and at most [`FAST_ATTEMPTS_MAX`] times for one loss. It does not know votes.
//!
//! The engine's check-quorum refuses votes within the minimum election time-out of a leader's last
//! word, and a process that was killed would be missed for that long. But its sockets close at
//! once, at every peer: each drops the lease and the lowest id campaigns immediately, the others
//! a little later in case the first cannot win. Pre-vote keeps a mistaken loss harmless.

use crate::Millis;

/// Between the immediate campaigns of two members.
const STAGGER_MS: u64 = 20;
/// Before another try when nobody answered (a peer may see the closed socket a little later).
const RETRY_MS: u64 = 20;
/// Before another try when an election is going on: votes wait for a sync.
const ELECTION_RUNS_MS: u64 = 150;
/// The wait for votes doubles with every term that passed without a leader, this often at most: who
/// campaigns again before slow disks have kept the votes of the last campaign never wins.
const DOUBLINGS_MAX: u32 = 6;
/// The same for the ordinary time-out, which is longer.
const TIMEOUT_DOUBLINGS_MAX: u32 = 4;
/// The time-out is less than so many times the least one.
pub(super) const TIMEOUT_SPREAD_MAX: usize = 2 << TIMEOUT_DOUBLINGS_MAX;
/// Between two times that a candidate asks for the votes that it waits for.
const ASK_AGAIN_MS: u64 = 500;
/// Campaigns for one loss before the ordinary time-out decides.
const FAST_ATTEMPTS_MAX: u32 = 12;

/// What the engine is doing, as far as campaigning is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// A leader is known, or this server is it.
    Settled,
    /// No leader is known and no vote of this term was given.
    Open,
    /// This server's vote in this term is given, to itself or another.
    Voted,
}

/// The schedule of one member.
#[derive(Debug)]
pub(super) struct Election {
    seed: u64,
    /// Position among the members, 0 for the lowest id.
    rank: u64,
    tick_ms: u64,
    /// Elections begun; part of the jitter so that a tie is not repeated.
    attempts: u64,
    fast_attempts: u32,
    fast_at: Option<Millis>,
    phase: Phase,
    /// Terms before this one that began and had no leader.
    lost: u32,
    /// How long the disk took to keep the last vote.
    vote_ms: u64,
    /// When to ask again for the votes of this election.
    ask_at: Option<Millis>,
}

impl Election {
    pub(super) fn new(seed: u64, rank: u64, tick_ms: u64) -> Self {
        Self {
            seed,
            rank,
            tick_ms,
            attempts: 0,
            fast_attempts: 0,
            fast_at: None,
            phase: Phase::Open,
            lost: 0,
            vote_ms: 0,
            ask_at: None,
        }
    }

    /// Others are members now.
    pub(super) fn set_rank(&mut self, rank: u64) {
        self.rank = rank;
    }

    /// Elections came to nothing in so many terms before this one.
    pub(super) fn count_lost(&mut self, terms: u64) {
        self.lost = u32::try_from(terms).unwrap_or(u32::MAX);
    }

    /// The last vote is on disk, and that took so long. Others may need as long for theirs.
    pub(super) fn vote_kept(&mut self, took_ms: u64, now: Millis) {
        self.vote_ms = took_ms;
        self.ask_at = Some(now.plus_ms(ASK_AGAIN_MS));
        if self.phase == Phase::Voted {
            self.fast_at = Some(now.plus_ms(self.patience(self.election_runs_ms())));
        }
    }

    /// Ticks of silence after which to campaign, `min` inclusive, `max` exclusive; both double with
    /// each lost election, and votes are waited for as long as this disk would need for them.
    pub(super) fn timeout_ticks(&self, term: u64, min: usize, max: usize) -> usize {
        let width = max.saturating_sub(min).max(1) as u64;
        let draw = mix(self.seed ^ mix(term ^ mix(self.attempts))) % width;
        let ticks = min.saturating_add(usize::try_from(draw).unwrap_or(0));
        let ticks = ticks.saturating_mul(1 << self.lost.min(TIMEOUT_DOUBLINGS_MAX));
        if self.phase != Phase::Voted {
            return ticks;
        }
        let kept = self.vote_ms.saturating_mul(3) / self.tick_ms;
        let longest = min.saturating_mul(TIMEOUT_SPREAD_MAX).saturating_sub(1);
        ticks.max(usize::try_from(kept).unwrap_or(longest).min(longest))
    }

    /// A campaign began, for whatever reason.
    pub(super) fn campaigned(&mut self) {
        self.attempts = self.attempts.wrapping_add(1);
    }

    /// The world changed for the better or worse: the leader's socket closed, or a stream came up.
    /// The next campaigns may be fast again.
    pub(super) fn stir(&mut self, now: Millis) {
        self.fast_attempts = 0;
        if self.phase != Phase::Settled {
            self.fast_at = Some(now.plus_ms(self.rank.saturating_mul(STAGGER_MS)));
        }
    }

    /// Takes note of where the engine stands after a step.
    pub(super) fn observe(&mut self, phase: Phase, now: Millis) {
        if phase == self.phase {
            return;
        }
        self.phase = phase;
        self.fast_at = match phase {
            Phase::Settled => {
                self.fast_attempts = 0;
                None
            }
            Phase::Open => Some(now.plus_ms(self.rank.saturating_mul(STAGGER_MS))),
            Phase::Voted => Some(now.plus_ms(self.patience(self.election_runs_ms()))),
        };
    }

    /// When [`Self::take_due`] wants to be asked.
    pub(super) fn deadline(&self) -> Option<Millis> {
        self.fast_at
    }

    /// Whether to campaign now; plans the next try.
    pub(super) fn take_due(&mut self, quorum_up: bool, now: Millis) -> bool {
        let Some(at) = self.fast_at else { return false };
        if now < at {
            return false;
        }
        if !quorum_up || self.fast_attempts >= FAST_ATTEMPTS_MAX {
            self.fast_at = None;
            return false;
        }
        self.fast_attempts = self.fast_attempts.saturating_add(1);
        let wait = if self.phase == Phase::Voted { self.election_runs_ms() } else { RETRY_MS };
        self.fast_at = Some(now.plus_ms(self.patience(wait)));
        true
    }

    /// Whether a candidate is to ask again for votes now; plans the next time.
    pub(super) fn take_due_to_ask(&mut self, now: Millis) -> bool {
        let is_due = self.ask_at.is_some_and(|at| at <= now);
        if is_due {
            self.ask_at = Some(now.plus_ms(ASK_AGAIN_MS));
        }
        is_due
    }

    fn election_runs_ms(&self) -> u64 {
        let longest = ELECTION_RUNS_MS << DOUBLINGS_MAX;
        let kept = self.vote_ms.saturating_mul(2).min(longest);
        kept.max(ELECTION_RUNS_MS << self.lost.min(DOUBLINGS_MAX))
    }

    /// `base_ms` to twice that, different for each attempt and member.
    fn patience(&self, base_ms: u64) -> u64 {
        let draw = mix(self.seed ^ mix(self.attempts ^ mix(u64::from(self.fast_attempts))));
        base_ms.saturating_add(draw % base_ms.max(1))
    }
}

/// splitmix64's finaliser: every input bit moves every output bit.
fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeout_is_in_range_and_repeatable() {
        let mut election = Election::new(7, 0, 50);
        for term in 0..100 {
            let ticks = election.timeout_ticks(term, 20, 40);
            assert!((20..40).contains(&ticks));
            assert_eq!(ticks, election.timeout_ticks(term, 20, 40));
            election.campaigned();
        }
    }

    #[test]
    fn patience_doubles_with_each_lost_election_up_to_a_limit() {
        let wait = |lost| {
            let mut election = Election::new(7, 0, 50);
            election.count_lost(lost);
            election.observe(Phase::Voted, Millis::new(0));
            (election.deadline().unwrap().get(), election.timeout_ticks(1, 20, 21))
        };
        let (first, _) = wait(0);
        assert!((150..300).contains(&first), "{first}");
        assert_eq!([1, 2, 4, 5].map(|lost| wait(lost).1), [40, 80, 320, 320]);
        assert!((600..1_200).contains(&wait(2).0));
        assert!((9_600..19_200).contains(&wait(6).0));
        assert_eq!(wait(7), wait(u64::MAX));
    }

    #[test]
    fn first_member_campaigns_at_once_and_tries_are_bounded() {
        let mut election = Election::new(7, 0, 50);
        let mut now = Millis::new(1_000);
        election.observe(Phase::Settled, now);
        assert_eq!(election.deadline(), None);
        election.observe(Phase::Open, now);
        election.stir(now);
        assert!(election.take_due(true, now));
        let mut tries = 1;
        while let Some(at) = election.deadline() {
            now = at;
            tries += u32::from(election.take_due(true, now));
        }
        assert_eq!(tries, FAST_ATTEMPTS_MAX);
    }

    #[test]
    fn votes_are_asked_for_again_at_even_times_once_the_own_vote_is_kept() {
        let mut election = Election::new(7, 0, 50);
        assert!(!election.take_due_to_ask(Millis::new(9_000)));
        election.vote_kept(2, Millis::new(1_000));
        let mut asked = Vec::new();
        for at in (1_000..=2_200).step_by(50) {
            if election.take_due_to_ask(Millis::new(at)) {
                asked.push(at);
            }
        }
        assert_eq!(asked, [1_500, 2_000]);
    }

    #[test]
    fn no_campaign_without_a_quorum_of_streams() {
        let mut election = Election::new(7, 1, 50);
        let now = Millis::new(1_000);
        election.stir(now);
        assert!(!election.take_due(true, now), "the second member waits its turn");
        assert!(!election.take_due(false, now.plus_ms(STAGGER_MS)));
        assert_eq!(election.deadline(), None);
    }
}
