//! The coordinator's log and snapshots on a disk that loses what was not synced.
//!
//! A model keeps what storage was told, step by step. After each crash the folder is opened again: what comes back
//! has to be the state after one of those steps, and none before the last that a sync covered.

use std::path::Path;
use std::sync::Arc;

use coordinator::storage::{self, Beginning, Opened, Owner};
use coordinator_core::consensus::{
    EntryKind, HardState, LogEntry, PersistWrite, Restored, SnapshotImage,
};
use tests::sim::disk::SimulatedDisk;
use tests::sim::random::Random;

/// Seeds of each test, unless `SIM_SEEDS` says otherwise.
const SEEDS: u64 = 40;
const STEPS: u64 = 40;

/// What has to come back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Known {
    hard_state: HardState,
    /// Index and term.
    snapshot: Option<(u64, u64)>,
    /// Index, term and length of each entry behind the snapshot.
    entries: Vec<(u64, u64, usize)>,
}

impl Known {
    fn of(restored: &Restored) -> Known {
        let snapshot = restored.snapshot.as_ref().map(|image| (image.index, image.term));
        let behind = snapshot.map_or(0, |(index, _)| index);
        let entries = restored.entries.iter().filter(|entry| entry.index > behind);
        Known {
            hard_state: restored.hard_state,
            snapshot,
            entries: entries.map(|entry| (entry.index, entry.term, entry.data.len())).collect(),
        }
    }

    fn snapshot_index(&self) -> u64 {
        self.snapshot.map_or(0, |(index, _)| index)
    }

    fn last_index(&self) -> u64 {
        self.entries.last().map_or(self.snapshot_index(), |entry| entry.0)
    }

    fn append(&mut self, entries: &[LogEntry]) {
        if let Some(first) = entries.first() {
            self.entries.retain(|entry| entry.0 < first.index);
        }
        self.entries
            .extend(entries.iter().map(|entry| (entry.index, entry.term, entry.data.len())));
    }

    /// A snapshot of what is applied.
    fn save(&mut self, image: (u64, u64)) {
        self.snapshot = Some(image);
        self.entries.retain(|entry| entry.0 > image.0);
    }
}

/// Storage under test beside its model.
struct Run {
    disk: SimulatedDisk,
    random: Random,
    storage: Opened,
    /// Every state so far that a crash may leave, oldest first; the first is the last that a sync covered.
    possible: Vec<Known>,
    term: u64,
}

impl Run {
    fn new(seed: u64) -> Run {
        let disk = SimulatedDisk::new();
        let (storage, restored) = open(&disk);
        assert_eq!(Known::of(&restored), Known::default());
        let possible = vec![Known::default()];
        Run { disk, random: Random::new(seed), storage, possible, term: 1 }
    }

    fn now(&self) -> &Known {
        self.possible.last().expect("never empty")
    }

    fn entries(&mut self, first: u64) -> Vec<LogEntry> {
        let large = self.random.chance(1, 100);
        let count = 1 + self.random.below(5);
        (first..first + count)
            .map(|index| {
                let bytes = if large { 4 << 20 } else { self.random.below(3000) };
                let data = vec![index.to_le_bytes()[0]; usize::try_from(bytes).unwrap()].into();
                LogEntry { index, term: self.term, kind: EntryKind::Normal, data }
            })
            .collect()
    }

