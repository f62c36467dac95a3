//! One run: work while things break, heal, come to rest, audit.
//!
//! Called by: tests. Calls: `world`, `ledger`. Invariant (asserted): after healing every partition that has an eligible replica has a leader and
//! a full ISR, every acknowledgement that was asked for came, consumers have read all, and all replicas are the same.

use broker_core::ids::{BrokerId, Offset, TopicPartition};

use super::ledger::{Entry, read_all};
use super::native::Native;
use super::process::Process;
use super::reader::Reader;
use super::settings::Settings;
use super::world::{World, key};
use crate::sim::decisions::Decisions;
use crate::sim::ensemble::schedule::{SECOND, Time};
use crate::sim::ensemble::{LONG_FROM, lengthen};
use crate::sim::fault::Struck;
use crate::sim::random::Random;

/// A few batches.
const LEAST_FETCH_BYTES: u32 = 500;

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Equal for equal runs.
    pub digest: u64,
    /// Steps of brokers.
    pub events: u64,
    /// Offsets committed.
    pub committed: u64,
    /// Batches acknowledged with acks=all.
    pub acknowledged: u64,
    /// Records that consumers saw.
    pub consumed: u64,
    /// Operations on the ensemble that were compared with what it agreed on.
    pub compared: u64,
    /// Simulated time, in microseconds.
    pub simulated: Time,
    /// Faults by kind.
    pub struck: Struck,
    /// What the deciding code did, the ensemble's too.
    pub decisions: Decisions,
    /// Partitions that ended without an eligible replica because a disk was wiped.
    pub lost_partitions: u64,
    /// Partitions that had a leader who may have lacked committed records.
    pub unclean_partitions: u64,
}

/// Runs `seed`. Panics when a rule is broken. `print` writes every event to standard output.
pub fn run(seed: u64, print: bool) -> Report {
    run_with(seed, print, |_| {})
}

/// What a seed draws.
pub fn draw(seed: u64) -> Settings {
    let mut settings = Settings::new(&mut Random::new(seed ^ 0x7265_706c));
    lengthen(seed, &mut settings.work, &mut settings.pace);
    if seed >= LONG_FROM {
        // With a batch at a time nobody could take over what waits in the time that healing has.
        settings.fetch_bytes_max = settings.fetch_bytes_max.max(LEAST_FETCH_BYTES);
        if let Some(reader) = &mut settings.reader {
            reader.partition_bytes_max =
                reader.partition_bytes_max.max(LEAST_FETCH_BYTES.cast_signed());
        }
    }
    settings
}

/// Runs `seed` with settings that `change` has changed.
pub fn run_with(seed: u64, print: bool, change: impl FnOnce(&mut Settings)) -> Report {
    let mut settings = draw(seed);
    change(&mut settings);
    if print {
        println!("seed {seed}: {settings:?}");
    }
    let (mut work, rest) = (settings.work, settings.rest());
    let mut world = World::new(seed, settings, print);
    world.unleash();
    world.run_until(work);
    // Others go on meanwhile, and so do faults.
    work = work.max(world.long_pauses_end());
    world.run_until(work);
    world.heal();
    // A disk that stands still goes on by itself: only then is everything mended.
    let mended = world.last_stall().max(work);
    come_to_rest(&mut world, mended + rest);
    let mut lost_partitions = 0;
    for partition in 0..world.settings.partitions {
        if is_lost(&world, key(partition)) {
            lost_partitions += 1;
        } else {
            audit(&world, key(partition));
        }
    }
    judge(&world);
    let sessions = world.ensemble.judge();
    Report {
        digest: world.trace.digest() ^ world.ensemble.digest().rotate_left(1),
        compared: sessions.writes + sessions.reads + sessions.changes,
        events: world.trace.events(),
        committed: world.ledger.committed_count(),
        acknowledged: world.ledger.acknowledged_count(),
        consumed: world.ledger.consumed,
        simulated: world.schedule.now(),
        struck: world.struck(),
        decisions: world.decisions(),
        lost_partitions,
        unclean_partitions: world.ledger.unclean_count(),
    }
}

