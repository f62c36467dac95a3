//! One run: work while things break, heal, come to rest, audit.
//!
//! Called by: tests. Calls: `world`, `ledger`. Invariant (asserted): after healing every partition that has an eligible replica has a leader and
//! a full ISR, every acknowledgement that was asked for came, consumers have read all, and all replicas are the same.

use broker_core::ids::{Offset, TopicPartition};
use broker_core::image::path;

use super::ledger::read_all;
use super::plant::Plant;
use super::settings::Settings;
use super::world::{TOPIC, World, key};
use crate::sim::random::Random;

/// What a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// Partitions that ended without an eligible replica because a disk was wiped.
    pub lost_partitions: u64,
}

/// Runs `seed`. Panics when a rule is broken. `print` writes every event to standard output.
pub fn run(seed: u64, plant: Plant, print: bool) -> Report {
    let mut random = Random::new(seed ^ 0x7265_706c);
    let settings = Settings::new(&mut random, plant);
    if print {
        println!("seed {seed}: {settings:?}");
    }
    let (work, rest) = (settings.work, settings.rest);
    let mut world = World::new(seed, settings, print);
    world.unleash();
    world.run_until(work);
    world.heal();
    world.run_until(work + rest);
    let mut lost_partitions = 0;
    for partition in 0..world.settings.partitions {
        if is_lost(&world, key(partition)) {
            lost_partitions += 1;
        } else {
            audit(&world, key(partition));
        }
    }
    Report {
        digest: world.trace.digest(),
        events: world.trace.events(),
        committed: world.ledger.committed_count(),
        acknowledged: world.ledger.acknowledged.len() as u64,
        consumed: world.ledger.consumed,
        lost_partitions,
    }
}

/// Everyone in the ISR is on a wiped machine, and was put there before it was.
fn is_lost(world: &World, key: TopicPartition) -> bool {
    let Some(state) = world.coordinator.state(TOPIC, key.partition) else { return false };
    let node = world.coordinator.node(&path::state(TOPIC, key.partition)).expect("there");
    world.wiped_any
        && state.isr.iter().all(|id| {
            let any = world.machines.values().find_map(|m| m.process.as_ref()).expect("healed");
            let identity = any.image.identity(*id);
            world.machines[id].wiped
                && identity.is_some_and(|stored| node.stat.mzxid <= stored.lost_at())
        })
}

fn audit(world: &World, key: TopicPartition) {
    let state = world.coordinator.state(TOPIC, key.partition).expect("created");
    let leader = state.leader.unwrap_or_else(|| panic!("{key:?} has no leader: {state:?}"));
    let process = |id| world.machines[&id].process.as_ref().expect("healed");
    let core = &process(leader).replicas[&key];
    assert_eq!(core.leading(), Some(state.leader_epoch), "{key:?}: {leader} does not lead");
    let factor = world.settings.replication_factor;
    assert_eq!(state.isr.len(), factor, "{key:?}: not all are in sync: {state:?}");
    let (start, end) = (core.positions().start, core.positions().end);
    assert_eq!(core.high_watermark(), end, "{key:?}: not all is committed");
    world.ledger.audit(key, start);
    let whole = read_all(process(leader), key, start, end);
    for id in &state.isr {
        let replica = &process(*id).replicas[&key];
        assert_eq!(replica.positions().end, end, "{key:?}: {id} has another end");
        let from = replica.positions().start.max(start);
        let mine = read_all(process(*id), key, from, end);
        let theirs: Vec<_> = whole.iter().copied().filter(|e| e.0 >= from.get()).collect();
        assert_eq!(mine, theirs, "{key:?}: {id} has another log");
    }
    for producer in world.producers.iter().filter(|p| p.key == key) {
        assert!(producer.in_flight.is_none(), "{key:?}: a producer was never answered");
    }
    for consumer in world.consumers.iter().filter(|c| c.key == key) {
        let read_to: Offset = consumer.position;
        assert_eq!(read_to, end, "{key:?}: a consumer did not come to the end");
    }
}
