//! A broker's process: the real decisions and the real log, with a shell small enough to read.
//!
//! Called by: `world`, one event at a time. Calls: broker-core, and its own parts in `session`, `storage`, `serving` and `fetching`.
//! Invariant: effects are done in the order in which the core gave them; everything that leaves goes through the outbox.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use broker_core::controller::Controller;
use broker_core::fence::SelfFence;
use broker_core::ids::{BrokerEpoch, BrokerId, Millis, Offset, TopicPartition, Zxid};
use broker_core::image::{Applied, Image, ImageFeed};
use broker_core::partition::{Effect, Partition, Settings as PartitionSettings, StateUpdate};
use broker_core::purgatory::{ParkedFetches, ParkedProduces};
use bytes::Bytes;

use super::fetching::Fetcher;
use super::message::{Address, Alarm, FetchRequest, Message, Outbox};
use super::session::Session;
use super::settings::Settings;
use super::storage::{Directory, Job};
use crate::sim::disk::SimulatedDisk;
use crate::sim::ensemble::schedule::{MS, Time};
use crate::sim::random::Random;

/// How often a process looks at its clocks.
pub const TICK: Time = 50 * MS;
const CHECKPOINT_EVERY_TICKS: u64 = 20;

/// A produce that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub struct WaitingProduce {
    pub to: Address,
    pub number: u64,
    pub base_offset: i64,
}

/// One life of a broker.
pub struct Process {
    pub id: BrokerId,
    pub settings: Rc<Settings>,
    pub(super) random: Random,
    pub(super) session: Session,
    pub(super) feed: ImageFeed,
    pub image: Image,
    pub controller: Controller,
    pub(super) fence: SelfFence,
    /// czxid of the first registration.
    pub started: Option<Zxid>,
    /// czxid of the present registration.
    pub epoch: Option<BrokerEpoch>,
    pub replicas: BTreeMap<TopicPartition, Partition>,
    pub directory: Directory,
    pub(super) lives: Arc<BTreeMap<BrokerId, BrokerEpoch>>,
    pub(super) produces: ParkedProduces<TopicPartition>,
    pub(super) produce_requests: BTreeMap<u64, WaitingProduce>,
    pub(super) fetches: ParkedFetches<TopicPartition>,
    pub(super) fetch_requests: BTreeMap<u64, (BrokerId, FetchRequest)>,
    pub(super) alters: BTreeMap<u64, (BrokerId, TopicPartition, u64)>,
    pub(super) describes: BTreeMap<(BrokerId, BrokerEpoch), BTreeSet<TopicPartition>>,
    pub(super) fetchers: BTreeMap<BrokerId, Fetcher>,
    /// Produces on their way to the append thread.
    pub(super) submitting: VecDeque<Job>,
    /// Records of the fetch answer that is being handled.
    pub(super) fetched: Bytes,
    watermarks: BTreeMap<TopicPartition, Offset>,
    pub(super) last_number: u64,
    ticks: u64,
}

