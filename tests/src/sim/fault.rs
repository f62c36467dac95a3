//! What can go wrong in a run, each kind for itself: counted when it has struck, and able to be switched off.
//!
//! Called by: the simulations, where each strikes; the `sim` program, to shrink a failing run.
//! Invariant: a kind that is off draws the same random numbers as one that is on, so that the rest of a run changes as little as it can.

use std::collections::{BTreeMap, BTreeSet};

use super::disk::Refusals;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process is killed.
    Kill,
    /// A process ends within what it does: between two operations on its disk, or with only some of its messages sent.
    KillWithin,
    /// A machine loses power: what was not synced may go, in parts.
    PowerCut,
    /// All machines do at once.
    PowerCutOfAll,
    /// A server dies with its vote just given, and is back at once.
    VoterDies,
    /// A process stands still.
    Pause,
    /// A process stops in order.
    ShutDown,
    /// The leader of the ensemble gives up its office.
    Resign,
    /// The leader loses everyone, and those who may follow it do not hear each other.
    Unseat,
    /// Servers do not hear each other, in one direction or both.
    Partition,
    /// A connection between servers breaks.
    BreakLink,
    /// A client's connection is reset.
    ResetLine,
    /// What a client and its server say waits, in one direction or both, and neither is told.
    ClogLine,
    /// A client does not read.
    Backlog,
    /// A client's process is killed.
    KillClient,
    /// A client stands still.
    PauseClient,
    /// A message is lost without a sign.
    LoseMessage,
    /// A message arrives twice.
    DoubleMessage,
    /// A message is overtaken by later ones.
    DelayMessage,
    /// A connection breaks within a message.
    CutFrame,
    /// A disk is slow.
    SlowDisk,
    /// A disk is full for a while: what no longer fits is cut short.
    FullDisk,
    /// A disk has little room for a while, and its server is told.
    LowDisk,
    /// A machine's wall clock jumps, up to an hour to either side.
    JumpClock,
    /// A sync fails.
    FailSync,
    /// A sync fails, and the machine forgets that there is something to write.
    DropPages,
    /// A file cannot be read for a while.
    ReadError,
    /// A disk stands still for up to half a minute.
    StallDisk,
    /// A bit of a file flips.
    FlipBit,
    /// What was written to a sector never reached the disk.
    LoseSector,
    /// A file is gone.
    LoseFile,
    /// A machine gets the disk that it had some time ago.
    OldDisk,
    /// A process stands still for up to two minutes.
    LongPause,
    /// A disk is empty after a restart.
    Wipe,
    /// A session expires although its client lives.
    ExpireSession,
    /// A broker's connection to the ensemble breaks when it has just asked for the controller's office.
    BreakElection,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Fault; 36] = [
        Fault::Kill,
        Fault::KillWithin,
        Fault::PowerCut,
        Fault::PowerCutOfAll,
        Fault::VoterDies,
        Fault::Pause,
        Fault::ShutDown,
        Fault::Resign,
        Fault::Unseat,
        Fault::Partition,
        Fault::BreakLink,
        Fault::ResetLine,
        Fault::ClogLine,
        Fault::Backlog,
        Fault::KillClient,
        Fault::PauseClient,
        Fault::LoseMessage,
        Fault::DoubleMessage,
        Fault::DelayMessage,
        Fault::CutFrame,
        Fault::SlowDisk,
        Fault::FullDisk,
        Fault::LowDisk,
        Fault::JumpClock,
        Fault::FailSync,
        Fault::DropPages,
        Fault::ReadError,
        Fault::StallDisk,
        Fault::FlipBit,
        Fault::LoseSector,
        Fault::LoseFile,
        Fault::OldDisk,
        Fault::LongPause,
        Fault::Wipe,
        Fault::ExpireSession,
        Fault::BreakElection,
    ];
}

/// How often each kind struck.
pub type Struck = BTreeMap<Fault, u64>;

/// Which kinds there are in a run.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    off: BTreeSet<Fault>,
    struck: Struck,
}

impl Faults {
    /// All but these.
    pub fn without(off: &BTreeSet<Fault>) -> Self {
        Self { off: off.clone(), struck: Struck::new() }
    }

    /// Whether a fault that is due happens: it does so at once, and counts.
    pub fn strikes(&mut self, fault: Fault) -> bool {
        let on = self.is_on(fault);
        if on {
            self.note(fault);
        }
        on
    }

    /// One that was on has struck: what was drawn and met nobody does not count.
    pub fn note(&mut self, fault: Fault) {
        *self.struck.entry(fault).or_default() += 1;
    }

    /// Whether it happens when it is due.
    pub fn is_on(&self, fault: Fault) -> bool {
        !self.off.contains(&fault)
    }

    /// How often each kind has struck, also by the word of these disks.
    pub fn struck(&self, disks: impl Iterator<Item = Refusals>) -> Struck {
        let mut struck = self.struck.clone();
        let kinds = [Fault::FailSync, Fault::DropPages, Fault::FullDisk, Fault::ReadError];
        for refusals in disks {
            let counts = [refusals.syncs, refusals.drops, refusals.room, refusals.reads];
            for (fault, count) in kinds.into_iter().zip(counts).filter(|&(_, count)| count > 0) {
                *struck.entry(fault).or_default() += count;
            }
        }
        struck
    }
}
