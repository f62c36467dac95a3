//! Says in the log who leads, and when there is no quorum.
//!
//! Called by: the core's task, after each step. Calls: nothing.
//! Invariant: however often leadership changes, only so many lines are written; what is left out is counted. That a quorum is
//! missed is said once it lasts, now and then while it does, and once when it is there again.
//! Does not know: why.

use std::time::{Duration, Instant};

use coordinator_core::ServerId;
use coordinator_core::server::{Links, Mode, Standing};
use tracing::{info, warn};

/// How long a quorum is missed before it is worth a line: elections take less.
const MISSED_AFTER: Duration = Duration::from_secs(5);
/// Between two lines while it is missed.
const MISSED_AGAIN: Duration = Duration::from_secs(60);
/// Changes of leadership that are told within [`CHANGES_TIME`].
const CHANGES_MAX: u32 = 20;
const CHANGES_TIME: Duration = Duration::from_secs(10);

/// What the log was told last.
pub struct StandingWatch {
    before: Option<Standing>,
    /// Since when there is no quorum, if there is none.
    missed_since: Option<Instant>,
    told_at: Option<Instant>,
    changes: Changes,
}

struct Changes {
    since: Instant,
    told: u32,
    untold: u64,
}

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// This server leads.
    Won { term: u64 },
    /// It did, and somebody else or nobody known does now.
    Lost { term: u64, leader: Option<ServerId> },
    /// Another one leads.
    Follows { term: u64, leader: ServerId },
    /// Another one led, and nobody known does.
    Leaderless { term: u64 },
    /// This leader hands its office over.
    HandsOver { to: ServerId },
    /// A client of this server asked for leadership to be moved.
    Asked,
    /// So many changes were not told.
    Untold { count: u64 },
    /// No quorum for so long.
    Missed { leader: Option<ServerId>, time: Duration },
    /// One again.
    Found { time: Duration },
}

impl StandingWatch {
    /// Of a server that starts.
    pub fn new(now: Instant) -> StandingWatch {
        StandingWatch {
            before: None,
            missed_since: Some(now),
            told_at: None,
            changes: Changes { since: now, told: 0, untold: 0 },
        }
    }

    /// What is to be said of where the server stands at `now`.
    pub fn look(&mut self, standing: Standing, now: Instant) -> Vec<Line> {
        let mut lines = Vec::new();
        if self.before != Some(standing) {
            for line in changes(self.before.replace(standing), standing) {
                self.changes.tell(line, now, &mut lines);
            }
        }
        match (standing.confirmed, self.missed_since) {
            (true, Some(since)) => {
                self.missed_since = None;
                if self.told_at.take().is_some() {
                    lines.push(Line::Found { time: now.saturating_duration_since(since) });
                }
            }
            (false, None) => self.missed_since = Some(now),
            // Who stopped for good says so, and who is no member.
            (false, Some(since)) if standing.mode != Mode::Halted && standing.member => {
                let time = now.saturating_duration_since(since);
                let is_due = |told| now.saturating_duration_since(told) >= MISSED_AGAIN;
                if time >= MISSED_AFTER && self.told_at.is_none_or(is_due) {
                    self.told_at = Some(now);
                    lines.push(Line::Missed { leader: standing.leader, time });
                }
            }
            (true, None) | (false, Some(_)) => {}
        }
        lines
    }
}

impl Changes {
    fn tell(&mut self, line: Line, now: Instant, lines: &mut Vec<Line>) {
        if now.saturating_duration_since(self.since) >= CHANGES_TIME {
            (self.since, self.told) = (now, 0);
        }
        if self.told == CHANGES_MAX {
            self.untold += 1;
            return;
        }
        self.told += 1;
        let count = std::mem::take(&mut self.untold);
        lines.extend((count > 0).then_some(Line::Untold { count }));
        lines.push(line);
    }
}

fn leads(mode: Mode) -> bool {
    match mode {
        Mode::Leader | Mode::Standalone => true,
        Mode::Follower | Mode::Observer | Mode::Looking | Mode::Halted => false,
    }
}

fn changes(before: Option<Standing>, now: Standing) -> Vec<Line> {
    let Standing { mode, leader, term, heir, transfers_asked, .. } = now;
    let led = before.is_some_and(|before| leads(before.mode));
    let known = before.and_then(|before| before.leader);
    let mut lines = Vec::new();
    if transfers_asked > before.map_or(0, |before| before.transfers_asked) {
        lines.push(Line::Asked);
    }
    let asked = heir.filter(|_| heir != before.and_then(|before| before.heir));
    lines.extend(asked.map(|to| Line::HandsOver { to }));
    let office = match leader {
        _ if leads(mode) => (!led).then_some(Line::Won { term }),
        leader if led => Some(Line::Lost { term, leader }),
        Some(leader) => (known != Some(leader)).then_some(Line::Follows { term, leader }),
        None => known.map(|_| Line::Leaderless { term }),
    };
    lines.extend(office);
    lines
}

