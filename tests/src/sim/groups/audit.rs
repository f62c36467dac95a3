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

use std::collections::BTreeMap;

use broker_core::group::GroupRecord;
use client_protocol::messages::SyncGroupRequest;

use super::log::Log;
use super::member::{Aim, Member, PARTITIONS, decode};

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

    /// A shard writes the commit of a member of `generation`.
    pub fn taken(&self, generation: i32) {
        let newest = self.newest_generation;
        assert!(
            generation >= newest,
            "a commit of generation {generation} is taken after {newest} has its work"
        );
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
    pub fn at_rest(&self, members: &[Member]) {
        for partition in 0..PARTITIONS {
            let owns = |member: &&Member| member.owned.contains(&partition);
            let owners: Vec<_> = members.iter().filter(owns).map(|member| &member.id).collect();
            let working = members.iter().any(|member| member.aim != Aim::Out);
            assert_eq!(
                owners.len(),
                usize::from(working),
                "partition {partition} at rest belongs to {owners:?}"
            );
        }
    }
}
