//! Failures of ZooKeeper that were published, each as the interleaving that broke it.
//!
//! A test says in its name what must hold, and in its comment what ZooKeeper did. The servers are the real ones on disks
//! that lose what was not synced. What every run is held to is held here too: a leader has all that was committed, states
//! are equal, and what a client was told is done is on every server in the end. That a scenario notices its failure is
//! shown where the bug is put in (`--cfg planted`, at the end), or by a disk that has lost what it had synced.

use std::path::Path;

use coordinator_disk::{Disk, OpenMode};
use tests::sim::ensemble::{Script, Settings};

/// Changes the settings of a run: nothing, or the bug that is put in.
type Change<'a> = &'a dyn Fn(&mut Settings);

const SOUND: Change<'static> = &|_| {};
/// Enough that what is torn within a write is torn within an entry.
const LARGE: usize = 6_000;

/// All machines lose power at once.
fn cut_power_of_all(script: &mut Script) {
    for server in 0..3 {
        if script.status(server).is_some() {
            script.cut_power(server);
        }
    }
}

/// Two servers start without the third, and one of them leads.
fn elect_of_two(script: &mut Script, (one, other): (usize, usize)) -> usize {
    script.start(one);
    script.start(other);
    script.run_until("one of two leads", |script| {
        let both = [one, other].map(|server| script.status(server).is_some_and(|it| it.confirmed));
        both == [true; 2] && (script.leads(one) || script.leads(other))
    });
    if script.leads(one) { one } else { other }
}

/// A leader has an entry that nobody else has, leads again after everybody was down, and is about to give the entry to a
/// follower that has just voted for it.
fn lead_with_an_entry_of_before(script: &mut Script) -> [usize; 3] {
    let [leader, follower, third] = script.ranked();
    script.create_for_certain(leader, "/before", 10);
    script.cut_off(leader);
    script.create(leader, "/alone", 10);
    script.run_ms(20);
    cut_power_of_all(script);
    script.join_all();
    script.start(leader);
    script.start(follower);
    script.run_until("the longer log leads", |script| {
        script.leads(leader) && script.voted_for(follower) == Some(leader)
    });
    [leader, follower, third]
}

fn followers_hold_what_they_sync_in_memory(change: Change<'_>) {
    let mut script = Script::new(change);
    let [leader, follower, third] = lead_with_an_entry_of_before(&mut script);
    script.hold_disk(follower);
    script.start(third);
    script.hold_disk(third);
    script.run_ms(1_000);
    cut_power_of_all(&mut script);
    let next = elect_of_two(&mut script, (follower, third));
    script.create_for_certain(next, "/later", 10);
    // Otherwise they had it, and nothing was put to the test.
    assert!(!script.is_agreed("/alone"), "the followers' disks were not held");
    script.start(leader);
    script.finish();
}

/// ZOOKEEPER-3911: in a DIFF sync followers acknowledged NEWLEADER with the leader's proposals in memory, and the leader served
/// clients on that; when all lost power and the leader stayed away, those proposals were gone.
/// Source: github.com/apache/zookeeper/pull/1445.
#[test]
fn what_followers_hold_in_memory_makes_no_quorum_for_a_new_leader() {
    followers_hold_what_they_sync_in_memory(SOUND);
}

/// Whether the entry outlived that the power went so many events after the election.
fn power_goes_while_a_follower_syncs(events: usize, change: Change<'_>) -> bool {
    let mut script = Script::new(change);
    let [leader, follower, third] = lead_with_an_entry_of_before(&mut script);
    for _ in 0..events {
        script.step();
    }
    cut_power_of_all(&mut script);
    let next = elect_of_two(&mut script, (follower, third));
    script.create_for_certain(next, "/later", 10);
    let has_survived = script.is_agreed("/alone");
    script.start(leader);
    script.finish();
    has_survived
}

/// ZOOKEEPER-4646: behind the fix of 3911 the follower's acknowledgement and its log were written by two threads in no order, so that
/// it could crash after the one and before the other. Here the power goes after each of the events in which a follower syncs.
/// Source: github.com/apache/zookeeper/pull/1993.
#[test]
fn acknowledged_sync_outlives_a_power_cut_at_any_moment() {
    let survived = (0..120).map(|events| power_goes_while_a_follower_syncs(events, SOUND));
    let survived: Vec<bool> = survived.collect();
    assert!(survived.contains(&false), "the power never went early");
    assert!(survived.contains(&true), "the power never went late");
}