impl Line {
    /// Writes it.
    pub fn tell(self, links: impl FnOnce() -> Links) {
        let shown =
            |leader: Option<ServerId>| leader.map_or("nobody known".into(), |id| id.to_string());
        match self {
            Line::Won { term } => info!(term, "this server leads"),
            Line::Lost { term, leader } => {
                info!(term, leader = shown(leader), "this server leads no more");
            }
            Line::Follows { term, leader } => info!(term, %leader, "another server leads"),
            Line::Leaderless { term } => info!(term, "no leader is known"),
            Line::HandsOver { to } => info!(%to, "this leader hands its office over"),
            Line::Asked => info!("a client of this server asked for leadership to be moved"),
            Line::Untold { count } => info!(count, "changes of leadership that are not told"),
            Line::Missed { leader, time } => {
                let Links { up, missing } = links();
                let (linked, missing) = (named(&up), named(&missing));
                warn!(
                    seconds = time.as_secs(),
                    leader = shown(leader),
                    linked,
                    missing,
                    "no quorum: clients are not served, but for reads where that is allowed"
                );
            }
            Line::Found { time } => info!(seconds = time.as_secs(), "in a quorum again"),
        }
    }
}

/// To whom this server is linked, in words.
pub fn linked(links: &Links) -> String {
    match (links.up.is_empty(), links.missing.is_empty()) {
        (true, true) => "nobody else votes".to_owned(),
        (true, false) => format!("linked to nobody, {} missing", named(&links.missing)),
        (false, true) => format!("linked to all others ({})", named(&links.up)),
        (false, false) => {
            format!("linked to {}, not to {}", named(&links.up), named(&links.missing))
        }
    }
}

/// Ids, for people.
pub fn named(ids: &[ServerId]) -> String {
    if ids.is_empty() {
        return "none".to_owned();
    }
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> ServerId {
        ServerId::new(number).unwrap()
    }

    fn standing(mode: Mode, leader: Option<u64>, term: u64, confirmed: bool) -> Standing {
        let leader = leader.map(id);
        Standing { mode, leader, term, confirmed, member: true, heir: None, transfers_asked: 0 }
    }

    #[test]
    fn office_that_comes_and_goes_is_told() {
        let start = Instant::now();
        let mut watch = StandingWatch::new(start);
        let mut at = 0;
        let mut check = |standing: Standing, expected: &[Line]| {
            at += 1;
            assert_eq!(watch.look(standing, start + Duration::from_millis(at)), expected);
        };
        check(standing(Mode::Looking, None, 0, false), &[]);
        check(standing(Mode::Leader, Some(1), 3, true), &[Line::Won { term: 3 }]);
        check(standing(Mode::Leader, Some(1), 3, true), &[]);
        let office = standing(Mode::Leader, Some(1), 3, true);
        let asked = Standing { heir: Some(id(2)), transfers_asked: 1, ..office };
        check(asked, &[Line::Asked, Line::HandsOver { to: id(2) }]);
        let after = Standing { transfers_asked: 1, ..standing(Mode::Follower, Some(2), 4, true) };
        check(after, &[Line::Lost { term: 4, leader: Some(id(2)) }]);
        check(
            Standing { mode: Mode::Looking, leader: None, ..after },
            &[Line::Leaderless { term: 4 }],
        );
        let third = Standing { leader: Some(id(3)), term: 5, ..after };
        check(third, &[Line::Follows { term: 5, leader: id(3) }]);
    }

    #[test]
    fn quorum_that_is_missed_for_long_is_told_now_and_then_and_its_return_once() {
        let start = Instant::now();
        let mut watch = StandingWatch::new(start);
        let mut at = |seconds: u64, confirmed: bool| {
            let now = standing(Mode::Looking, None, 1, confirmed);
            watch.look(now, start + Duration::from_secs(seconds))
        };
        let missed =
            |seconds| [Line::Missed { leader: None, time: Duration::from_secs(seconds) }].to_vec();
        assert_eq!([at(0, false), at(4, false)], [vec![], vec![]]);
        assert_eq!([at(5, false), at(6, false), at(64, false)], [missed(5), vec![], vec![]]);
        assert_eq!(at(65, false), missed(65));
        assert_eq!(at(70, true), [Line::Found { time: Duration::from_secs(70) }]);
        // Too short for a word.
        assert_eq!([at(71, true), at(80, false), at(84, true)], [vec![], vec![], vec![]]);
    }

    #[test]
    fn links_are_told_in_words() {
        let ids = |ids: &[u64]| ids.iter().map(|number| id(*number)).collect();
        let check = |up: &[u64], missing: &[u64], expected: &str| {
            assert_eq!(linked(&Links { up: ids(up), missing: ids(missing) }), expected);
        };
        check(&[1, 2], &[], "linked to all others (1, 2)");
        check(&[1], &[2], "linked to 1, not to 2");
        check(&[], &[1, 2], "linked to nobody, 1, 2 missing");
        check(&[], &[], "nobody else votes");
    }

    #[test]
    fn server_that_is_no_member_misses_no_quorum() {
        let start = Instant::now();
        let mut watch = StandingWatch::new(start);
        let removed = Standing { member: false, ..standing(Mode::Looking, None, 1, false) };
        for seconds in [0, 5, 6, 600] {
            assert_eq!(watch.look(removed, start + Duration::from_secs(seconds)), []);
        }
    }

    #[test]
    fn leadership_that_changes_all_the_time_is_told_in_part_and_counted() {
        let start = Instant::now();
        let mut watch = StandingWatch::new(start);
        let mut told = Vec::new();
        for change in 0..200 {
            let leader = Some(2 + change % 2);
            let now = start + Duration::from_millis(change);
            told.extend(watch.look(standing(Mode::Follower, leader, change, true), now));
        }
        assert_eq!(told.len(), CHANGES_MAX as usize);
        let later = start + CHANGES_TIME;
        let told = watch.look(standing(Mode::Leader, Some(1), 900, true), later);
        assert_eq!(told, [Line::Untold { count: 180 }, Line::Won { term: 900 }]);
    }
}
