//! One run: work while things break, mend everything, come to rest, audit.
//!
//! Called by: tests and the `sim` script. Calls: `world`, `audit`.
//! Invariant (asserted): after mending, every client is answered again and all replicas are equal.

use coordinator_core::server::Mode;

use super::audit;
use super::schedule::{SECOND, Time};
use super::settings::Settings;
use super::world::World;
use crate::sim::decisions::Decisions;
use crate::sim::fault::Struck;
use crate::sim::random::Random;

/// Seeds from here on are those of campaigns: see [`lengthen`].
pub const LONG_FROM: u64 = 1_000_000;
/// With the shortest work and the rest after it, at least a simulated minute.
const LONG: Time = 45 * SECOND;

/// Makes a campaign's seed longer and its clients slower, to a half, a quarter or an eighth of the pace of other seeds,
/// with the same faults in the same time: what breaks is then seen from more states, and not under a queue.
pub fn lengthen(seed: u64, work: &mut Time, pace: &mut u64) {
    if seed >= LONG_FROM {
        *work += LONG;
        *pace = [2, 4, 8][Random::new(seed ^ 0x7061_6365).below(3) as usize];
    }
}

/// What clients did that takes several answers in a row: one of them wrote under a lock.
const HELD: &str = "clients HeldLock";
/// They were served without a quorum.
const READ_ONLY: &str = "clients ReadOnly";
/// Their writes were refused for want of room.
const REFUSED: &str = "clients Refused";
/// Members were changed.
const RECONFIGURED: &str = "clients Reconfigured";
/// Leadership was moved to a server that was named.
const TRANSFERRED: &str = "clients Transferred";

/// How long after everything was mended everybody is answered again, beside the largest time-out of a session.
const REST: Time = 10 * SECOND;

/// What kind of run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Everything breaks.
    Chaos,
    /// Only clients die: expiry must come on time.
    Calm,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Equal for equal runs.
    pub digest: u64,
    /// Events and effects.
    pub events: u64,
    /// Log entries committed.
    pub entries: u64,
    /// Commands in them.
    pub commands: u64,
    /// Terms that had a leader.
    pub terms: u64,
    /// Simulated time, in microseconds.
    pub simulated: Time,
    /// Faults by kind.
    pub struck: Struck,
    /// What the servers did.
    pub decisions: Decisions,
    /// What the audit compared.
    pub audited: audit::Audited,
}

/// Runs `seed`. Panics when a rule is broken. `print` writes every event to standard output.
pub fn run(seed: u64, profile: Profile, print: bool) -> Report {
    run_with(seed, profile, print, |_| {})
}

/// What a seed draws, and what it goes on drawing from.
pub fn draw(seed: u64, profile: Profile) -> (Settings, Random) {
    let mut random = Random::new(seed ^ 0x5eed);
    let mut settings = match profile {
        Profile::Chaos => Settings::chaos(&mut random),
        Profile::Calm => Settings::calm(&mut random),
    };
    lengthen(seed, &mut settings.work, &mut settings.pace);
    // Of a stream of its own: other seeds draw what they always drew.
    let mut locks = Random::new(seed ^ 0x6c6f_636b);
    if locks.chance(1, 3) {
        settings.lockers = 2 + locks.below(3) as usize;
    }
    settings.low_disks = settings.faults && Random::new(seed ^ 0x726f_6f6d).chance(1, 4);
    let mut members = Random::new(seed ^ 0x6d65_6d62);
    if settings.faults && members.chance(1, 3) {
        settings.operators = 1 + members.below(2) as usize;
        settings.spares = 1 + members.below(3) as usize;
        // Some begin with a server that stands alone.
        if settings.servers == 1 || members.chance(1, 5) {
            settings.servers = 1;
            settings.spares = 2 + members.below(3) as usize;
        }
    }
    let mut readers = Random::new(seed ^ 0x7265_6164);
    if settings.faults && settings.servers > 1 && readers.chance(1, 3) {
        settings.readers = 1 + readers.below(settings.clients as u64 - 1) as usize;
    }
    (settings, random)
}

