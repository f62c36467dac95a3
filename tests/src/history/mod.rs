//! Judges a history of sends and polls: what producers were told against what consumers saw.
//!
//! ```text
//! operation   what clients did and were told
//! facts       who wrote and read what, and the order of offsets that follows
//! values      values at wrong places: inconsistent-offsets, duplicate, G1a, precommitted-read, lost-write, unseen
//! order       steps within and between operations: skips and steps back, of polls and of sends
//! cycles      G0 and G1c: operations that depend on one another in a circle
//! lag         how long a record was there before it was read
//! ```
//!
//! Called by: the simulator, and the end-to-end tests with real clients. Pure: knows nothing of clients, brokers or time.
//! Invariant: whatever was not observed counts as right, so that an anomaly is always one.

mod cycles;
mod facts;
mod lag;
mod operation;
mod order;
mod values;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use facts::Facts;
pub use lag::Lag;
pub use operation::{Function, Key, Micro, Operation, Outcome, Value};

/// What is wrong, by the names that Kafka histories are judged with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// Two values at one offset.
    InconsistentOffsets,
    /// A value at two offsets.
    Duplicate,
    /// A value was read whose send failed for certain.
    G1a,
    /// An operation read what it had itself sent.
    PrecommittedRead,
    /// A value was passed over by all who read beyond it.
    LostWrite,
    /// A value was read that nobody sent.
    PhantomRead,
    /// Within one operation a poll left out values.
    IntPollSkip,
    /// Within one operation a poll went back, or stood still.
    IntNonmonotonicPoll,
    /// Within one operation others' values came between two sends.
    IntSendSkip,
    /// Within one operation a send came before an earlier one.
    IntNonmonotonicSend,
    /// A consumer left out values between two operations.
    PollSkip,
    /// A consumer went back between two operations.
    NonmonotonicPoll,
    /// A producer's send came before one of its earlier operations.
    NonmonotonicSend,
    /// A circle of writes that follow one another.
    G0,
    /// A circle of reads of one another's writes.
    G1c,
    /// A circle of reads and of the order within processes.
    G1cProcess,
    /// A circle of reads and of what ended before another began.
    G1cRealtime,
    /// An acknowledged value was never read, although its offset was there at the end.
    Unseen,
}

/// One anomaly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// Which kind.
    pub name: Name,
    /// The partition; none for circles.
    pub key: Option<Key>,
    /// The operation in which it shows, by its position in the history.
    pub operation: Option<usize>,
    /// The value, where it is about one.
    pub value: Option<Value>,
    /// The first offset at which that stands, where it is known.
    pub offset: Option<i64>,
    /// For people.
    pub what: String,
    /// The consumers' partitions were given out by a group, which may take them away: steps between operations are allowed.
    pub subscribed: bool,
}

/// What the clients were promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promises {
    /// Producers were idempotent: nothing twice.
    pub exactly_once: bool,
    /// Consumers read committed transactions only.
    pub read_committed: bool,
}

impl Anomaly {
    /// Whether it breaks what was promised; others are only worth counting.
    #[must_use]
    pub fn is_fatal(&self, promises: Promises) -> bool {
        match self.name {
            Name::InconsistentOffsets
            | Name::LostWrite
            | Name::PhantomRead
            | Name::IntPollSkip
            | Name::IntNonmonotonicPoll
            | Name::IntNonmonotonicSend
            | Name::NonmonotonicSend
            | Name::Unseen => true,
            Name::Duplicate => promises.exactly_once,
            Name::G1a
            | Name::PrecommittedRead
            | Name::G1c
            | Name::G1cProcess
            | Name::G1cRealtime => promises.read_committed,
            Name::PollSkip | Name::NonmonotonicPoll => !self.subscribed,
            Name::IntSendSkip | Name::G0 => false,
        }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)?;
        if let Some(key) = self.key {
            write!(f, " in {key}")?;
        }
        if let Some(operation) = self.operation {
            write!(f, " at operation {operation}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// What a history came to.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Everything found, fatal or not.
    pub anomalies: Vec<Anomaly>,
    /// Acknowledged values that nobody read, at unknown offsets or behind the end.
    pub unseen: u64,
    /// How late reads were.
    pub lag: Lag,
}

impl Verdict {
    /// Those that break what was promised.
    pub fn fatal(&self, promises: Promises) -> Vec<&Anomaly> {
        self.anomalies.iter().filter(|anomaly| anomaly.is_fatal(promises)).collect()
    }

    /// How many there are of each kind.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Name, usize> {
        let mut counts = BTreeMap::new();
        for anomaly in &self.anomalies {
            *counts.entry(anomaly.name).or_default() += 1;
        }
        counts
    }
}

/// Judges a history: its operations in the order in which they ended. `ends` are the end offsets (exclusive) of partitions that were read to
/// their end after everything else; a partition that is not named may have unread records.
#[must_use]
pub fn check(history: &[Operation], ends: &BTreeMap<Key, i64>) -> Verdict {
    let facts = Facts::new(history);
    let mut anomalies = Vec::new();
    values::check(&facts, &mut anomalies);
    let unseen = values::check_unseen(&facts, ends, &mut anomalies);
    order::check(&facts, &mut anomalies);
    cycles::check(&facts, &mut anomalies);
    Verdict { anomalies, unseen, lag: lag::measure(&facts) }
}