/// What a follower's disk had when the power went within the first entries that it took from a new leader.
struct Torn {
    /// The new term.
    has_term: bool,
    /// The entries.
    has_entries: bool,
}

/// With `rewound`, the disk of the server that had acknowledged those entries is the one from before.
fn follower_dies_between_term_and_entries(seed: u64, rewound: bool) -> Torn {
    let mut script = Script::new(SOUND);
    let [leader, follower, third] = script.ranked();
    script.cut_off(third);
    script.run_ms(100);
    // An older disk must not lack a vote, too: that is another rule.
    if !rewound {
        script.create_for_certain(leader, "/committed", LARGE);
    }
    script.cut_power(leader);
    script.cut_power(follower);
    let new = elect_of_two(&mut script, (leader, follower));
    let other = leader + follower - new;
    let before = script.disk(other).durable_copy();
    if rewound {
        script.create_for_certain(new, "/committed", LARGE);
    }
    script.join_all();
    script.run_until("entries come", |script| script.writes_entries(third));
    let term = script.status(new).expect("it leads").term;
    script.cut_power_within_write(third, seed);
    script.cut_power(new);
    script.cut_power(other);
    script.start(third);
    let found = script.status(third).expect("started");
    let torn = Torn { has_term: found.term == term, has_entries: found.last_index > 1 };
    if rewound {
        script.replace_disk(other, before);
    }
    let next = elect_of_two(&mut script, (third, other));
    script.create_for_certain(next, "/later", 10);
    script.start(new);
    script.finish();
    torn
}

/// ZOOKEEPER-4643: a follower stored the new epoch before the transactions that it synced, and died between the two; as epochs were
/// compared first, it was elected with the shorter log, and a server that had committed those transactions truncated them.
/// Source: github.com/apache/zookeeper/pull/2028.
#[test]
fn newer_term_with_a_shorter_log_truncates_nothing_committed() {
    let torn: Vec<Torn> =
        (0..30).map(|seed| follower_dies_between_term_and_entries(seed, false)).collect();
    assert!(torn.iter().any(|torn| torn.has_term && !torn.has_entries), "never between the two");
    assert!(torn.iter().any(|torn| torn.has_entries), "never behind both");
}

/// What ZooKeeper's follower did above, done by a disk: what it had acknowledged is cut off.
#[test]
#[should_panic(expected = "lacks committed entry")]
fn truncated_entry_that_was_committed_is_noticed() {
    let is_between = |seed: &u64| {
        let torn = follower_dies_between_term_and_entries(*seed, false);
        torn.has_term && !torn.has_entries
    };
    let seed = (0..30).find(is_between).expect("one is");
    follower_dies_between_term_and_entries(seed, true);
}

/// What was seen of a follower when the power went within its sync.
#[derive(Default)]
struct Syncing {
    /// It had the leader's snapshot on disk.
    has_snapshot: bool,
    /// An entry was committed that only it and the leader had.
    has_committed: bool,
}

/// A follower that is far behind syncs with a new leader while clients go on writing, and nothing is committed but with it. So many
/// events after it is heard of again, the power goes there and at the leader.
fn power_goes_while_a_follower_catches_up(events: usize, change: Change<'_>) -> Syncing {
    let mut script = Script::new(|settings: &mut Settings| {
        *settings = settings.clone().with_snapshots_of(20);
        change(settings);
    });
    let [leader, follower, third] = script.ranked();
    script.cut_off(third);
    for number in 0..30 {
        script.create_for_certain(leader, &format!("/before{number}"), 100);
    }
    script.cut_power(leader);
    script.cut_power(follower);
    let new = elect_of_two(&mut script, (leader, follower));
    let other = leader + follower - new;
    let behind = script.status(third).expect("it was only cut off").applied_index;
    script.create_for_certain(new, "/again", 10);
    let both_had = script.status(new).expect("it leads").commit_index;
    script.join_all();
    script.cut_off(other);
    script.run_until("it is heard again", |script| script.is_up(new, third));
    for event in 0..events {
        if event % 8 == 0 {
            script.ask(new, &format!("/while{event}"), 100);
        }
        script.step();
    }
    let found = script.status(third).expect("a sync that meets a write does not end the process");
    let syncing = Syncing {
        has_snapshot: found.snapshot_index > behind,
        has_committed: script.status(new).is_some_and(|status| status.commit_index > both_had),
    };
    script.cut_power(third);
    script.cut_power(new);
    script.cut_power(other);
    script.join_all();
    let next = elect_of_two(&mut script, (third, other));
    script.create_for_certain(next, "/later", 10);
    script.start(new);
    script.finish();
    syncing
}

