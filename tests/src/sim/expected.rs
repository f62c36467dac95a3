//! What many runs together must have seen: every kind of fault, and every kind of decision, at least once.
//!
//! Called by: `many`, for the gate and campaigns. Calls: nothing.
//! Invariant: each exception is one by name, with a reason. A decision that is not known here is told too: it would not be missed.

use super::campaign::World;
use super::decisions::Decisions;
use super::fault::{Fault, Struck};

/// Of so many runs something may be demanded: the gate has more, and so has a campaign of some hours.
fn runs_min(world: World) -> u64 {
    match world {
        World::Ensemble => 300,
        World::Calm => 50,
        World::Replication => 1_000,
        World::Groups => 200,
    }
}

/// What the ensemble breaks: its servers, their links and disks, and the clients.
const OF_ENSEMBLE: [Fault; 27] = [
    Fault::Kill,
    Fault::PowerCut,
    Fault::PowerCutOfAll,
    Fault::VoterDies,
    Fault::Pause,
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
    Fault::SlowDisk,
    Fault::FullDisk,
    Fault::LowDisk,
    Fault::JumpClock,
    Fault::FailSync,
    Fault::DropPages,
    Fault::ReadError,
    Fault::FlipBit,
    Fault::LoseSector,
    Fault::Wipe,
];

/// Of those, what the ensemble of a whole cluster is spared: its brokers would only wait.
const OF_ENSEMBLE_ALONE: [Fault; 1] = [Fault::LowDisk];

fn faults(world: World) -> Vec<Fault> {
    let is_shared = |fault: &Fault| !OF_ENSEMBLE_ALONE.contains(fault);
    match world {
        World::Ensemble => OF_ENSEMBLE.to_vec(),
        World::Replication => Fault::ALL.into_iter().filter(is_shared).collect(),
        // Only clients die there, by the run itself and not by a fault that is drawn.
        World::Calm => Vec::new(),
        // Its members and coordinators come and go by lots of their own, which are not counted.
        World::Groups => Vec::new(),
    }
}

/// What a server of the ensemble wants done.
const BY_SERVERS: [&str; 6] = [
    "ensemble Respond",
    "ensemble Close",
    "ensemble Reading",
    "ensemble SendPeer",
    "ensemble Persist",
    "ensemble SaveSnapshot",
];
/// Where no disk fails none halts: not in `calm`.
const HALT: &str = "ensemble Halt";

/// What clients did that takes several answers in a row: one of them wrote under a lock.
const HELD: &str = "clients HeldLock";

/// Clients were served without a quorum.
const READ_ONLY: &str = "clients ReadOnly";

/// Their writes were refused for want of room.
const REFUSED: &str = "clients Refused";

/// Where clients change the members: what their servers tell, and what came of it.
const OF_MEMBERS: [&str; 3] = ["ensemble Members", "clients Reconfigured", "clients Transferred"];

/// What partitions, the controller, the log and its cleaner want done.
const BY_BROKERS: [&str; 39] = [
    "AdoptEpoch",
    "AppendFetched",
    "Truncate",
    "RestartAt",
    "DropBelow",
    "CutRepaired",
    "CommittedCut",
    "HighWatermark",
    "EndMoved",
    "LeadershipLost",
    "ReportProgress",
    "FetchFrom",
    "StopFetching",
    "Alter",
    "controller Write",
    "controller Answer",
    "controller Describe",
    "controller UncleanElection",
    "controller Stand",
    "controller Won",
    "controller Resign",
    "controller Read",
    "controller GiveUp",
    "producer ids Taken",
    "log Opened",
    "log Opened damaged",
    "log EpochAdopted",
    "log Appended",
    "log Refused",
    "log AppendRefused",
    "log Truncated",
    "log LogStartMoved",
    "log Removed",
    "log ToClean",
    "log ToSync",
    "log ToUnlink",
    "log Failed",
    "cleaner Cleaned",
    "cleaner GaveUp",
];

/// What native members told their callers.
const BY_MEMBERS: [&str; 8] = [
    "member WatchTopics",
    "member Assigned",
    "member Revoked",
    "member Lost",
    "member Out",
    "member Committed",
    "member CommitDone",
    "member CommitFailed",
];

fn decisions(world: World) -> Vec<&'static str> {
    let (servers, brokers) = (BY_SERVERS.as_slice(), BY_BROKERS.as_slice());
    match world {
        World::Ensemble => [servers, &[HALT, HELD, READ_ONLY, REFUSED], &OF_MEMBERS].concat(),
        World::Calm => [servers, &[HELD]].concat(),
        World::Replication => [servers, &[HALT], brokers].concat(),
        World::Groups => BY_MEMBERS.to_vec(),
    }
}

/// What so many runs of a simulation have not seen, in words.
#[must_use]
pub fn unseen(world: World, runs: u64, struck: &Struck, decided: &Decisions) -> Vec<String> {
    if runs < runs_min(world) {
        return Vec::new();
    }
    let name = world.name();
    let known = decisions(world);
    let never = faults(world).into_iter().filter(|fault| !struck.contains_key(fault));
    let never = never.map(|fault| format!("{name}: {fault:?} has never struck"));
    let untried = known.iter().filter(|decision| decided.count(decision) == 0);
    let untried = untried.map(|decision| format!("{name}: nothing ever decided: {decision}"));
    let unknown = decided.names().filter(|name| !known.contains(name));
    let unknown = unknown.map(|decision| format!("{name}: not known to be expected: {decision}"));
    never.chain(untried).chain(unknown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_of(world: World) -> (Struck, Decisions) {
        let struck = faults(world).into_iter().map(|fault| (fault, 1)).collect();
        let mut decided = Decisions::default();
        decisions(world).into_iter().for_each(|name| decided.note(name));
        (struck, decided)
    }

    #[test]
    fn what_never_struck_and_what_was_never_decided_is_told() {
        let world = World::Replication;
        let (mut struck, mut decided) = all_of(world);
        assert_eq!(unseen(world, 1_000, &struck, &decided), [""; 0]);
        struck.remove(&Fault::OldDisk);
        let told = ["replication: OldDisk has never struck"];
        assert_eq!(unseen(world, 1_000, &struck, &decided), told);
        assert_eq!(unseen(world, 999, &struck, &decided), [""; 0], "of few runs nothing is asked");
        struck.insert(Fault::OldDisk, 1);
        decided.note("something new");
        let told = ["replication: not known to be expected: something new"];
        assert_eq!(unseen(world, 1_000, &struck, &decided), told);
        let told = unseen(world, 1_000, &struck, &Decisions::default());
        assert_eq!(told.len(), BY_SERVERS.len() + 1 + BY_BROKERS.len());
    }

    #[test]
    fn a_world_without_faults_that_are_counted_has_to_break_nothing() {
        for (world, runs) in [(World::Calm, 60), (World::Groups, 300)] {
            let (struck, decided) = all_of(world);
            assert_eq!(struck, Struck::new());
            assert_eq!(unseen(world, runs, &struck, &decided), [""; 0]);
        }
    }
}