/// Runs `seed` with settings that `change` has changed.
pub fn run_with(
    seed: u64,
    profile: Profile,
    print: bool,
    change: impl FnOnce(&mut Settings),
) -> Report {
    let (mut settings, mut random) = draw(seed, profile);
    change(&mut settings);
    if print {
        println!("seed {seed}: {settings:?}");
    }
    let work = settings.work;
    let mut world = World::new(seed, settings, print);
    world.unleash();
    if profile == Profile::Calm {
        kill_clients_until(&mut world, work, &mut random);
    }
    world.run_until(work);
    world.heal();
    let timeout_max = world.clients.iter().map(|client| client.timeout).max().unwrap_or(0);
    come_to_rest(&mut world, work + REST + timeout_max);
    let audited = audit::audit(&world, profile);
    let mut decisions = world.decisions().clone();
    let is_told = [
        (audited.held, HELD),
        (audited.reconfigs, RECONFIGURED),
        (audited.transfers, TRANSFERRED),
        (audited.read_only, READ_ONLY),
        (audited.refused, REFUSED),
    ];
    for (_, what) in is_told.into_iter().filter(|(count, _)| *count > 0) {
        decisions.note(what);
    }
    Report {
        digest: world.trace.digest(),
        events: world.trace.events(),
        entries: world.ledger.entry_count(),
        commands: world.ledger.decided.len() as u64,
        terms: world.ledger.terms() as u64,
        simulated: world.now(),
        struck: world.struck(),
        decisions,
        audited,
    }
}

fn kill_clients_until(world: &mut World, end: Time, random: &mut Random) {
    while world.now() + 2 * SECOND < end {
        let next = world.now() + random.below(2 * SECOND);
        world.run_until(next);
        let client = random.below(world.clients.len() as u64) as usize;
        if random.chance(1, 2) {
            world.kill_client(client);
        } else {
            let stands_still = world.clients[client].timeout + random.below(3 * SECOND);
            world.clients[client].paused_until = world.now() + stands_still;
        }
    }
}

/// Everyone must be answered again, and then nothing may be left to do.
pub(super) fn come_to_rest(world: &mut World, end: Time) {
    let working = world.now() + 8 * SECOND;
    world.run_until(working);
    for client in &mut world.clients {
        client.quiet = true;
    }
    while world.now() < end && !is_at_rest(world) {
        let next = world.now() + SECOND / 4;
        world.run_until(next);
    }
    let idle = world.clients.iter().filter(|client| client.is_idle()).count();
    let modes: Vec<Mode> = world
        .members
        .iter()
        .map(|member| member.server.as_ref().expect("all were started").status().mode)
        .collect();
    assert_eq!(idle, world.clients.len(), "clients are not answered; servers are {modes:?}");
    let members = world.ledger.members();
    assert!(!members.is_changing(), "a change of the members is not done; servers are {modes:?}");
    let leads = |mode: &Mode| matches!(mode, Mode::Leader | Mode::Standalone);
    assert_eq!(modes.iter().filter(|mode| leads(mode)).count(), 1, "servers are {modes:?}");
    for line in world.lines.iter().flatten() {
        assert!(world.sockets[line].is_read(), "connection {line} is not read any more");
        let talk = &world.talks[line];
        assert!(!talk.read_only, "server {} serves reads only, with a quorum", talk.server);
    }
    let mut states = Vec::new();
    for id in 0..world.members.len() {
        let server = world.members[id].server.as_ref().expect("all were started");
        world.ledger.compare(id, server);
        if world.ledger.has_part(id) {
            states.push(server.state().encode_snapshot());
        }
    }
    assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "replicas differ at rest");
    assert_eq!(world.ledger.reference().encode_snapshot(), states[0]);
    world.ledger.compare_agreed();
}

fn is_at_rest(world: &World) -> bool {
    let all_idle = world.clients.iter().all(|client| client.is_idle());
    let read_only = world.lines.iter().flatten().any(|line| world.talks[line].read_only);
    let applied = |id: usize| {
        let server = world.members[id].server.as_ref();
        server.map_or(0, |server| server.state().applied_index())
    };
    let is_current =
        |id: usize| !world.ledger.has_part(id) || applied(id) == world.ledger.entry_count();
    let is_done = !world.ledger.members().is_changing();
    all_idle && !read_only && is_done && (0..world.members.len()).all(is_current)
}
