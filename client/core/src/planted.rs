//! Bugs that can be put in on purpose, for the simulator to find; compiled only under `--cfg planted`.
//!
//! *Called by* the places where each would have been made, through `planted!`. *Calls* nothing.
//!
//! Invariant: without the cfg there is no switch, no field and no branch; with it, nothing changes until a setting names a
//! bug. Each breaks one rule, in the way in which an implementer could have broken it.

/// One bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Planted {
    /// A member of which the group coordinator knows nothing goes on with its partitions.
    KeepShareWhenUnknown,
    /// A cooperative member joins again before its caller has let go what was taken from it.
    JoinBeforeLetGo,
    /// A commit that is tried again is told as one of the generation that the member is in by then.
    CommitAsOfNow,
    /// A consumer reads on from a new leader without asking whether that has what was read.
    SkipPositionCheck,
    /// A consumer takes the answer to a question of which it no longer waits for the answer.
    TakeAbandonedAnswer,
    /// A consumer that learns of a cut below its position reads on where it was.
    IgnoreCut,
}

impl Planted {
    /// All of groups.
    pub const GROUPS: [Planted; 3] =
        [Planted::KeepShareWhenUnknown, Planted::JoinBeforeLetGo, Planted::CommitAsOfNow];
    /// All of consumers.
    pub const CONSUMERS: [Planted; 3] =
        [Planted::SkipPositionCheck, Planted::TakeAbandonedAnswer, Planted::IgnoreCut];
}

/// Stands in every program that was built with the switches and uses this crate, so that one that was released can be
/// told from it.
pub(crate) const MARK: &str = "tidegate was built with planted bugs";
