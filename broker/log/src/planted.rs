//! Bugs that can be put in on purpose, for the simulator to find; compiled only under `--cfg planted`.
//!
//! Called by: the places where each would have been made, through `planted!`. Calls: nothing.
//! Invariant: without the cfg there is no switch, no field and no branch; with it, nothing changes until a setting names a bug.
//! Each breaks one rule, in the way in which an implementer could have broken it.

/// One bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Planted {
    /// What is known of producers does not outlive the process.
    ForgetProducers,
    /// The durable mark stays where it was when the log is cut below it.
    KeepMarkWhenTruncating,
    /// What no in-sync replica has yet takes the place of what they all have.
    CleanAboveHighWatermark,
    /// A tombstone goes at the second cleaning, however soon that comes.
    ForgetDeleteRetention,
    /// The end of the log is believed by its headers: a torn batch counts as whole.
    IgnoreTornTail,
    /// Damage below the durable mark is cut off like a torn tail.
    CutDamagedMiddle,
    /// A segment is as its sum says, however the process before ended.
    TrustSums,
    /// What a sync failed to write counts as written.
    GoOnAfterFailedSync,
    /// Marks are synced when something else needs it, not for their own sake.
    LeaveMarksUnsynced,
}

impl Planted {
    /// All of them.
    pub const ALL: [Planted; 9] = [
        Planted::ForgetProducers,
        Planted::KeepMarkWhenTruncating,
        Planted::CleanAboveHighWatermark,
        Planted::ForgetDeleteRetention,
        Planted::IgnoreTornTail,
        Planted::CutDamagedMiddle,
        Planted::TrustSums,
        Planted::GoOnAfterFailedSync,
        Planted::LeaveMarksUnsynced,
    ];
}

/// Stands in every program that was built with the switches and uses this crate, so that one that was released can be
/// told from it.
pub(crate) const MARK: &str = "tidegate was built with planted bugs";
