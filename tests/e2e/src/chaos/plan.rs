//! Which fault strikes whom, when and for how long.
//!
//! Called by: the `chaos` program. Calls: the generator of numbers. Pure: the same seed and the same kinds give the same
//! rounds. Invariant: within a round no two faults want the same process, clock or link speed; networks may be cut twice.

use std::collections::BTreeSet;
use std::fmt;

use ::tests::sim::random::Random;

/// Coordinators come first.
pub const COORDINATORS: usize = 3;
/// All nodes.
pub const NODES: usize = 6;
/// Where the clients are, as an end of a link.
pub const CLIENTS: usize = NODES;

const STRIKES_MAX: u64 = 4;
/// Faults of a round begin within this.
const BEGIN_WITHIN_MS: u64 = 8_000;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// kill -9, and a start some time later.
    Kill,
    /// kill -9 of all brokers or of all coordinators at once.
    KillAll,
    /// SIGTERM, and a start some time later.
    Stop,
    /// SIGSTOP, and SIGCONT up to a minute later.
    Pause,
    /// Packets from one end to another are lost; those back are not.
    OneWay,
    /// Some nodes, with the clients or without, are cut off from the rest.
    Partition,
    /// A link so narrow that packets queue for long, and are lost where the queue is full.
    Slow,
    /// The wall clock of a node jumps, and jumps back.
    Clock,
    /// No byte is free on a node's disk.
    DiskFull,
    /// Every access to a node's disk fails, and what was not synced is lost.
    DiskError,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 10] = [
        Fault::Kill,
        Fault::KillAll,
        Fault::Stop,
        Fault::Pause,
        Fault::OneWay,
        Fault::Partition,
        Fault::Slow,
        Fault::Clock,
        Fault::DiskFull,
        Fault::DiskError,
    ];

    /// As it is called in reports and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::KillAll => "kill-all",
            Fault::Stop => "stop",
            Fault::Pause => "pause",
            Fault::OneWay => "one-way",
            Fault::Partition => "partition",
            Fault::Slow => "slow",
            Fault::Clock => "clock",
            Fault::DiskFull => "disk-full",
            Fault::DiskError => "disk-error",
        }
    }

    /// Whether it touches a disk: its node may say ERROR then.
    pub fn is_of_disk(self) -> bool {
        matches!(self, Fault::DiskFull | Fault::DiskError)
    }

    /// What it takes hold of, so that two faults do not undo one another.
    fn hold(self) -> Hold {
        match self {
            Fault::OneWay | Fault::Partition => Hold::Nothing,
            Fault::Slow => Hold::Link,
            Fault::Clock => Hold::Clock,
            Fault::Kill
            | Fault::KillAll
            | Fault::Stop
            | Fault::Pause
            | Fault::DiskFull
            | Fault::DiskError => Hold::Process,
        }
    }

    /// How long it lasts: from, inclusive, and by how much longer, exclusive, in milliseconds.
    fn lasts_ms(self) -> (u64, u64) {
        match self {
            Fault::Kill | Fault::KillAll | Fault::Stop => (100, 10_000),
            Fault::Pause => (1_000, 14_000),
            Fault::OneWay | Fault::Partition => (2_000, 18_000),
            Fault::Slow | Fault::Clock => (4_000, 16_000),
            Fault::DiskFull | Fault::DiskError => (1_000, 10_000),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hold {
    Nothing,
    Process,
    Link,
    Clock,
}

/// One fault of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strike {
    /// What.
    pub fault: Fault,
    /// Whom: nodes by number, `CLIENTS` only where a link ends.
    pub struck: Vec<usize>,
    /// The other ends of links that are cut.
    pub others: Vec<usize>,
    /// From the round's begin, in milliseconds.
    pub begins_ms: u64,
    /// In milliseconds.
    pub lasts_ms: u64,
    /// By how much a clock jumps, in seconds.
    pub jump_s: i64,
}

impl Strike {
    /// When it is over, in milliseconds from the round's begin.
    pub fn ends_ms(&self) -> u64 {
        self.begins_ms + self.lasts_ms
    }
}

/// What a node is called.
pub fn name(node: usize) -> String {
    match node {
        CLIENTS => "clients".to_string(),
        0..COORDINATORS => format!("coordinator-{}", node + 1),
        _ => format!("broker-{}", node + 1 - COORDINATORS),
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            |nodes: &[usize]| nodes.iter().map(|at| name(*at)).collect::<Vec<_>>().join(",");
        write!(f, "{} {}", self.fault.name(), names(&self.struck))?;
        if !self.others.is_empty() {
            write!(f, " / {}", names(&self.others))?;
        }
        if self.jump_s != 0 {
            write!(f, " {:+} s", self.jump_s)?;
        }
        write!(f, " at {} ms for {} ms", self.begins_ms, self.lasts_ms)
    }
}

/// Draws rounds.
#[derive(Clone, Debug)]
pub struct Plan {
    random: Random,
    allowed: Vec<Fault>,
    /// Kinds still to come before each comes again.
    deck: Vec<Fault>,
}

impl Plan {
    /// The rounds of `seed`, of these kinds of faults.
    pub fn new(seed: u64, allowed: &BTreeSet<Fault>) -> Plan {
        Plan {
            random: Random::new(seed),
            allowed: allowed.iter().copied().collect(),
            deck: Vec::new(),
        }
    }

    /// The next round: one fault at least, if any kind is allowed.
    pub fn round(&mut self) -> Vec<Strike> {
        let mut held = BTreeSet::new();
        let wanted = 1 + self.random.below(STRIKES_MAX);
        let mut strikes = Vec::new();
        for _ in 0..wanted {
            let Some(fault) = self.draw_kind() else { break };
            strikes.extend(self.strike(fault, &mut held));
        }
        strikes
    }

    fn draw_kind(&mut self) -> Option<Fault> {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.allowed);
        }
        let at = self.below(self.deck.len());
        (!self.deck.is_empty()).then(|| self.deck.swap_remove(at))
    }

    fn strike(&mut self, fault: Fault, held: &mut BTreeSet<(Hold, usize)>) -> Option<Strike> {
        let (struck, others) = match fault {
            Fault::OneWay => self.one_way(),
            Fault::Partition => self.partition(),
            Fault::KillAll => (self.kind(), Vec::new()),
            _ => (vec![self.below(NODES)], Vec::new()),
        };
        let hold = fault.hold();
        if hold != Hold::Nothing {
            if struck.iter().any(|node| held.contains(&(hold, *node))) {
                return None;
            }
            held.extend(struck.iter().map(|node| (hold, *node)));
        }
        let begins_ms = self.random.below(BEGIN_WITHIN_MS);
        let (least, more) = fault.lasts_ms();
        let mut lasts_ms = least + self.random.below(more);
        if fault == Fault::Pause && self.random.chance(1, 5) {
            lasts_ms = 20_000 + self.random.below(40_001);
        }
        let jump_s = if fault == Fault::Clock { self.jump_s() } else { 0 };
        Some(Strike { fault, struck, others, begins_ms, lasts_ms, jump_s })
    }

    /// Below an hour: records whose time lies further ahead are refused by right.
    fn jump_s(&mut self) -> i64 {
        let most = if self.random.chance(1, 2) { 30 } else { 1_800 };
        let size = 1 + self.below(most);
        let size = i64::try_from(size).unwrap_or(1);
        if self.random.chance(1, 2) { size } else { -size }
    }

    fn one_way(&mut self) -> (Vec<usize>, Vec<usize>) {
        let from = self.below(NODES + 1);
        let to = (from + 1 + self.below(NODES)) % (NODES + 1);
        (vec![from], vec![to])
    }

    /// Some of the ends, and all others.
    fn partition(&mut self) -> (Vec<usize>, Vec<usize>) {
        let count = 1 + self.below(NODES / 2);
        let mut rest: Vec<usize> = (0..NODES).collect();
        let mut away = Vec::new();
        for _ in 0..count {
            let at = self.below(rest.len());
            away.push(rest.swap_remove(at));
        }
        match self.random.below(3) {
            0 => away.push(CLIENTS),
            1 => rest.push(CLIENTS),
            // The clients see both sides.
            _ => {}
        }
        away.sort_unstable();
        rest.sort_unstable();
        (away, rest)
    }

    fn kind(&mut self) -> Vec<usize> {
        if self.random.chance(1, 2) {
            (0..COORDINATORS).collect()
        } else {
            (COORDINATORS..NODES).collect()
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> BTreeSet<Fault> {
        Fault::ALL.into()
    }

    #[test]
    fn same_seed_gives_the_same_rounds_and_another_gives_others() {
        let rounds = |seed| {
            let mut plan = Plan::new(seed, &all());
            (0..50).map(|_| plan.round()).collect::<Vec<_>>()
        };
        assert_eq!(rounds(7), rounds(7));
        assert_ne!(rounds(7), rounds(8));
    }

    #[test]
    fn every_kind_strikes_within_a_few_rounds_and_only_those_allowed() {
        let mut plan = Plan::new(3, &all());
        let struck: BTreeSet<Fault> =
            (0..20).flat_map(|_| plan.round()).map(|strike| strike.fault).collect();
        assert_eq!(struck, all());
        let mut plan = Plan::new(3, &BTreeSet::from([Fault::Kill]));
        assert!((0..20).flat_map(|_| plan.round()).all(|strike| strike.fault == Fault::Kill));
    }

    #[test]
    fn no_process_is_wanted_twice_in_a_round_and_nothing_lasts_beyond_its_bound() {
        let mut plan = Plan::new(11, &all());
        for _ in 0..2_000 {
            let round = plan.round();
            let mut held = BTreeSet::new();
            for strike in &round {
                assert!(strike.ends_ms() < BEGIN_WITHIN_MS + 60_001, "{strike}");
                assert!(strike.jump_s.abs() < 3_600, "{strike}");
                assert!(!strike.struck.is_empty());
                assert!(strike.struck.iter().all(|node| !strike.others.contains(node)), "{strike}");
                for node in &strike.struck {
                    let hold = strike.fault.hold();
                    assert!(hold == Hold::Nothing || held.insert((hold, *node)), "{round:?}");
                }
            }
        }
    }
}