/// ZOOKEEPER-4394 (and 4785): when a proposal stood before NEWLEADER and its commit behind, the follower that synced had forgotten the
/// proposal, died of a null pointer and began anew; transactions that it had acknowledged could be missing from its log. Here
/// writes come all through a sync with a snapshot, and the power goes after each of its events.
/// Source: github.com/apache/zookeeper/pull/1930, 2152 and 2111.
#[test]
fn follower_that_dies_while_it_syncs_under_writes_lacks_nothing_committed() {
    let seen: Vec<Syncing> =
        (0..240).step_by(2).map(|n| power_goes_while_a_follower_catches_up(n, SOUND)).collect();
    assert!(seen.iter().any(|seen| !seen.has_snapshot), "never before the snapshot");
    assert!(seen.iter().any(|seen| seen.has_snapshot && !seen.has_committed), "never between");
    assert!(seen.iter().any(|seen| seen.has_committed), "never behind it");
}

/// A server's sync fails, it comes back, and then it is one of only two that have an entry. If the machine `forgets`, it goes on
/// showing what the sync should have written, and never writes it.
fn disk_fails_for_a_moment(forgets: bool, change: Change<'_>) {
    let mut script = Script::new(change);
    let [leader, failing, third] = script.ranked();
    script.create_for_certain(leader, "/before", 10);
    script.disk(failing).drop_unsynced_at_failure(forgets);
    script.fail_sync(failing);
    script.create_for_certain(leader, "/missed", 10);
    script.run_ms(10_000);
    let refused = script.disk(failing).refusals();
    assert_eq!(refused.syncs + refused.drops, 1, "no sync failed");
    script.cut_off(third);
    script.create_for_certain(leader, "/behind", 10);
    cut_power_of_all(&mut script);
    script.join_all();
    let next = elect_of_two(&mut script, (failing, third));
    script.create_for_certain(next, "/later", 10);
    script.start(leader);
    script.finish();
}

/// ZOOKEEPER-4882: a server whose disk failed for a moment went on with the transaction in memory only, logged the ones behind it, and
/// after a restart had a hole in its log, which it spread as a leader.
/// Source: github.com/apache/zookeeper/pull/2268.
#[test]
fn failed_sync_leaves_no_hole_in_the_log_of_a_server_that_comes_back() {
    disk_fails_for_a_moment(false, SOUND);
}

/// The same on a machine that takes what a failed sync should have written for written, as Linux does: who comes back reads it, and
/// nothing that is synced from then on makes it durable.
#[test]
fn what_a_failed_sync_left_in_memory_is_no_entry_of_a_log() {
    disk_fails_for_a_moment(true, SOUND);
}

/// So many entries of [`LARGE`] bytes fill every disk below.
const FILLING: usize = 5;

/// How a server's process ends while it begins a new log file.
#[derive(Clone, Copy)]
enum End {
    /// The power goes within the write; parts of it are left, as the seed has it.
    Power(u64),
    /// So many bytes more fit.
    Full(u64),
}

/// Every log file is full after one large entry: each write begins the next.
fn process_ends_while_a_log_file_begins(end: End) {
    let mut script = Script::new(|settings: &mut Settings| settings.segment_bytes = 1_000);
    let [leader, dying, third] = script.ranked();
    script.create_for_certain(leader, "/before", LARGE);
    script.run_until("it has that, too", |script| script.is_current(dying));
    if let End::Full(bytes) = end {
        script.fill_disk(dying, bytes);
    }
    script.create(leader, "/torn", LARGE);
    match end {
        End::Power(seed) => {
            script.run_until("it writes", |script| script.writes_entries(dying));
            script.cut_power_within_write(dying, seed);
        }
        End::Full(_) => {
            for number in 0..FILLING {
                let path = format!("/filling{number}");
                script.create(leader, &path, LARGE);
                script.run_until("it is committed", |script| script.is_done(&path));
            }
            assert!(script.status(dying).is_none(), "the disk was not full");
            // It may try to start while there is no room, and must not make it worse.
            script.run_ms(5_000);
            script.mend_disk(dying);
        }
    }
    script.run_until("the others have it", |script| script.is_done("/torn"));
    script.start(dying);
    script.run_until("it is current", |script| script.is_current(dying));
    // It is one of two that count from here on.
    script.cut_power(third);
    script.create_for_certain(leader, "/later", 10);
    script.finish();
}

