//! Topics: the one that is judged, which may grow and whose leaders are moved, and one that comes and goes under the same name, each time
//! another.
//!
//! Called by: `world`, `run`. Calls: the controller that is in office, through `world`'s step. Invariant: what the fleeting topic is asked to hold
//! is asked by name only, as clients do, so that it may reach any of those that had the name. It does not know who leads.

use std::collections::BTreeMap;

use broker_core::controller::{
    AlterPartitions, Effect as ControllerEffect, ElectionKind, MeantTopic, MorePartitions, NewTopic,
};
use broker_core::ids::{BrokerId, PartitionId, TopicId, TopicPartition};
use broker_core::image::{PartitionState, path};
use broker_core::partition::Durability;
use client_protocol::records::BatchBuilder;

use super::client::record;
use super::message::{Address, Message};
use super::process::Process;
use super::world::{Event, Machine, TOPIC, World, key};
use crate::sim::ensemble::schedule::{MS, SECOND};
use crate::sim::fault::Fault;

/// The topic that comes and goes.
pub const FLEETING: &str = "fleeting";
/// The setting of a topic that would rather lose records than wait.
const UNCLEAN: &str = "unclean.leader.election.enable";
/// Who sends to the fleeting topic; nobody waits for its answers.
pub const NOBODY: Address = Address::Producer(usize::MAX);

impl World {
    /// The controller that is in office, where it knows all brokers.
    fn controller(&self) -> Option<(BrokerId, u64)> {
        let brokers = self.settings.brokers as usize;
        let is_ready = |machine: &Machine| {
            machine.process.as_ref().is_some_and(|process| {
                process.seat.controller().is_active() && process.image.brokers().count() == brokers
            })
        };
        let found = self.machines.iter().find(|(_, machine)| is_ready(machine));
        found.map(|(&id, machine)| (id, machine.life))
    }

    /// Lets the controller in office do something.
    fn administer(&mut self, act: impl FnOnce(&mut Process, &mut Vec<ControllerEffect>)) {
        let Some((id, life)) = self.controller() else { return };
        self.step(id, life, |process, now, out| {
            let mut effects = Vec::new();
            act(process, &mut effects);
            process.do_controller(effects, now, out);
        });
    }

