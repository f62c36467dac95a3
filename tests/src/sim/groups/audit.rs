//! What must hold in every run, looked at with every event.
//!
//! Called by: `world`. Calls: nothing. Invariant: it knows only what went over the wire and what is in the
//! log, never a shard's inside.
//!
//! 1. In one generation a partition is given to one member only.
//! 2. No work of an older generation is handed out after that of a newer one.
//! 3. An acknowledged commit, and an offset that was told, is in the committed log.
//! 4. What is told is at least as new as the newest commit that was acknowledged before.
//! 5. A commit of an older generation is not taken once newer work was handed out.
//! 6. At rest every partition is worked on by exactly one member.
//! 7. A commit is taken for no partition that another member was given in the same generation.
//!
//! Of native members besides, where callers say what they have in hand:
//!
//! 8. No two that work in one generation have the same partition, from when it is given until it was let go or is lost.
//! 9. Nobody asks to join who has something that it does not say (`native`).
//! 10. Reading begins no earlier than the newest commit that was acknowledged before the partition was given, unless a leader of the
//!     past was asked. One that is paused, or cut off, may believe to be in a generation that is over: of that nothing is asked.
//! 11. What is told as committed is in the committed log.
//! 12. At rest all are in the newest generation, know where to begin, and have heard of their commits (`natives`).

use std::collections::BTreeMap;

use broker_core::group::GroupRecord;
use client_protocol::messages::{OffsetCommitRequest, SyncGroupRequest};

use super::log::Log;
use super::member::{Aim, Member, PARTITIONS, decode};
use super::native::Native;

/// See the module.
#[derive(Debug, Default)]
pub struct Audit {
    /// By generation and partition.
    owners: BTreeMap<(i32, i32), String>,
    newest_generation: i32,
    /// By partition: where in the log the newest acknowledged commit stands.
    acknowledged: BTreeMap<i32, usize>,
    /// By partition and offset: where in the committed log it stands, as far as that was read.
    places: BTreeMap<(i32, i64), usize>,
    read: usize,
    /// How many commits were acknowledged.
    pub commits: u64,
    /// How often work was handed out.
    pub handed_out: u64,
}

impl Audit {
    /// A shard answers a SyncGroup with work.
    pub fn handed_out(&mut self, request: &SyncGroupRequest, work: &[u8]) {
        let generation = request.generation_id;
        let newest = self.newest_generation;
        assert!(generation >= newest, "work of generation {generation} after that of {newest}");
        self.newest_generation = generation;
        self.handed_out += 1;
        for partition in decode(work) {
            let owner = self.owners.entry((generation, partition)).or_default();
            // A static member that came back has another id, and the same name.
            let who = match &request.group_instance_id {
                Some(instance) => instance,
                None => &request.member_id,
            };
            assert!(
                owner.is_empty() || owner == who,
                "partition {partition} is given to {owner} and {who} in generation {generation}"
            );
            owner.clone_from(who);
        }
    }

    /// A shard writes a commit.
    pub fn taken(&self, commit: &OffsetCommitRequest) {
        let generation = commit.generation_id_or_member_epoch;
        let newest = self.newest_generation;
        assert!(
            generation >= newest,
            "a commit of generation {generation} is taken after {newest} has its work"
        );
        let who = commit.group_instance_id.as_ref().unwrap_or(&commit.member_id);
        for partition in commit.topics.iter().flat_map(|topic| &topic.partitions) {
            let partition = partition.partition_index.get();
            let owner = self.owners.get(&(generation, partition));
            assert!(
                owner.is_none_or(|owner| owner == who),
                "a commit of {who} is taken for partition {partition}, which generation {generation} gave to {owner:?}"
            );
        }
    }

    /// A shard acknowledges the commit of `offset`.
    pub fn acknowledged(&mut self, log: &Log, partition: i32, offset: i64) {
        let at = self.place(log, partition, offset);
        let at = at.unwrap_or_else(|| panic!("{offset} is acknowledged and not replicated"));
        let newest = self.acknowledged.entry(partition).or_default();
        *newest = at.max(*newest);
        self.commits += 1;
    }

    /// A shard tells what is committed.
    pub fn told(&mut self, log: &Log, partition: i32, offset: Option<i64>) {
        let newest = self.acknowledged.get(&partition).copied();
        let Some(offset) = offset else {
            assert_eq!(newest, None, "partition {partition}: an acknowledged commit is forgotten");
            return;
        };
        let at = self.place(log, partition, offset);
        let at = at.unwrap_or_else(|| panic!("{offset} is told and not replicated"));
        assert!(newest.is_none_or(|newest| at >= newest), "an older offset than acknowledged");
    }

    /// By partition: where in the log the newest acknowledged commit stands.
    pub fn newest(&self) -> &BTreeMap<i32, usize> {
        &self.acknowledged
    }

    /// Of the work that was handed out.
    pub fn newest_generation(&self) -> i32 {
        self.newest_generation
    }

    /// A native member begins at an offset, as a leader told it, in a partition that it was given when the newest
    /// acknowledged commit stood at a place in the log.
    pub fn begins(&mut self, log: &Log, partition: i32, told: (Option<i64>, Option<usize>)) {
        let (offset, since) = told;
        let at = offset.and_then(|offset| self.place(log, partition, offset));
        assert!(
            at >= since,
            "partition {partition} is begun at {offset:?}, which stands at {at:?}; when it was given, a commit at {since:?} was acknowledged"
        );
    }

    /// A native member is told that its commit is done.
    pub fn is_done(&mut self, log: &Log, offsets: &[(i32, i64)]) {
        for (partition, offset) in offsets {
            let at = self.place(log, *partition, *offset);
            assert!(
                at.is_some(),
                "partition {partition}: {offset} is told as done and is not replicated"
            );
        }
    }

    /// Native members have something in hand.
    pub fn held(&self, natives: &[Native]) {
        let mut held: BTreeMap<(i32, i32), usize> = BTreeMap::new();
        for (number, native) in natives.iter().enumerate() {
            let Some(generation) = native.works_in else { continue };
            for partition in native.reads.keys() {
                let other = held.insert((generation, *partition), number);
                let Some(other) = other else { continue };
                let (one, other) = (native.name(number), natives[other].name(other));
                panic!("partition {partition} is in the hands of {one} and of {other}");
            }
        }
    }

    /// Where in the committed log a commit stands.
    fn place(&mut self, log: &Log, partition: i32, offset: i64) -> Option<usize> {
        for (at, entry) in log.committed().iter().enumerate().skip(self.read) {
            for record in &entry.records {
                let record = GroupRecord::decode(&record.key, record.value.as_deref());
                if let Ok(GroupRecord::Offset { partition, value: Some(value), .. }) = record {
                    self.places.insert((partition, value.offset), at);
                }
            }
        }
        self.read = log.committed().len();
        self.places.get(&(partition, offset)).copied()
    }

    /// Nothing happens any more.
    pub fn at_rest(&self, members: &[Member], natives: &[Native]) {
        for partition in 0..PARTITIONS {
            let own = members.iter().filter(|member| member.owned.contains(&partition));
            let native = natives.iter().enumerate();
            let native = native.filter(|(_, native)| native.reads.contains_key(&partition));
            let own = own.map(|member| member.id.clone());
            let owners: Vec<_> =
                own.chain(native.map(|(number, native)| native.name(number))).collect();
            let working = members.iter().any(|member| member.aim != Aim::Out)
                || natives.iter().any(|native| native.is_in);
            assert_eq!(
                owners.len(),
                usize::from(working),
                "partition {partition} at rest belongs to {owners:?}"
            );
        }
    }
}
