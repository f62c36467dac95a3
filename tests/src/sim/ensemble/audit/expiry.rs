//! Sessions end when their client closed them or was silent for long enough, and then soon.
//!
//! While nothing but clients fails, an expiry comes within 100 ms of the moment at which the
//! time-out (or the grace after a lost socket) was over, and never before it. While everything
//! fails it may come late, and earlier only by what safety.md A7 leaves: a server without its
//! leader goes on answering for a third of the time-out.

use std::collections::BTreeMap;

use coordinator_core::state::{Command, OpResult, Origin, Outcome, WriteOp};
use coordinator_protocol::SessionId;

use super::{Audited, Facts};
use crate::sim::ensemble::client::Heard;
use crate::sim::ensemble::ledger::Decided;
use crate::sim::ensemble::run::Profile;
use crate::sim::ensemble::schedule::{MS, SECOND, Time};
use crate::sim::ensemble::world::World;

/// How late an expiry may be.
const LATE_MAX: Time = 100 * MS;
/// From proposing an expiry to seeing it committed, in calm weather.
const ON_ITS_WAY: Time = 20 * MS;
/// How long the leader may not know of a request that a follower answered, in bad weather: a
/// report waits 100 ms and may then be slow.
const UNREPORTED: Time = 400 * MS;

/// A session as the log tells it.
#[derive(Debug)]
struct Life {
    timeout: Time,
    /// Its choices of a grace, each with the time from which it holds; the last is in force.
    graces: Vec<(Time, Option<Time>)>,
    /// When it was created, or last moved.
    attached: Time,
    /// The connection that holds it: server, from 0, and number in the log.
    held_by: (usize, u64),
}

/// An expiry: when the leader that ended the session took office, when it put the expiry into its
/// log, and when that was committed.
#[derive(Debug, Clone, Copy)]
struct Expiry {
    office: Time,
    logged: Time,
    committed: Time,
}

pub(super) fn audit(facts: &Facts<'_>, world: &World, profile: Profile, audited: &mut Audited) {
    let answers = answers(world);
    let mut lives: BTreeMap<SessionId, Life> = BTreeMap::new();
    for decided in facts.decided {
        let Outcome::Expired(ended) = &decided.applied.outcome else {
            follow(&mut lives, decided);
            continue;
        };
        audited.expiries += 1;
        let life = lives.remove(&ended.session).expect("it was created");
        let office = world.ledger.office_since(decided.term);
        let expiry = Expiry { office, logged: decided.logged, committed: decided.at };
        let lost = world.lost.get(&life.held_by).copied();
        let late = if profile == Profile::Calm { LATE_MAX } else { Time::MAX };
        if is_over_grace(&life, lost, expiry, late) {
            audited.graces += 1;
            continue;
        }
        match profile {
            Profile::Calm => {
                let heard = world.heard.get(&ended.session).map_or(&[][..], Vec::as_slice);
                check_on_time(&life, heard, expiry);
            }
            Profile::Chaos => {
                let answered = answers.get(&life.held_by).map_or(&[][..], Vec::as_slice);
                let within = (expiry.logged.saturating_sub(life.timeout), expiry.logged);
                let missed = world.ledger.missed_report(life.held_by.0, decided.term, within);
                audited.unchecked_expiries += u64::from(missed);
                check_not_early(&life, if missed { &[] } else { answered }, expiry);
            }
        }
    }
    if profile == Profile::Calm {
        for (session, life) in &lives {
            let heard = world.heard.get(session).and_then(|heard| heard.last());
            let last = heard.copied().unwrap_or(0).max(life.attached);
            let silence = world.now() - last;
            assert!(silence <= life.timeout + LATE_MAX, "{session} lives on after {silence} us");
        }
    }
}

/// When the requests were handled that were answered on each connection, by the server, from 0, and number in the log.
fn answers(world: &World) -> BTreeMap<(usize, u64), Vec<Time>> {
    let mut answers: BTreeMap<(usize, u64), Vec<Time>> = BTreeMap::new();
    for talk in world.talks.values().filter(|talk| talk.opened.is_some()) {
        let times = talk.heard.iter().filter_map(|heard| match heard {
            Heard::Reply { request, .. } => Some(talk.handled[*request]),
            Heard::Watch(..) | Heard::Event(_) => None,
        });
        answers.entry((talk.server, talk.origin)).or_default().extend(times);
    }
    answers
}