/// Everyone in the ISR is on a machine whose disk lost what was durable, and was put there before it did: the partition waits for what will
/// not come back (D6).
fn is_lost(world: &World, key: TopicPartition) -> bool {
    // A topic that allows it is led by whoever is there.
    let Some(stored) = world.state(key.partition).filter(|_| !world.settings.unclean) else {
        return false;
    };
    let Some(any) = world.machines.values().find_map(|m| m.process.as_ref()) else { return false };
    stored.state.isr.iter().all(|id| {
        let is_void = any.image.identity(*id).is_some_and(|i| stored.written <= i.lost_at());
        let core = process(world, *id).and_then(|process| process.replicas.get(&key));
        let has_cut =
            core.is_some_and(|core| core.report().cut_below_mark && core.leading().is_none());
        world.machines[id].suspect && (is_void || has_cut)
    })
}

/// What is left to be done.
enum Unrest {
    /// The native consumer has not read all, for this reason.
    Reading(String),
    Other(String),
}

/// Runs on until nothing is left to be done, `end` at the latest. Only the native consumer, whose settings may have it read
/// one batch at a time, may be later, as long as it reads on.
fn come_to_rest(world: &mut World, end: Time) {
    let mut read_before = 0;
    loop {
        let next = world.schedule.now() + SECOND;
        world.run_until(next);
        let keys = (0..world.settings.partitions).map(key);
        let of_partitions = keys.filter(|&key| !is_lost(world, key)).map(|key| unrest(world, key));
        let fleeting = world.fleeting_unrest().map(Unrest::Other);
        let unrest: Vec<Unrest> = of_partitions.chain([fleeting]).flatten().collect();
        let is_other = |unrest: &&Unrest| matches!(unrest, Unrest::Other(_));
        let Some(first) = unrest.iter().find(is_other).or(unrest.first()) else { return };
        let read = world.reader.as_ref().map_or(0, Reader::has_read);
        let (why, reads_on) = match first {
            Unrest::Reading(why) => (why, read > read_before),
            Unrest::Other(why) => (why, false),
        };
        assert!(next < end || reads_on, "not at rest after healing: {why}");
        read_before = read.max(read_before);
    }
}

fn process(world: &World, id: BrokerId) -> Option<&Process> {
    world.machines[&id].process.as_ref()
}

fn other(why: String) -> Option<Unrest> {
    Some(Unrest::Other(why))
}

/// What is left to be done for a partition.
fn unrest(world: &World, key: TopicPartition) -> Option<Unrest> {
    let Some(state) = world.state(key.partition).map(|stored| stored.state) else {
        return other(format!("{key:?} is not created"));
    };
    let core = state.leader.and_then(|id| process(world, id)?.replicas.get(&key));
    let Some(core) = core.filter(|core| core.leading() == Some(state.leader_epoch)) else {
        return other(format!("{key:?} is not led: {state:?}"));
    };
    if state.isr.len() != world.settings.replication_factor {
        return other(format!("{key:?}: not all are in sync: {state:?}"));
    }
    if world.is_led_by_another(key, &state) {
        return other(format!("{key:?} is not led by its first replica: {state:?}"));
    }
    let end = core.positions().end;
    if core.high_watermark() != end {
        return other(format!("{key:?}: not all is committed"));
    }
    for &id in &state.isr {
        let replica = process(world, id).and_then(|process| process.replicas.get(&key));
        if replica.map(|replica| replica.positions().end) != Some(end) {
            return other(format!("{key:?}: {id} has not all"));
        }
    }
    if world
        .producers
        .iter()
        .any(|p| p.key == key && (p.in_flight.is_some() || p.after_healing > 0))
    {
        return other(format!("{key:?}: a producer is not answered"));
    }
    let unsettled =
        |native: &Native| native.batches.values().any(|batch| batch.partition == key.partition);
    if world.native.as_ref().is_some_and(unsettled) {
        return other(format!("{key:?}: the native producer is not answered"));
    }
    if world.consumers.iter().any(|c| c.key == key && c.position != end) {
        return other(format!("{key:?}: a consumer has not read all"));
    }
    let unread = world.reader.as_ref().and_then(|reader| reader.unread(key.partition, end));
    if let Some(why) = unread {
        return Some(Unrest::Reading(format!(
            "{key:?}: the native consumer has not read all: {why}"
        )));
    }
    if last_differs(world, key, (core.positions().start, end)) {
        return other(format!("{key:?}: the native consumer is not told that the log was cut"));
    }
    None
}

