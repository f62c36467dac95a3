//! What a process's commit thread does: rounds, and the marks of what they made durable.
//!
//! Called by: `process`, `storage`. Calls: the rounds of the broker's partitions and their pace.
//! Invariant: one thing at a time, a round or a sync of the marks; each takes its time, and the process or the power can go before its end.

use broker::partitions::worker::{MarksPace, Round, Rounds};
use broker_core::ids::Millis;

use super::message::{Alarm, Outbox};
use super::process::{Process, TICK};
use super::storage::Of;
use crate::sim::ensemble::schedule::{MS, SECOND, Time};

/// The longest that noted marks are not synced: a second, a round that began before, and their own sync, all slow.
const MARKS_WAIT_MAX: Time = 2 * SECOND;

/// Where the thread is.
#[derive(Default)]
pub struct Commits {
    pub(super) rounds: Rounds<Of>,
    /// Under way.
    pub(super) round: Option<Round<Of>>,
    round_is_due: bool,
    pace: MarksPace,
    /// The number of the present or the last wait for tickets.
    wait: u64,
    syncs_marks: bool,
    /// So many ticks ago marks were noted that are not synced.
    marks_wait_ticks: Option<u64>,
}

impl Process {
    pub(super) fn want_round(&mut self, out: &mut Outbox) {
        let commits = &mut self.directory.commits;
        let is_busy = commits.round.is_some() || commits.syncs_marks;
        if commits.rounds.is_empty() || is_busy || commits.round_is_due {
            return;
        }
        commits.round_is_due = true;
        out.alarms.push((self.random.below(MS), Alarm::RoundStart));
    }

    pub(super) fn start_round(&mut self, out: &mut Outbox) {
        let commits = &mut self.directory.commits;
        commits.round_is_due = false;
        let round = commits.rounds.begin();
        if round.is_empty() || self.directory.failed.is_some() {
            return;
        }
        commits.round = Some(round);
        commits.wait += 1;
        out.alarms.push((self.sync_time(), Alarm::RoundEnd));
    }

    pub(super) fn end_round(&mut self, now: Time, out: &mut Outbox) {
        let Some(round) = self.directory.commits.round.take() else { return };
        if self.directory.failed.is_some() {
            return;
        }
        if let Err(error) = round.sync(&self.directory.folder) {
            return self.fail(error, out);
        }
        let ms = Millis::new(now / MS);
        for (of, synced) in round.publish() {
            self.on_partition(of.key, now, out, |core, effects| core.synced(synced, ms, effects));
        }
        if let Err(error) = round.note_marks(&self.directory.folder) {
            return self.fail(error, out);
        }
        self.directory.commits.marks_wait_ticks.get_or_insert(0);
        self.waited(&round, now, out);
    }

    fn sync_time(&mut self) -> Time {
        let slow = self.settings.slow_log && self.random.chance(1, 10);
        if slow { self.random.below(200 * MS) } else { self.random.below(10 * MS) }
    }

    /// What the commit thread does after a wait that brought this round, when that is over.
    fn waited(&mut self, round: &Round<Of>, now: Time, out: &mut Outbox) {
        let commits = &mut self.directory.commits;
        commits.syncs_marks = commits.pace.take_due(round, Millis::new(now / MS));
        if commits.syncs_marks {
            out.alarms.push((self.sync_time(), Alarm::MarksEnd));
        } else {
            self.wait_for_tickets(out);
        }
    }

    fn wait_for_tickets(&mut self, out: &mut Outbox) {
        let commits = &mut self.directory.commits;
        commits.wait += 1;
        if let Some(ms) = commits.pace.wait_ms_max() {
            out.alarms.push((ms * MS, Alarm::WaitEnd(commits.wait)));
        }
        self.want_round(out);
    }

    /// Nothing came while the commit thread waited, unless that was over before.
    pub(super) fn end_wait(&mut self, wait: u64, now: Time, out: &mut Outbox) {
        let commits = &mut self.directory.commits;
        let nothing_came = commits.wait == wait && !commits.round_is_due;
        if nothing_came && self.directory.failed.is_none() {
            let round = commits.rounds.begin();
            assert!(round.is_empty(), "a round begins when something comes");
            self.waited(&round, now, out);
        }
    }

    pub(super) fn end_marks(&mut self, out: &mut Outbox) {
        if self.directory.failed.is_some() {
            return;
        }
        if let Err(error) = self.directory.folder.sync_marks() {
            return self.fail(error, out);
        }
        let commits = &mut self.directory.commits;
        commits.syncs_marks = false;
        commits.marks_wait_ticks = None;
        self.wait_for_tickets(out);
    }

    /// At each tick: what is durable is noted so that it stays, before long. While a disk stands still nothing is asked of it.
    pub(super) fn check_marks(&mut self, now: Time) {
        let directory = &mut self.directory;
        if directory.failed.is_some() || directory.stalled_until > now {
            return;
        }
        if let Some(ticks) = &mut directory.commits.marks_wait_ticks {
            *ticks += 1;
            let waited = *ticks * TICK;
            assert!(waited <= MARKS_WAIT_MAX, "{}: marks wait for {waited} us", self.id);
        }
    }
}