    /// A write as consensus makes them, with every state that a crash within it may leave.
    fn write(&mut self) -> (PersistWrite, Vec<Known>) {
        let mut write = PersistWrite { sync: self.random.chance(3, 4), ..PersistWrite::default() };
        let mut known = self.now().clone();
        let mut steps = Vec::new();
        let mut last = known.last_index();
        if self.random.chance(1, 15) {
            let index = last + 1 + self.random.below(50);
            write.install = Some(image(index, self.term));
            known.entries.clear();
            known.snapshot = Some((index, self.term));
            steps.push(known.clone());
            last = index;
        }
        if self.random.chance(1, 3) {
            self.term += self.random.below(2);
            let hard_state = HardState {
                term: self.term,
                vote: self.random.below(4),
                commit: known.snapshot_index(),
            };
            write.hard_state = Some(hard_state);
            known.hard_state = hard_state;
            steps.push(known.clone());
        }
        if self.random.chance(3, 4) {
            let floor = known.snapshot_index() + 1;
            let back = if self.random.chance(1, 5) { self.random.below(4) } else { 0 };
            write.entries = self.entries((last + 1).saturating_sub(back).max(floor));
            // Entries of one write may be cut into several records.
            for end in 1..=write.entries.len() {
                let mut cut = known.clone();
                cut.append(&write.entries[..end]);
                steps.push(cut);
            }
        }
        if self.random.chance(1, 3) {
            write.discard_to = Some(self.now().snapshot_index());
        }
        (write, steps)
    }

    fn step(&mut self) -> Result<(), storage::StorageError> {
        let now = self.now().clone();
        if self.random.chance(1, 10) && !now.entries.is_empty() {
            let at = usize::try_from(self.random.below(now.entries.len() as u64)).unwrap();
            let (index, term, _) = now.entries[at];
            // Only what is committed, and so durable, is ever in a snapshot.
            self.storage.write(vec![PersistWrite { sync: true, ..PersistWrite::default() }])?;
            let mut saved = now.clone();
            saved.save((index, term));
            self.possible = vec![now, saved.clone()];
            self.storage.save(&image(index, term))?;
            self.possible = vec![saved];
            return Ok(());
        }
        let mut writes = Vec::new();
        let mut synced = false;
        for _ in 0..=self.random.below(3) {
            let (write, steps) = self.write();
            synced |= write.sync;
            self.possible.extend(steps);
            writes.push(write);
        }
        self.storage.write(writes)?;
        if synced {
            // One sync at the end of the group covers all of it.
            self.possible.drain(..self.possible.len() - 1);
        }
        Ok(())
    }

    /// Opens the folder again, and holds what comes back to the model.
    fn reopen(&mut self, seed: u64) {
        let (storage, restored) = open(&self.disk);
        let found = Known::of(&restored);
        assert!(
            self.possible.contains(&found),
            "seed {seed}: {found:?} not in {:?}",
            self.possible
        );
        for entry in &restored.entries {
            assert!(entry.data.iter().all(|byte| *byte == entry.index.to_le_bytes()[0]));
        }
        self.storage = storage;
        self.possible = vec![found];
    }
}

fn image(index: u64, term: u64) -> SnapshotImage {
    SnapshotImage { index, term, data: vec![index.to_le_bytes()[0]; 5000].into() }
}

fn open(disk: &SimulatedDisk) -> (Opened, Restored) {
    let owner = Owner { cluster_id: "simulated".into(), server_id: 1 };
    storage::open(Arc::new(disk.clone()), Path::new("/data"), owner)
        .unwrap_or_else(|error| panic!("cannot be opened again: {error}"))
}

fn seeds() -> u64 {
    std::env::var("SIM_SEEDS").map_or(SEEDS, |text| text.parse().expect("SIM_SEEDS is a number"))
}

#[test]
fn what_was_synced_survives_every_crash_and_kill() {
    for seed in 0..seeds() {
        let mut run = Run::new(seed);
        for step in 0..STEPS {
            run.step().unwrap();
            if run.random.chance(1, 6) {
                if run.random.chance(3, 4) {
                    run.disk.crash(seed * STEPS + step);
                } else {
                    // Loses nothing that was written, synced or not.
                    run.disk.kill();
                    run.possible.drain(..run.possible.len() - 1);
                }
                run.reopen(seed);
            }
        }
    }
}

#[test]
fn failed_sync_or_full_disk_loses_nothing_acknowledged() {
    for seed in 0..seeds() {
        let mut run = Run::new(seed);
        for _ in 0..3 {
            if run.random.chance(1, 2) {
                run.disk.fail_sync_after(run.random.below(12));
            } else {
                run.disk.limit_space(Some(run.random.below(60_000)));
            }
            for _ in 0..STEPS {
                if run.step().is_err() {
                    break;
                }
            }
            run.disk.limit_space(None);
            run.disk.fail_sync_after(u64::MAX);
            run.disk.crash(seed);
            run.reopen(seed);
        }
    }
}