    fn new_topic(&self, name: &str, id: TopicId, partitions: i32) -> NewTopic {
        let durability = match self.settings.durability {
            Durability::Disk => "disk",
            Durability::Memory => "memory",
        };
        let unclean = if self.settings.unclean { "true" } else { "false" };
        NewTopic {
            name: name.to_owned(),
            id,
            partitions: Some(partitions),
            replication_factor: i16::try_from(self.settings.replication_factor).ok(),
            assignment: BTreeMap::new(),
            config: [("durability", durability), (UNCLEAN, unclean)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        }
    }

    /// Creates the topic that is judged and gives it all its partitions, again and again until they are there.
    pub(super) fn create_topic(&mut self) {
        let all = self.settings.partitions;
        if self.state(PartitionId::new(all - 1)).is_some() {
            return;
        }
        self.schedule.after(200 * MS, Event::CreateTopic);
        if self.state(PartitionId::new(0)).is_none() {
            let topic = self.new_topic(TOPIC, key(0).topic, self.settings.partitions_first);
            return self.administer(|process, effects| {
                let number = process.next_number();
                process.seat.controller_mut().create_topics(number, vec![topic], false, effects);
            });
        }
        if self.schedule.now() >= self.settings.grows_after || self.calm {
            let more = MorePartitions { name: TOPIC.to_owned(), count: all, assignment: None };
            self.administer(|process, effects| {
                let number = process.next_number();
                process.seat.controller_mut().create_partitions(number, vec![more], false, effects);
            });
        }
    }

    /// Whether the topic is to have one partition more just before the controller hears that a leader wants a replica in sync: that
    /// leader is told of all its partitions once more while it waits. What it sends to the replica is lost for some time.
    pub(super) fn grows_before(&mut self, leader: Address, request: &AlterPartitions) -> bool {
        let all = self.settings.partitions;
        if self.grown >= self.settings.grows_by || self.calm {
            return false;
        }
        let Some(item) = request.items.iter().find(|item| item.partition.topic == key(0).topic)
        else {
            return false;
        };
        let Some(stored) = self.state(item.partition.partition) else { return false };
        let mut wished = item.isr.iter().map(|(id, _)| *id);
        let Some(joiner) = wished.find(|id| !stored.state.isr.contains(id)) else { return false };
        if self.state(PartitionId::new(all - 1)).is_none() || !self.topics.chance(1, 2) {
            return false;
        }
        let until = self.schedule.now() + 50 * MS + self.topics.below(400 * MS);
        if self.arsenal.strikes(Fault::Partition) {
            self.isolated.insert((leader, Address::Broker(joiner)), until);
        }
        self.grown += 1;
        true
    }

    /// The topic has one partition more, or soon will.
    pub(super) fn grow(&mut self) {
        let count = self.settings.partitions + self.grown;
        let more = MorePartitions { name: TOPIC.to_owned(), count, assignment: None };
        self.administer(|process, effects| {
            let number = process.next_number();
            process.seat.controller_mut().create_partitions(number, vec![more], false, effects);
        });
    }

    /// Somebody wants other leaders: those that are preferred, or where nobody leads whoever is there.
    pub(super) fn move_leaders(&mut self) {
        if !self.settings.moves_leaders {
            return;
        }
        let next = 200 * MS + self.topics.below(2 * SECOND);
        self.schedule.after(next, Event::Administer);
        let mut which = self.topics.below(6);
        if self.calm {
            // By chance one that needs it might be asked for by nobody until the run ends.
            which = 1;
        }
        let partition = self.topics.below(self.settings.partitions.unsigned_abs().into());
        let partition = PartitionId::new(i32::try_from(partition).expect("few"));
        let one = Some(vec![(TOPIC.to_owned(), partition)]);
        let (kind, asked) = match which {
            0 if self.settings.unclean => (ElectionKind::Unclean, one),
            // All that need it, whatever it is.
            1 | 2 => (ElectionKind::Preferred, None),
            _ => (ElectionKind::Preferred, one),
        };
        let is_balanced = which == 5;
        self.administer(|process, effects| match is_balanced {
            true => process.seat.controller_mut().balance(10, effects),
            false => {
                let number = process.next_number();
                process.seat.controller_mut().elect_leaders(number, kind, asked, effects);
            }
        });
    }

    /// A partition that is led by another than its first replica, though that is in sync and somebody asks for it.
    pub(super) fn is_led_by_another(&self, key: TopicPartition, state: &PartitionState) -> bool {
        let processes = || self.machines.values().filter_map(|machine| machine.process.as_ref());
        let preferred = processes().find_map(|process| {
            let topic = process.image.topic_by_id(key.topic)?;
            topic.node.partitions.get(&key.partition)?.first().copied()
        });
        self.settings.moves_leaders && preferred.is_some() && preferred != state.leader
    }

    /// Deletes the fleeting topic if it is there, and else creates it with an id that no other had.
    pub(super) fn come_or_go(&mut self) {
        if self.calm || !self.settings.fleeting {
            return;
        }
        let next = 300 * MS + self.topics.below(3 * SECOND);
        self.schedule.after(next, Event::ComeOrGo);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.topics.number().to_be_bytes());
        id[15] = 1;
        let is_there = self.ensemble.agreed().tree().get(&path::topic(FLEETING)).is_some();
        let topic = self.new_topic(FLEETING, TopicId::from_bytes(id), 1);
        let fleeting = MeantTopic { name: FLEETING.to_owned(), id: None };
        self.administer(|process, effects| {
            let number = process.next_number();
            let controller = process.seat.controller_mut();
            match is_there {
                true => controller.delete_topics(number, vec![fleeting], effects),
                false => controller.create_topics(number, vec![topic], false, effects),
            }
        });
    }

    /// Sends something to the fleeting topic, to whoever some broker takes for its leader.
    pub(super) fn send_fleeting(&mut self) {
        if self.calm || !self.settings.fleeting {
            return;
        }
        let next = 10 * MS + self.topics.below(200 * MS);
        self.schedule.after(next, Event::SendFleeting);
        let partition = PartitionId::new(0);
        let number = self.topics.number() >> 34;
        let ids: Vec<_> = self.machines.keys().copied().collect();
        let some = ids[self.topics.below(ids.len() as u64) as usize];
        let Some(process) = &self.machines[&some].process else { return };
        let Some(leader) = process.image.leader(FLEETING, partition) else { return };
        let to = Address::Broker(leader.id);
        let mut builder = BatchBuilder::new(1 << 10);
        assert!(builder.push(&record(number, self.settings.compaction.is_some())), "it is small");
        let batch = builder.build(None).expect("not empty");
        let topic = FLEETING.to_owned();
        let message = Message::Produce { number, topic, key: partition, acks: -1, batch };
        self.send(NOBODY, to, message);
    }

    /// What is left to be done for the fleeting topic, if it is there.
    pub(super) fn fleeting_unrest(&self) -> Option<String> {
        let partition = PartitionId::new(0);
        let node = self.ensemble.agreed().tree().get(&path::state(FLEETING, partition))?;
        let state = PartitionState::decode(&node.data().expect("ours")).expect("ours");
        // Who was in sync on a disk that lost what it had is waited for in vain.
        if state.isr.iter().all(|id| self.machines[id].suspect) {
            return None;
        }
        let process = state.leader.and_then(|id| self.machines[&id].process.as_ref());
        let led = process.and_then(|process| {
            let key = process.key_of(FLEETING, partition)?;
            let core = process.replicas.get(&key)?;
            (core.leading() == Some(state.leader_epoch)).then_some(())
        });
        let in_sync = state.isr.len() == self.settings.replication_factor;
        (led.is_none() || !in_sync)
            .then(|| format!("{FLEETING} is not led or not in sync: {state:?}"))
    }
}