impl Process {
    /// A process that has just started on a disk.
    pub fn start(
        id: BrokerId,
        settings: Rc<Settings>,
        disk: &SimulatedDisk,
        seed: u64,
        out: &mut Outbox,
    ) -> Self {
        let mut random = Random::new(seed);
        let directory = Directory::open(disk);
        let session = Session::begin(disk, directory.was_clean(), &mut random);
        let mut process = Self {
            id,
            random,
            session,
            feed: ImageFeed::default(),
            image: Image::default(),
            controller: Controller::new(settings.controller_config()),
            fence: SelfFence::new(settings.session_timeout / MS),
            settings,
            started: None,
            epoch: None,
            replicas: BTreeMap::new(),
            directory,
            lives: Arc::default(),
            produces: ParkedProduces::default(),
            produce_requests: BTreeMap::new(),
            fetches: ParkedFetches::default(),
            fetch_requests: BTreeMap::new(),
            alters: BTreeMap::new(),
            describes: BTreeMap::new(),
            fetchers: BTreeMap::new(),
            submitting: VecDeque::new(),
            fetched: Bytes::new(),
            watermarks: BTreeMap::new(),
            // Numbers of a former life must not be taken for this one's.
            last_number: seed << 8,
            ticks: 0,
        };
        process.open_session(out);
        out.alarms.push((TICK, Alarm::Tick));
        process
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// An alarm rang.
    pub fn alarm(&mut self, alarm: Alarm, now: Time, out: &mut Outbox) {
        match alarm {
            Alarm::Tick => self.tick(now, out),
            Alarm::Submit => {
                if let Some(job) = self.submitting.pop_front() {
                    self.push_job(job, out);
                }
            }
            Alarm::LogThread => self.run_jobs(now, out),
            Alarm::RoundStart => self.start_round(out),
            Alarm::RoundEnd => self.end_round(now, out),
            Alarm::Fetch(leader) => self.fetch(leader, now, out),
        }
    }

    fn tick(&mut self, now: Time, out: &mut Outbox) {
        self.ticks += 1;
        out.alarms.push((TICK, Alarm::Tick));
        let keys: Vec<_> = self.replicas.keys().copied().collect();
        for key in keys {
            self.on_partition(key, now, out, |core, effects| {
                core.tick(Millis::new(now / MS), effects);
            });
        }
        self.expire_parked(now, out);
        self.watch_fetchers(now, out);
        self.tick_session(now, self.ticks, out);
        if self.ticks.is_multiple_of(CHECKPOINT_EVERY_TICKS) {
            self.apply_retention(now, out);
            self.write_checkpoints();
            self.describe_again(out);
        }
    }

    /// The image moved on.
    pub(super) fn apply_image(&mut self, applied: &Applied, now: Time, out: &mut Outbox) {
        self.image = applied.image.clone();
        let mut effects = Vec::new();
        self.controller.image_applied(applied, &mut effects);
        self.do_controller(effects, now, out);
        self.apply_metadata(now, out);
        self.consider_election(out);
    }

    /// Tells the partitions what the image says, once this life is registered and in it.
    pub(super) fn apply_metadata(&mut self, now: Time, out: &mut Outbox) {
        let Some(started) = self.started else { return };
        if self.image.complete_to() < started {
            return;
        }
        let lives = self.image.broker_epochs();
        let changed = *self.lives != lives;
        if changed {
            self.lives = Arc::new(lives);
            self.describes.retain(|&(id, epoch), _| self.lives.get(&id) == Some(&epoch));
        }
        let image = self.image.clone();
        for topic in image.topics() {
            for (&partition, replicas) in &topic.node.partitions {
                let key = TopicPartition { topic: topic.node.id, partition };
                if !replicas.contains(&self.id) {
                    continue;
                }
                let opened = !self.replicas.contains_key(&key);
                if opened {
                    self.open_replica(key, &topic.name, started);
                }
                let lives = Arc::clone(&self.lives);
                let stored = image.state(&topic.name, partition);
                self.on_partition(key, now, out, |core, effects| {
                    let now = Millis::new(now / MS);
                    if changed || opened {
                        core.apply_brokers(&lives, now, effects);
                    }
                    if let Some(stored) = stored {
                        core.apply_state(StateUpdate { stored, replicas }, now, effects);
                    }
                });
            }
        }
    }

    fn open_replica(&mut self, key: TopicPartition, topic: &str, started: Zxid) {
        let loaded = self.open_log(key, topic);
        let settings = PartitionSettings {
            durability: self.settings.durability,
            min_insync_replicas: self.settings.min_insync_replicas(),
            lag_time_max_ms: self.settings.lag_time_max_ms,
            alter_retry_ms: self.settings.alter_retry_ms,
            #[cfg(planted)]
            planted: self.settings.planted,
        };
        let core = Partition::new(self.id, key, started, loaded, settings);
        self.watermarks.insert(key, core.high_watermark());
        self.replicas.insert(key, core);
    }

    /// Lets a partition's core do something, and does what it wants done.
    pub(super) fn on_partition(
        &mut self,
        key: TopicPartition,
        now: Time,
        out: &mut Outbox,
        act: impl FnOnce(&mut Partition, &mut Vec<Effect>),
    ) {
        let mut effects = Vec::new();
        let Some(core) = self.replicas.get_mut(&key) else { return };
        act(core, &mut effects);
        core.check();
        for effect in effects {
            self.do_effect(key, effect, now, out);
        }
    }

    pub(super) fn do_effect(
        &mut self,
        key: TopicPartition,
        effect: Effect,
        now: Time,
        out: &mut Outbox,
    ) {
        match effect {
            Effect::AdoptEpoch { leader_epoch: epoch } => {
                self.push_job(Job::Adopt { key, epoch }, out);
            }
            Effect::AppendFetched { leader_epoch: epoch, .. } => {
                let records = std::mem::take(&mut self.fetched);
                self.push_job(Job::Append { key, epoch, records }, out);
            }
            Effect::Truncate { leader_epoch: epoch, to } => {
                self.push_job(Job::Truncate { key, epoch, to }, out);
            }
            Effect::RestartAt { leader_epoch: epoch, start } => {
                self.push_job(Job::RestartAt { key, epoch, start }, out);
            }
            Effect::DropBelow { start } => self.push_job(Job::DropBelow { key, start }, out),
            Effect::CutRepaired => self.push_job(Job::CutRepaired { key }, out),
            Effect::HighWatermark { high_watermark } => {
                let leads = self.replicas[&key].leading().is_some();
                let former = self.watermarks.insert(key, high_watermark).expect("opened");
                out.watermarks.push((key, former, high_watermark, leads));
                self.high_watermark_moved(key, high_watermark, out);
            }
            Effect::EndMoved { end_offset } => self.end_moved(key, end_offset, now, out),
            Effect::LeadershipLost => self.leadership_lost(key, now, out),
            Effect::ReportProgress => self.report_progress(key, now, out),
            Effect::FetchFrom { leader, .. } => self.fetch_from(key, leader, out),
            Effect::StopFetching => self.stop_fetching(key),
            Effect::Alter(request) => self.send_alter(request, out),
        }
    }

    /// A message came.
    pub fn receive(&mut self, from: Address, message: Message, now: Time, out: &mut Outbox) {
        match (message, from) {
            (Message::Fetch(request), Address::Broker(from)) => {
                self.follower_fetches(from, request, true, now, out);
            }
            (Message::Fetched { number, answers }, Address::Broker(leader)) => {
                self.fetched(leader, number, answers, now, out);
            }
            (Message::Alter { key, attempt, request }, Address::Broker(from)) => {
                self.controller_alters((from, key, attempt), request, now, out);
            }
            (Message::Altered { key, attempt, result }, _) => {
                self.on_partition(key, now, out, |core, _| {
                    core.alter_answered(attempt, result, Millis::new(now / MS));
                });
            }
            (Message::Describe { epoch, partitions }, from) => {
                self.describe(from, epoch, &partitions, out);
            }
            (Message::Described { epoch, reports }, Address::Broker(from)) => {
                self.described(from, epoch, &reports, now, out);
            }
            (Message::ShutDown { epoch }, Address::Broker(from)) => {
                let mut effects = Vec::new();
                let request = self.next_number();
                self.controller.controlled_shutdown(request, from, epoch, &mut effects);
                self.do_controller(effects, now, out);
            }
            (Message::Produce { number, key, acks, batch }, to) => {
                self.produce((key, acks), batch, (to, number), now, out);
            }
            (Message::Consume { number, key, offset, leader_epoch }, to) => {
                self.consume(key, (offset, leader_epoch), (to, number), now, out);
            }
            (message, from) => unreachable!("{message:?} from {from:?}"),
        }
    }

    /// Every struct's own invariants.
    pub fn check(&self) {
        for core in self.replicas.values() {
            core.check();
        }
        self.directory.check();
        self.controller.check();
        self.produces.check();
        self.fetches.check();
        self.image.check();
    }
}
