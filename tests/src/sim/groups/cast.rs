//! Who plays in a run: members of the simulation's own, native ones, or both, and what each of them speaks.
//!
//! Called by: `world`, `campaign`. Calls: nothing. Invariant: it draws from a stream of its own, and nobody else from that; whatever
//! a seed draws, the assignor that all members of a run know is the one that most prefer: a coordinator that takes over knows of members only what the
//! group spoke, so another one would shut others out until a rebalance.

use client_core::group::Assignor;

use crate::sim::random::Random;

/// Keeps the stream apart from those that the seed itself gives.
const STREAM: u64 = 0x6e61_7469_7665;
/// Members where all are of the simulation's own.
const OWN: usize = 5;
/// At most so many native ones.
const NATIVE_MAX: u64 = 4;

/// A native member.
#[derive(Clone, Debug)]
pub struct Part {
    /// Preferred first.
    pub assignors: Vec<Assignor>,
    /// It may restart without a rebalance.
    pub is_static: bool,
    /// It is told of brokers and leaders, and need not find out by asking.
    pub is_told: bool,
    /// How often it says that it lives.
    pub heartbeat_ms: u64,
    /// How long it tries to commit.
    pub commit_timeout_ms: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Cast {
    /// How many are of the simulation's own.
    pub own: usize,
    /// The native ones.
    pub native: Vec<Part>,
    /// How many partitions the topic has at first, and when it gets the others.
    pub partitions: i32,
    /// In milliseconds.
    pub grows_at_ms: u64,
    /// What the native ones, their callers and their network draw from.
    pub seed: u64,
}

impl Cast {
    /// What the seed draws.
    #[must_use]
    pub fn draw(seed: u64) -> Cast {
        let random = &mut Random::new(seed ^ STREAM);
        let full = super::member::PARTITIONS;
        let mut cast = Cast {
            own: OWN,
            native: Vec::new(),
            partitions: full,
            grows_at_ms: 10_000 + random.below(90_000),
            seed: random.number(),
        };
        let count = 1 + random.below(NATIVE_MAX);
        let kind = random.below(10);
        let mut play = |count: u64, kinds: &[&[Assignor]]| {
            let one = |_| {
                let at = usize::try_from(random.below(kinds.len() as u64)).expect("small");
                Part {
                    assignors: kinds[at].to_vec(),
                    is_static: random.chance(1, 3),
                    is_told: random.chance(1, 2),
                    heartbeat_ms: 300 + random.below(2_000),
                    commit_timeout_ms: 5_000 + random.below(15_000),
                }
            };
            (0..count).map(one).collect::<Vec<_>>()
        };
        use Assignor::{CooperativeSticky, Range, RoundRobin};
        match kind {
            0..=3 => {}
            4 | 5 => {
                cast.own = 1 + usize::try_from(count).expect("small") % 3;
                let kinds: [&[Assignor]; 3] =
                    [&[Range], &[Range, RoundRobin], &[Range, CooperativeSticky]];
                cast.native = play(count, &kinds);
            }
            6 => cast.native = play(count + 1, &[&[RoundRobin, Range], &[RoundRobin]]),
            // The way from the one kind of assignor to the other: all know the first.
            7 => {
                let kinds: [&[Assignor]; 2] = [&[CooperativeSticky], &[CooperativeSticky, Range]];
                cast.native = play(count + 1, &kinds);
            }
            _ => cast.native = play(count + 1, &[&[CooperativeSticky]]),
        }
        if kind >= 6 {
            cast.own = 0;
            cast.partitions = if random.chance(1, 2) { full } else { full - 2 };
        }
        cast
    }
}