/// Whether the native consumer has read another record than the log's last one in its place.
fn last_differs(world: &World, key: TopicPartition, (start, end): (Offset, Offset)) -> bool {
    let Some(reader) = world.reader.as_ref().filter(|_| world.ledger.is_unclean(key)) else {
        return false;
    };
    let leader = world.state(key.partition).and_then(|stored| stored.state.leader);
    let Some(process) = leader.and_then(|leader| process(world, leader)) else { return false };
    let from = Offset::new((end.get() - 1).max(start.get()));
    read_all(process, key, from, end)
        .is_ok_and(|last| reader.differs(key.partition, &last).is_some())
}

/// What clients were told and saw, by the checker of histories.
fn judge(world: &World) {
    let mut chronicle = world.chronicle.clone();
    if world.settings.compaction.is_some() {
        chronicle = chronicle.compacted();
    }
    for producer in &world.producers {
        if let Some(sent) = &producer.in_flight {
            chronicle.hoped(producer.key, &sent.values, (sent.began, world.schedule.now()));
        }
    }
    for batch in world.native.iter().flat_map(|native| native.batches.values()) {
        let time = (batch.began, world.schedule.now());
        chronicle.hoped(self::key(batch.partition.get()), &batch.values, time);
    }
    let read = world.consumers.iter().filter(|consumer| !is_lost(world, consumer.key));
    let ends: Vec<_> = read
        .map(|consumer| {
            let start = world.ledger.log_start(consumer.key);
            (consumer.key.partition, start, consumer.position)
        })
        .collect();
    let idempotent = |value: u64| world.ledger.is_idempotent(value);
    let unclean = |partition| world.ledger.is_unclean(key(partition));
    chronicle.judge(&ends, idempotent, unclean);
}

/// Everything acknowledged is there, and everywhere the same. What rots on a suspect disk and was never read there is told from what differs.
fn audit(world: &World, key: TopicPartition) {
    let state = world.state(key.partition).expect("at rest").state;
    let leader = process(world, state.leader.expect("at rest")).expect("at rest");
    let (start, end) =
        (leader.replicas[&key].positions().start, leader.replicas[&key].positions().end);
    world.ledger.audit(key, start);
    if let Some(reader) = &world.reader
        && let Ok(log) = read_all(leader, key, start, end)
    {
        assert_eq!(reader.differs(key.partition, &log), None, "{key:?}: read, and not in the log");
    }
    let mut logs: Vec<(BrokerId, Offset, Vec<Entry>)> = Vec::new();
    for &id in &state.isr {
        let replica = process(world, id).expect("at rest");
        let from = replica.replicas[&key].positions().start.max(start);
        match read_all(replica, key, from, end) {
            Ok(log) => {
                if !world.machines[&id].suspect && world.settings.compaction.is_none() {
                    world.ledger.audit_log(key, (from, end), &log);
                }
                let (ends, now) = ((from.get(), end.get()), world.schedule.now());
                world.ledger.replayed(key, &log, ends, (now, id));
                logs.push((id, from, log));
            }
            Err(_) if world.machines[&id].suspect => {}
            Err(error) => panic!("{key:?}: {id} has damaged records: {error}"),
        }
    }
    for pair in logs.windows(2) {
        let from = pair[0].1.max(pair[1].1).get();
        // Replicas clean by themselves: what one has not any more is not compared.
        let is_compacted = world.settings.compaction.is_some();
        let has = |log: &[Entry], offset| log.binary_search_by_key(&offset, |e| e.0).is_ok();
        let [mine, theirs] = [0, 1].map(|which: usize| {
            let (log, other) = (&pair[which].2, &pair[1 - which].2);
            let counts = |entry: &&Entry| entry.0 >= from && (!is_compacted || has(other, entry.0));
            log.iter().filter(counts).collect::<Vec<_>>()
        });
        assert_eq!(mine, theirs, "{key:?}: {} and {} have different logs", pair[0].0, pair[1].0);
    }
}
