//! Bugs put in on purpose: the simulation is worth what it finds of them.
//!
//! Called by: tests. Each is what an implementer could have done wrong in the place where it is asked about.

/// One planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Plant {
    /// None.
    #[default]
    None,
    /// A round reports what it did not sync.
    AckBeforeSync,
    /// acks=all is answered when the leader alone has the records.
    AckBelowMinIsr,
    /// A new follower cuts at its high watermark before it asks where epochs end (Kafka before KIP-101).
    TruncateToHighWatermark,
    /// The log takes what was permitted under an older epoch.
    SkipEpochCheck,
    /// The controller elects a live replica although it is not in sync.
    ElectOutsideIsr,
    /// A wiped broker registers as if it had kept everything.
    HideLoss,
    /// Consumers read to the log's end.
    ReadAboveHighWatermark,
    /// A process leads under an epoch that was granted to its former life.
    LeadUnderOldEpoch,
}