fn follow(lives: &mut BTreeMap<SessionId, Life>, decided: &Decided) {
    match &decided.applied.outcome {
        Outcome::Created(created) => {
            let timeout = Time::from(created.timeout_ms) * MS;
            let (attached, held_by) = (decided.at, held_by(created.origin));
            let life = Life { timeout, graces: Vec::new(), attached, held_by };
            lives.entry(created.session).or_insert(life);
        }
        // A repeated one is the server's doing, no sign of the client.
        Outcome::Attached(attached) if attached.previous == attached.origin => {}
        Outcome::Attached(attached) => {
            let life = lives.get_mut(&attached.session).expect("it was created");
            life.timeout = Time::from(attached.timeout_ms) * MS;
            life.attached = decided.at;
            life.held_by = held_by(attached.origin);
        }
        Outcome::Written { session, result: Ok(OpResult::SessionClosed(_)), .. } => {
            lives.remove(session).expect("it was created");
        }
        Outcome::Written { session, result: Ok(OpResult::OptionsSet), .. } => {
            let Command::Write { op: WriteOp::SessionOptions { fast_death_grace_ms }, .. } =
                &decided.command
            else {
                panic!("options set by {:?}", decided.command)
            };
            let life = lives.get_mut(session).expect("it was created");
            let grace = fast_death_grace_ms.map(|grace| Time::from(grace) * MS);
            life.graces.push((decided.at, grace));
        }
        Outcome::Written { .. }
        | Outcome::Refused { .. }
        | Outcome::Ignored { .. }
        | Outcome::Expired(_)
        | Outcome::DueRemoved(_)
        | Outcome::Reconfiguring { .. }
        | Outcome::MembersMoved
        | Outcome::ExpiryRefused { .. } => {}
    }
}

fn held_by(origin: Origin) -> (usize, u64) {
    (usize::try_from(origin.server.get() - 1).expect("small"), origin.connection)
}

/// Whether a grace that the session had chosen was over, for at most `late`: counted by the leader
/// that ended it, from when the socket that held the session was closed by its client's side, the
/// session was there to be lost, and the leader in office.
fn is_over_grace(life: &Life, lost: Option<Time>, expiry: Expiry, late: Time) -> bool {
    let Some(lost) = lost else { return false };
    let begun = lost.max(life.attached).max(expiry.office);
    life.graces.iter().enumerate().any(|(at, (from, grace))| {
        let until = life.graces.get(at + 1).map_or(Time::MAX, |next| next.0);
        let Some(grace) = grace.filter(|_| begun <= until) else { return false };
        let end = begun.max(*from) + grace;
        // Both clocks count whole milliseconds, and the leader's may be fast by less than one in five thousand.
        expiry.logged + 3 * MS >= end && expiry.committed <= end.saturating_add(late)
    })
}

fn check_on_time(life: &Life, heard: &[Time], expiry: Expiry) {
    let at = expiry.committed;
    // Both clocks count whole milliseconds.
    let silence = at - last_heard(life, heard, life.timeout - 2 * MS, at);
    assert!(silence + MS >= life.timeout, "expired after {silence} us: {life:?}, {expiry:?}");
    let silence = at - last_heard(life, heard, life.timeout + 2 * MS, at);
    assert!(silence <= life.timeout + LATE_MAX, "expired after {silence} us: {life:?}");
}

/// The last request that was answered: one after a silence of the whole time-out is not.
fn last_heard(life: &Life, heard: &[Time], gap_max: Time, at: Time) -> Time {
    let heard = heard.iter().filter(|time| **time + ON_ITS_WAY < at);
    heard.fold(
        life.attached,
        |last, time| {
            if *time > last && *time - last < gap_max { *time } else { last }
        },
    )
}

/// A move of the session is in the log and starts the time-out anew, and so does taking office.
/// What a follower answers does so only when its report arrives: all that was answered during the
/// last time-out must have been too late for a report, or answered by a server that was cut off.
fn check_not_early(life: &Life, answered: &[Time], expiry: Expiry) {
    let at = expiry.logged;
    let since = life.attached.max(expiry.office);
    let passed = (at + ON_ITS_WAY).saturating_sub(since);
    assert!(passed >= life.timeout, "expired after {passed} us: {life:?}, {expiry:?}");
    let counts = |time: &&Time| **time + life.timeout > at && **time + UNREPORTED < at;
    let last = answered.iter().filter(counts).max().copied().unwrap_or(0);
    let first = answered.iter().filter(counts).min().copied().unwrap_or(0);
    let cut_off = (life.timeout / 3).min(2 * SECOND) + UNREPORTED;
    let spell = last - first;
    assert!(spell <= cut_off, "answered for {spell} us before: {life:?}, {expiry:?}");
}
