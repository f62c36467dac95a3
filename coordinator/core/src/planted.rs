//! Bugs that can be put in on purpose, for the simulator to find; compiled only under `--cfg planted`.
//!
//! Called by: the places where each would have been made, through `planted!`. Calls: nothing.
//! Invariant: without the cfg there is no switch, no field and no branch; with it, nothing changes until a configuration
//! names a bug. Each breaks one rule of one server, in the way in which an implementer could have broken it.

/// One bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Planted {
    /// Votes and acknowledgements leave before what they promise is on disk.
    AcknowledgeBeforeSync,
    /// A vote does not outlive the process.
    ForgetVote,
    /// What a session waits for is answered before it is told of the change.
    ReplyBeforeNotification,
    /// What was missed while a client was away is not told when it sets its watches again.
    LoseWatchOnReconnect,
    /// An expiry ends a session that has moved since.
    ExpireReattached,
    /// A write that the log holds twice takes effect twice.
    ApplyTwice,
    /// The ephemerals of a session outlive it.
    KeepEphemerals,
    /// A sync waits for what this server knows, not for what a quorum does.
    SyncWithoutQuorum,
    /// A socket that the server closed itself counts as a sign of death.
    CountOwnClose,
    /// Now and then a change is not told to subscribers.
    LoseChange,
    /// Now and then a watch event is not told.
    LoseNotification,
    /// The number of a sequential node is that of the parent's children.
    ReuseSequenceSuffix,
    /// Sessions are answered without a confirmed leader.
    AnswerWithoutQuorum,
    /// A handshake takes a session back from where it went meanwhile.
    AcceptStaleReconnect,
    /// What a former connection asked for takes effect after the session has moved on.
    AcceptStaleWrite,
    /// Repetitions are told by a number that each connection begins anew, as clients do with theirs.
    DeduplicateByXid,
    /// A multi that fails keeps what it did before.
    KeepFailedMulti,
    /// A parent does not show when its last child went.
    DeleteBehindParent,
    /// What a sync failed to write counts as written.
    GoOnAfterFailedSync,
    /// What is refused for want of room is written all the same.
    WriteWhatIsRefused,
    /// A server gets its vote before it has the log.
    GiveVoteUnprepared,
    /// A change of the members is called done before consensus has come to them.
    FinishHalfWay,
    /// After a restart the members are those of the settings, whatever a snapshot says.
    CountBySettings,
    /// A transfer is called done when it was asked for.
    CallTransferDone,
    /// A client whose handshake is on its way to the log is served without a quorum.
    ReadBesideHandshake,
    /// Without a quorum a client is shown a state that is older than what it has seen.
    ReadBehind,
}

impl Planted {
    /// All of them.
    pub const ALL: [Planted; 26] = [
        Planted::AcknowledgeBeforeSync,
        Planted::ForgetVote,
        Planted::ReplyBeforeNotification,
        Planted::LoseWatchOnReconnect,
        Planted::ExpireReattached,
        Planted::ApplyTwice,
        Planted::KeepEphemerals,
        Planted::SyncWithoutQuorum,
        Planted::CountOwnClose,
        Planted::LoseChange,
        Planted::LoseNotification,
        Planted::ReuseSequenceSuffix,
        Planted::AnswerWithoutQuorum,
        Planted::AcceptStaleReconnect,
        Planted::AcceptStaleWrite,
        Planted::DeduplicateByXid,
        Planted::KeepFailedMulti,
        Planted::DeleteBehindParent,
        Planted::GoOnAfterFailedSync,
        Planted::WriteWhatIsRefused,
        Planted::GiveVoteUnprepared,
        Planted::FinishHalfWay,
        Planted::CountBySettings,
        Planted::CallTransferDone,
        Planted::ReadBesideHandshake,
        Planted::ReadBehind,
    ];
}

/// Stands in every program that was built with the switches and uses this crate, so that one that was released can be
/// told from it.
pub(crate) const MARK: &str = "tidegate was built with planted bugs";
