//! Bugs that can be put in on purpose, for the simulator to find; compiled only under `--cfg planted`.
//!
//! Called by: the places where each would have been made, through `planted!`. Calls: nothing.
//! Invariant: without the cfg there is no switch, no field and no branch; with it, nothing changes until a setting names a bug.
//! Each breaks one rule, in the way in which an implementer could have broken it.

/// One bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Planted {
    /// What is appended counts as durable.
    AcknowledgeBeforeSync,
    /// Records are committed and acknowledged by however few are in sync.
    AcknowledgeBelowMinIsr,
    /// When nobody is eligible, any replica that lives is elected.
    ElectOutsideIsr,
    /// A replica whose directory was wiped or replaced counts as one that kept everything.
    ElectWiped,
    /// A new follower cuts at its high watermark before it asks where epochs end (Kafka before KIP-101).
    TruncateToHighWatermark,
    /// Who is about to be taken out of the in-sync set counts no longer.
    CountPendingShrink,
    /// A follower joins the in-sync set by what it has not synced.
    JoinOnUnsyncedEnd,
    /// A process leads under an epoch that was granted to its former life.
    LeadUnderOldEpoch,
    /// Consumers read to the log's end.
    ServeAboveHighWatermark,
    /// A follower joins the in-sync set wherever it stands.
    CountLagging,
    /// Fetches and their answers count whatever leader epoch they name.
    SkipEpochCheck,
    /// A machine that was started anew counts as one whose memory kept everything.
    IgnoreBootChange,
    /// When nobody is eligible, a topic in memory takes the best of those that are there.
    TakeAnyOfMemory,
    /// A state counts that is not above the one that was adopted.
    AdoptAnyState,
    /// A broker that hears nothing from the coordinator serves on.
    ServeWithoutContact,
    /// A block of producer ids counts as taken when nobody knows whether it was.
    TakeUnknownBlock,
    /// A group's commits are acknowledged when they are written and not replicated yet.
    AcknowledgeUnreplicatedOffsets,
    /// A group coordinator that takes over numbers generations from the beginning.
    ForgetGeneration,
    /// A group's work is handed to members of a generation that is over.
    HandWorkToAnyGeneration,
}

impl Planted {
    /// All of partitions and the controller.
    pub const ALL: [Planted; 16] = [
        Planted::AcknowledgeBeforeSync,
        Planted::AcknowledgeBelowMinIsr,
        Planted::ElectOutsideIsr,
        Planted::ElectWiped,
        Planted::TruncateToHighWatermark,
        Planted::CountPendingShrink,
        Planted::JoinOnUnsyncedEnd,
        Planted::LeadUnderOldEpoch,
        Planted::ServeAboveHighWatermark,
        Planted::CountLagging,
        Planted::SkipEpochCheck,
        Planted::IgnoreBootChange,
        Planted::TakeAnyOfMemory,
        Planted::AdoptAnyState,
        Planted::ServeWithoutContact,
        Planted::TakeUnknownBlock,
    ];

    /// All of groups.
    pub const GROUPS: [Planted; 3] = [
        Planted::AcknowledgeUnreplicatedOffsets,
        Planted::ForgetGeneration,
        Planted::HandWorkToAnyGeneration,
    ];
}

/// Stands in every program that was built with the switches and uses this crate, so that one that was released can be
/// told from it.
pub(crate) const MARK: &str = "tidegate was built with planted bugs";