/// ZOOKEEPER-2332: a crash between the creation of a log file and its header left an empty one, on which the next start failed
/// until somebody removed it.
/// Source: github.com/apache/zookeeper/pull/2141.
#[test]
fn server_starts_by_itself_after_a_power_cut_within_a_new_log_file() {
    (0..120).for_each(|seed| process_ends_while_a_log_file_begins(End::Power(seed)));
}

/// No crash leaves an empty file under the name of a log file: one that is there was emptied by somebody, and what it held is not known.
#[test]
#[should_panic(expected = "is damaged at byte 0")]
fn emptied_log_file_is_noticed() {
    let mut script = Script::new(|_| {});
    let [leader, emptied, _] = script.ranked();
    script.create_for_certain(leader, "/before", 10);
    script.kill(emptied);
    let files = script.disk(emptied).files();
    let is_log = |path: &Path| path.extension().is_some_and(|extension| extension == "log");
    let (path, _) = files.iter().rfind(|(path, _)| is_log(path)).expect("a log file");
    let file = script.disk(emptied).open(path, OpenMode::ReadWrite).expect("it is there");
    file.truncate(0).and_then(|()| file.sync()).expect("the disk works");
    script.start(emptied);
}

/// ZOOKEEPER-1621: a disk that was full left a log file with half a header, on which starts failed when there was room again.
/// Source: github.com/apache/zookeeper/pull/439.
#[test]
fn server_starts_by_itself_after_its_disk_was_full() {
    (0..20_000)
        .step_by(193)
        .for_each(|bytes| process_ends_while_a_log_file_begins(End::Full(bytes)));
}

/// A client comes back with more bytes of watches than a request may have, and names all of them in one.
fn client_comes_back_with_many_watches(change: Change<'_>) {
    let mut script = Script::new(change);
    let [leader, dying, third] = script.ranked();
    let path = |number: u32| format!("/{number:01000}");
    for number in 0..2_000 {
        script.watch(dying, &path(number));
    }
    script.run_until("all watches are there", |script| script.is_answered(dying));
    script.send_home(dying, third);
    script.kill(dying);
    script.create_for_certain(leader, &path(7), 10);
    script.run_until("it is back", |script| script.is_answered(dying));
    script.create_for_certain(leader, &path(8), 10);
    script.run_ms(100);
    assert_eq!(script.told_of(&path(7)), 1, "what it missed");
    assert_eq!(script.told_of(&path(8)), 1, "what came later");
    script.start(dying);
    script.finish();
}

/// ZOOKEEPER-706: the request that sets a client's watches again was larger than servers take, so that each closed the connection, and
/// the client came back with the same request for ever. (Some clients send it in parts since; those that do not are left.)
/// Source: github.com/apache/zookeeper/pull/1765.
#[test]
fn client_with_more_watches_than_a_request_may_have_gets_them_back() {
    client_comes_back_with_many_watches(SOUND);
}

/// The same with the bug that each is about.
#[cfg(planted)]
mod planted {
    use coordinator_core::planted::Planted;

    use super::*;

    const UNSYNCED: Change<'static> = &|settings| {
        settings.planted = Some(Planted::AcknowledgeBeforeSync);
    };
    const FORGETFUL: Change<'static> = &|settings| {
        settings.planted = Some(Planted::LoseWatchOnReconnect);
    };
    const FAILED: Change<'static> = &|settings| {
        settings.planted = Some(Planted::GoOnAfterFailedSync);
    };

    #[test]
    #[should_panic(expected = "lacks committed entry")]
    fn acknowledgement_from_memory_is_noticed() {
        followers_hold_what_they_sync_in_memory(UNSYNCED);
    }

    #[test]
    #[should_panic(expected = "lacks committed entry")]
    fn acknowledgement_before_the_write_is_noticed() {
        (0..120).for_each(|events| {
            power_goes_while_a_follower_syncs(events, UNSYNCED);
        });
    }

    #[test]
    #[should_panic(expected = "lacks committed entry")]
    fn acknowledgement_within_a_sync_under_writes_is_noticed() {
        (0..240).for_each(|events| {
            power_goes_while_a_follower_catches_up(events, UNSYNCED);
        });
    }

    #[test]
    #[should_panic(expected = "lacks committed entry")]
    fn failed_sync_that_counts_as_written_is_noticed() {
        disk_fails_for_a_moment(false, FAILED);
    }

    #[test]
    #[should_panic(expected = "what it missed")]
    fn watch_that_is_lost_on_reconnect_is_noticed() {
        client_comes_back_with_many_watches(FORGETFUL);
    }
}