#[test]
fn name_left_unsynced_by_a_killed_process_is_kept_before_anything_is_built_on_it() {
    let behind = |index| PersistWrite {
        entries: vec![LogEntry {
            index,
            term: 1,
            kind: EntryKind::Normal,
            data: vec![index.to_le_bytes()[0]; 10].into(),
        }],
        sync: true,
        ..PersistWrite::default()
    };
    for (seed, killed_at) in (0..8).flat_map(|seed| (0..12).map(move |sync| (seed, sync))) {
        let disk = SimulatedDisk::new();
        let (mut storage, _) = open(&disk);
        storage.write(vec![behind(1)]).unwrap();
        // An installed snapshot begins a segment: two files get their names on the way.
        let install = PersistWrite { install: Some(image(9, 1)), sync: true, ..behind(10) };
        disk.fail_sync_after(killed_at);
        let installed = storage.write(vec![install]).is_ok();
        disk.fail_sync_after(u64::MAX);
        disk.kill();
        let owner = Owner { cluster_id: "simulated".into(), server_id: 1 };
        let path = Path::new("/data");
        // What cannot be opened here is a file whose sync failed, which keeps failing.
        let Ok((mut storage, before)) = storage::open(Arc::new(disk.clone()), path, owner) else {
            continue;
        };
        let last = Known::of(&before).last_index();
        assert!(last == 10 || !installed);
        storage.write(vec![behind(last + 1)]).unwrap();
        disk.crash(seed);
        let (_, after) = open(&disk);
        assert_eq!(Known::of(&after).last_index(), last + 1, "seed {seed}, sync {killed_at}");
    }
}

/// More than founding a folder, or installing a snapshot, takes.
const OPERATIONS: u64 = 60;

#[test]
fn mark_of_a_beginning_is_never_missing_nor_anothers_wherever_a_kill_or_a_power_cut_comes() {
    let owner = || Owner { cluster_id: "simulated".into(), server_id: 1 };
    let path = Path::new("/data");
    let begin =
        |disk: &SimulatedDisk, image| storage::found(Arc::new(disk.clone()), path, owner(), image);
    let other = || SnapshotImage { data: vec![9; 5000].into(), ..image(1, 1) };
    let (mut unfinished, mut finished) = (0, 0);
    for (killed_at, cut) in (0..OPERATIONS).flat_map(|at| [(at, None), (at, Some(at))]) {
        let stop = |disk: &SimulatedDisk| {
            disk.live_on();
            match cut {
                None => disk.kill(),
                Some(seed) => disk.crash(seed),
            }
        };
        let disk = SimulatedDisk::new();
        disk.die_after(killed_at);
        let _ = begin(&disk, image(1, 1));
        stop(&disk);
        // What a server would start with is marked; what none would start with may be made from another state.
        let (opened, restored) = open(&disk);
        let own = opened.beginnings().own();
        drop(opened);
        if restored.snapshot.is_some() {
            assert_eq!(own, Some(Beginning::of(&image(1, 1))), "killed at {killed_at}, {cut:?}");
            finished += 1;
            continue;
        }
        unfinished += 1;
        begin(&disk, other()).unwrap();
        let (mut opened, _) = open(&disk);
        assert_eq!(opened.beginnings().own(), Some(Beginning::of(&other())));
        // A leader's snapshot takes the place of it.
        disk.die_after(killed_at);
        let install = PersistWrite { install: Some(image(70, 3)), ..PersistWrite::default() };
        let _ = opened.write(vec![install]);
        drop(opened);
        stop(&disk);
        let (opened, restored) = open(&disk);
        let is_replaced = restored.snapshot.is_some_and(|snapshot| snapshot.index == 70);
        assert!(!is_replaced || opened.beginnings().own().is_none(), "killed at {killed_at}");
    }
    assert!(unfinished > 10 && finished > 10, "{unfinished} and {finished}");
}
