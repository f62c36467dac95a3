//! How a process follows: one fetch at a time per leader, and short ones beside it that report progress.
//!
//! Called by: `process`, `storage`. Calls: the cores. Invariant: an answer is handed to the core of the partition that it is for, which alone
//! decides whether it still counts.

use std::collections::BTreeSet;

use broker_core::ids::{BrokerId, TopicPartition};
use broker_core::partition::{FetchAnswer, FollowerFetch};
use bytes::Bytes;
use client_protocol::ErrorCode;

use super::message::{Address, Alarm, FetchRequest, Message, Outbox};
use super::process::Process;
use crate::sim::ensemble::schedule::{MS, Time};

const FETCH_TIMEOUT: Time = 1_500 * MS;

/// The fetcher towards one leader.
#[derive(Debug, Default)]
pub struct Fetcher {
    keys: BTreeSet<TopicPartition>,
    /// The fetch under way, and when it is given up.
    under_way: Option<(u64, Time)>,
    is_due: bool,
}

impl Process {
    pub(super) fn fetch_from(&mut self, key: TopicPartition, leader: BrokerId, out: &mut Outbox) {
        self.stop_fetching(key);
        self.fetchers.entry(leader).or_default().keys.insert(key);
        self.fetch_after(leader, 0, out);
    }

    pub(super) fn stop_fetching(&mut self, key: TopicPartition) {
        for fetcher in self.fetchers.values_mut() {
            fetcher.keys.remove(&key);
        }
    }

    fn fetch_after(&mut self, leader: BrokerId, wait: Time, out: &mut Outbox) {
        let fetcher = self.fetchers.entry(leader).or_default();
        if !fetcher.is_due {
            fetcher.is_due = true;
            out.alarms.push((wait, Alarm::Fetch(leader)));
        }
    }

    /// A partition can be fetched again: does so unless a fetch is under way.
    pub(super) fn fetch_soon(&mut self, key: TopicPartition, out: &mut Outbox) {
        let leader = self.replicas.get(&key).and_then(|core| core.following());
        if let Some((leader, _)) = leader {
            let idle = self.fetchers.get(&leader).is_none_or(|f| f.under_way.is_none());
            if idle {
                self.fetch_after(leader, 0, out);
            }
        }
    }

    fn items(&self, keys: &BTreeSet<TopicPartition>) -> Vec<(TopicPartition, FollowerFetch)> {
        let Some(broker_epoch) = self.epoch else { return Vec::new() };
        keys.iter()
            .filter_map(|&key| {
                let position = self.replicas.get(&key)?.fetch_position()?;
                Some((
                    key,
                    FollowerFetch {
                        replica: self.id,
                        broker_epoch,
                        leader_epoch: position.leader_epoch,
                        fetch_offset: position.fetch_offset,
                        last_fetched_epoch: position.last_fetched_epoch,
                        durable_end: position.durable_end,
                    },
                ))
            })
            .collect()
    }

    pub(super) fn fetch(&mut self, leader: BrokerId, now: Time, out: &mut Outbox) {
        let Some(fetcher) = self.fetchers.get_mut(&leader) else { return };
        fetcher.is_due = false;
        if fetcher.under_way.is_some_and(|(_, deadline)| deadline > now) {
            return;
        }
        fetcher.under_way = None;
        let keys = fetcher.keys.clone();
        let items = self.items(&keys);
        if items.is_empty() {
            return;
        }
        let number = self.next_number();
        let fetcher = self.fetchers.get_mut(&leader).expect("there");
        fetcher.under_way = Some((number, now + FETCH_TIMEOUT));
        let request = FetchRequest { number, items, may_wait: true };
        out.messages.push((Address::Broker(leader), Message::Fetch(request)));
    }

    /// Tells the leader of more (durable) records beside the fetch that may be waiting there.
    pub(super) fn report_progress(&mut self, key: TopicPartition, now: Time, out: &mut Outbox) {
        let Some((leader, _)) = self.replicas.get(&key).and_then(|core| core.following()) else {
            return;
        };
        let waiting = self.fetchers.get(&leader).is_some_and(|fetcher| fetcher.under_way.is_some());
        if !waiting {
            return self.fetch(leader, now, out);
        }
        let items = self.items(&[key].into());
        if !items.is_empty() {
            let number = self.next_number();
            let request = FetchRequest { number, items, may_wait: false };
            out.messages.push((Address::Broker(leader), Message::Fetch(request)));
        }
    }

    /// A leader answered.
    pub(super) fn fetched(
        &mut self,
        leader: BrokerId,
        number: u64,
        answers: Vec<(TopicPartition, FetchAnswer, Bytes)>,
        now: Time,
        out: &mut Outbox,
    ) {
        let mut refused = false;
        for (key, answer, records) in answers {
            refused |= answer.error != ErrorCode::None;
            self.fetched = records;
            self.on_partition(key, now, out, |core, effects| core.fetch_answered(&answer, effects));
            self.fetched = Bytes::new();
        }
        if let Some(fetcher) = self.fetchers.get_mut(&leader)
            && fetcher.under_way.is_some_and(|(under_way, _)| under_way == number)
        {
            fetcher.under_way = None;
            let wait = if refused { 10 * MS + self.random.below(40 * MS) } else { 0 };
            self.fetch_after(leader, wait, out);
        }
    }

    /// Gives up fetches without an answer, and begins those that have none under way.
    pub(super) fn watch_fetchers(&mut self, now: Time, out: &mut Outbox) {
        let leaders: Vec<_> = self.fetchers.keys().copied().collect();
        for leader in leaders {
            self.fetch(leader, now, out);
        }
    }
}
