//! How a process follows: one fetch waits per leader, a newer one takes its place when a partition can go on, and short ones beside it
//! report progress.
//!
//! Called by: `process`, `storage`. Calls: the cores. Invariant: an answer is handed to the core of the partition that it is for, which alone
//! decides whether it still counts.

use std::collections::{BTreeMap, BTreeSet};

use broker::partitions::worker::{FetchedError, check_fetched};
use broker_core::ids::{BrokerId, TopicPartition};
use broker_core::partition::{FetchAnswer, FollowerFetch};
use bytes::Bytes;
use client_protocol::ErrorCode;
use client_protocol::records::BatchError;

use super::message::{Address, Alarm, FetchRequest, Message, Outbox};
use super::process::Process;
use crate::sim::ensemble::schedule::{MS, Time};

const FETCH_TIMEOUT: Time = 1_500 * MS;

/// The fetcher towards one leader.
#[derive(Debug, Default)]
pub struct Fetcher {
    keys: BTreeSet<TopicPartition>,
    under_way: Option<UnderWay>,
    /// What was asked and not answered. A connection answers in order, each once, and dies with its process.
    sent: BTreeMap<u64, BTreeMap<TopicPartition, FollowerFetch>>,
    /// What the leader was told last.
    told: BTreeMap<TopicPartition, FollowerFetch>,
    is_due: bool,
}

/// The fetch that waits for records.
#[derive(Debug)]
struct UnderWay {
    number: u64,
    /// When it is given up.
    deadline: Time,
    asked: BTreeMap<TopicPartition, FollowerFetch>,
}

/// Whether it is more than an answer that came too late to continue the log.
fn is_damage(error: &FetchedError) -> bool {
    match error {
        FetchedError::Damaged(BatchError::EpochFalls { .. } | BatchError::OffsetGap { .. }) => {
            false
        }
        FetchedError::Damaged(_) => true,
        FetchedError::LaterLeader => false,
    }
}

impl UnderWay {
    fn covers(&self, (key, fetch): (&TopicPartition, &FollowerFetch)) -> bool {
        self.asked.get(key).is_some_and(|asked| {
            asked.fetch_offset == fetch.fetch_offset && asked.leader_epoch == fetch.leader_epoch
        })
    }
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

    /// A partition can be fetched again.
    pub(super) fn fetch_soon(&mut self, key: TopicPartition, out: &mut Outbox) {
        let leader = self.replicas.get(&key).and_then(|core| core.following());
        if let Some((leader, _)) = leader {
            self.fetch_after(leader, 0, out);
        }
    }

    fn items(&self, keys: &BTreeSet<TopicPartition>) -> BTreeMap<TopicPartition, FollowerFetch> {
        let Some(broker_epoch) = self.epoch else { return BTreeMap::new() };
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

    /// Sends what is due: a fetch for records if none waits or a partition is not covered, else news of what got durable.
    pub(super) fn fetch(&mut self, leader: BrokerId, now: Time, out: &mut Outbox) {
        let Some(fetcher) = self.fetchers.get_mut(&leader) else { return };
        fetcher.is_due = false;
        fetcher.under_way.take_if(|under_way| under_way.deadline <= now);
        let keys = fetcher.keys.clone();
        let items = self.items(&keys);
        let number = self.next_number();
        let fetcher = self.fetchers.get_mut(&leader).expect("there");
        let covered = |item| fetcher.under_way.as_ref().is_some_and(|u| u.covers(item));
        let (items, may_wait) = if items.iter().all(covered) {
            let told = &fetcher.told;
            let is_news =
                |(key, item): &(TopicPartition, FollowerFetch)| told.get(key) != Some(item);
            (items.into_iter().filter(is_news).collect(), false)
        } else {
            (items, true)
        };
        if items.is_empty() {
            return;
        }
        fetcher.told.extend(items.clone());
        fetcher.sent.insert(number, items.clone());
        if may_wait {
            let deadline = now + FETCH_TIMEOUT;
            fetcher.under_way = Some(UnderWay { number, deadline, asked: items.clone() });
        }
        let bytes_max = if may_wait { self.settings.fetch_bytes_max } else { 0 };
        let request = FetchRequest { number, items: items.into_iter().collect(), bytes_max };
        out.messages.push((Address::Broker(leader), Message::Fetch(request)));
    }

    /// This follower holds more, or more durably, than its leader was told.
    pub(super) fn report_progress(&mut self, key: TopicPartition, now: Time, out: &mut Outbox) {
        if let Some((leader, _)) = self.replicas.get(&key).and_then(|core| core.following()) {
            self.fetch(leader, now, out);
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
        let Some(fetcher) = self.fetchers.get_mut(&leader) else { return };
        let Some(asked) = fetcher.sent.remove(&number) else { return };
        fetcher.sent = fetcher.sent.split_off(&(number + 1));
        let mut refused = false;
        for (key, mut answer, mut records) in answers {
            let item = &asked[&key];
            (answer.leader_epoch, answer.fetch_offset) = (item.leader_epoch, item.fetch_offset);
            refused |= answer.error != ErrorCode::None;
            if answer.error == ErrorCode::KafkaStorageError {
                out.unread.push(leader);
            }
            let last_epoch =
                self.replicas.get(&key).and_then(|core| core.positions().epochs.last());
            let position = (answer.fetch_offset, last_epoch);
            match check_fetched(&records, position, answer.leader_epoch) {
                Ok(length) => records.truncate(length),
                Err(error) => {
                    refused = true;
                    records.clear();
                    if is_damage(&error) {
                        out.complaints.push((leader, error.to_string()));
                    }
                }
            }
            answer.has_records = !records.is_empty();
            self.fetched = records;
            self.on_partition(key, now, out, |core, effects| core.fetch_answered(&answer, effects));
            self.fetched = Bytes::new();
        }
        // One that a later answer has overtaken will not count any more: it is made again.
        if let Some(fetcher) = self.fetchers.get_mut(&leader)
            && fetcher.under_way.as_ref().is_some_and(|under_way| under_way.number <= number)
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
