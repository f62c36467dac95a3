//! Sessions end when their client closed them or was silent for long enough, and then soon.
//!
//! While nothing but clients fails, an expiry comes within 100 ms of the moment at which the
//! time-out (or the grace after a lost socket) was over, and never before it. While everything
//! fails it may come late, and earlier only by what safety.md A7 leaves: a server without its
//! leader goes on answering for a third of the time-out.

use std::collections::BTreeMap;

use coordinator_core::state::{Command, OpResult, Outcome, WriteOp};
use coordinator_protocol::SessionId;

use super::{Audited, Facts};
use crate::sim::ensemble::client::Heard;
use crate::sim::ensemble::ledger::Decided;
use crate::sim::ensemble::run::Profile;
use crate::sim::ensemble::schedule::{MS, SECOND, Time};
use crate::sim::ensemble::world::{Contacts, World};

/// How late an expiry may be.
const LATE_MAX: Time = 100 * MS;
/// From proposing an expiry to seeing it committed, in calm weather.
const ON_ITS_WAY: Time = 20 * MS;
/// How long the leader may not know of a request that a follower answered, in bad weather: a
/// report waits 100 ms and may then be slow.
const UNREPORTED: Time = 400 * MS;
/// How long a session may be about to move, in bad weather.
const HANDSHAKE_MAX: Time = 6 * SECOND;

/// A session as the log tells it.
#[derive(Debug)]
struct Life {
    timeout: Time,
    grace: Option<Time>,
    /// The choice before it, which an expiry that was on its way still went by.
    former_grace: Option<Time>,
    /// When it was created, or last moved.
    attached: Time,
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
        let none = Contacts::default();
        let contacts = world.contacts.get(&ended.session).unwrap_or(&none);
        match profile {
            Profile::Calm => check_on_time(&life, contacts, decided.at),
            Profile::Chaos => {
                let answered = answers.get(&ended.session).map_or(&[][..], Vec::as_slice);
                check_not_early(&life, contacts, answered, decided.logged);
            }
        }
    }
    if profile == Profile::Calm {
        for (session, life) in &lives {
            let heard = world.contacts.get(session).and_then(|contacts| contacts.heard.last());
            let last = heard.copied().unwrap_or(0).max(life.attached);
            let silence = world.now() - last;
            assert!(silence <= life.timeout + LATE_MAX, "{session} lives on after {silence} us");
        }
    }
}

/// When each session's client was answered, in order.
fn answers(world: &World) -> BTreeMap<SessionId, Vec<Time>> {
    let mut answers: BTreeMap<SessionId, Vec<Time>> = BTreeMap::new();
    for talk in world.talks.values() {
        let Some(session) = talk.opened else { continue };
        let times = talk.heard.iter().filter_map(|heard| match heard {
            Heard::Reply { request, .. } => Some(talk.sent[*request].at),
            Heard::Watch(..) | Heard::Event(_) => None,
        });
        answers.entry(session).or_default().extend(times);
    }
    answers
}

fn follow(lives: &mut BTreeMap<SessionId, Life>, decided: &Decided) {
    match &decided.applied.outcome {
        Outcome::Created(created) => {
            let timeout = Time::from(created.timeout_ms) * MS;
            let life = Life { timeout, grace: None, former_grace: None, attached: decided.at };
            lives.entry(created.session).or_insert(life);
        }
        // A repeated one is the server's doing, no sign of the client.
        Outcome::Attached(attached) if attached.previous == attached.origin => {}
        Outcome::Attached(attached) => {
            let life = lives.get_mut(&attached.session).expect("it was created");
            life.timeout = Time::from(attached.timeout_ms) * MS;
            life.attached = decided.at;
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
            life.former_grace = life.grace;
            life.grace = fast_death_grace_ms.map(|grace| Time::from(grace) * MS);
        }
        Outcome::Written { .. }
        | Outcome::Refused { .. }
        | Outcome::Ignored { .. }
        | Outcome::Expired(_)
        | Outcome::ExpiryRefused { .. } => {}
    }
}

/// Whether the grace after a lost socket was over, for at most `late`. The socket may have been
/// lost while the session was still about to move to it, for as long as `handshake`.
fn is_over_grace(
    life: &Life,
    contacts: &Contacts,
    (handshake, late): (Time, Time),
    at: Time,
) -> bool {
    let Some(grace) = life.grace.or(life.former_grace) else { return false };
    let since = life.attached.saturating_sub(handshake);
    contacts.lost.iter().filter(|lost| **lost >= since).any(|lost| {
        let end = (*lost).max(life.attached) + grace;
        // Both clocks count whole milliseconds.
        at + MS >= end && at <= end.saturating_add(late)
    })
}

fn check_on_time(life: &Life, contacts: &Contacts, at: Time) {
    if is_over_grace(life, contacts, (LATE_MAX, LATE_MAX), at) {
        return;
    }
    let mut heard = contacts.heard.iter().filter(|time| **time + ON_ITS_WAY < at);
    let last = heard.next_back().copied().unwrap_or(0).max(life.attached);
    let silence = at - last;
    let (timeout, grace) = (life.timeout, life.grace);
    // Both clocks count whole milliseconds.
    assert!(silence + MS >= timeout, "expired after {silence} us of {timeout}, grace {grace:?}");
    assert!(silence <= timeout + LATE_MAX, "expired after {silence} us of {timeout}");
}

/// A move of the session is in the log and starts the time-out anew. What a follower answers does
/// so only when its report arrives: all that was answered during the last time-out must have been
/// too late for a report, or answered by a server that was cut off.
fn check_not_early(life: &Life, contacts: &Contacts, answered: &[Time], at: Time) {
    if is_over_grace(life, contacts, (HANDSHAKE_MAX, Time::MAX), at) {
        return;
    }
    let since_move = (at + ON_ITS_WAY).saturating_sub(life.attached);
    assert!(since_move >= life.timeout, "expired at {at}, {since_move} us after a move: {life:?}");
    let counts = |time: &&Time| **time + life.timeout > at && **time + UNREPORTED < at;
    let last = answered.iter().filter(counts).max().copied().unwrap_or(0);
    let first = answered.iter().filter(counts).min().copied().unwrap_or(0);
    let cut_off = (life.timeout / 3).min(2 * SECOND) + UNREPORTED;
    let spell = last - first;
    assert!(spell <= cut_off, "expired at {at} while it was answered for {spell} us: {life:?}");
}
