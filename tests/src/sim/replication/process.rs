//! A broker's process: the real decisions and the real log, with a shell small enough to read.
//!
//! Called by: `world`, one event at a time. Calls: broker-core, and its own parts in `session`, `storage`, `serving` and `fetching`.
//! Invariant: effects are done in the order in which the core gave them; everything that leaves goes through the outbox.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use broker::partitions::worker::{LogJob, Owner as _, Stored};
use broker_core::controller::Seat;
use broker_core::fence::SelfFence;
use broker_core::hosted::{Hosted, Moment, Outcome};
use broker_core::hosting::{Hosting, Telling};
use broker_core::ids::{BrokerEpoch, BrokerId, Millis, Offset, PartitionId, TopicPartition, Zxid};
use broker_core::image::{Applied, Image, ImageFeed};
use broker_core::partition::{Effect, Partition, Settings as PartitionSettings};
use broker_core::purgatory::Released;
use bytes::Bytes;
use client_protocol::ErrorCode;

use super::fetching::Fetcher;
use super::message::{Address, Alarm, Message, Outbox};
use super::producer_ids::Giving;
use super::reading::Reading;
use super::serving::unknown_topic;
use super::session::Session;
use super::settings::Settings;
use super::storage::{self, Directory, Of, ProcessJob, Produce};
use crate::sim::disk::SimulatedDisk;
use crate::sim::ensemble::schedule::{MS, Time};
use crate::sim::random::Random;

/// How often a process looks at its clocks.
pub const TICK: Time = 50 * MS;
const CHECKPOINT_EVERY_TICKS: u64 = 20;

/// A partition as this process hosts it: produces by whom to answer, fetches by their number here.
pub type Host = Hosted<Stored<Produce>, u64>;

/// What a process hosts, each with the log that is meant.
#[derive(Default)]
pub struct Replicas(BTreeMap<TopicPartition, (Of, Host)>);

impl Replicas {
    /// The core of a partition, once it has begun.
    pub fn get(&self, key: &TopicPartition) -> Option<&Partition> {
        self.0.get(key)?.1.core()
    }

    /// All that are hosted.
    pub(super) fn keys(&self) -> impl Iterator<Item = TopicPartition> {
        self.0.keys().copied()
    }

    pub(super) fn remove(&mut self, key: TopicPartition) {
        self.0.remove(&key);
    }

    /// All cores that have begun.
    pub fn iter(&self) -> impl Iterator<Item = (&TopicPartition, &Partition)> {
        self.0.iter().filter_map(|(key, (_, hosted))| Some((key, hosted.core()?)))
    }
}

impl std::ops::Index<&TopicPartition> for Replicas {
    type Output = Partition;

    fn index(&self, key: &TopicPartition) -> &Partition {
        self.get(key).expect("has begun")
    }
}

/// One life of a broker.
pub struct Process {
    pub id: BrokerId,
    pub settings: Rc<Settings>,
    pub(super) random: Random,
    pub(super) session: Session,
    pub(super) feed: ImageFeed,
    pub image: Image,
    pub seat: Seat,
    pub(super) telling: Telling,
    pub(super) hosting: Hosting,
    pub(super) fence: SelfFence,
    /// czxid of the first registration.
    pub started: Option<Zxid>,
    /// czxid of the present registration.
    pub epoch: Option<BrokerEpoch>,
    pub replicas: Replicas,
    pub directory: Directory,
    pub(super) lives: Arc<BTreeMap<BrokerId, BrokerEpoch>>,
    /// Fetches that wait.
    pub(super) readings: BTreeMap<u64, Reading>,
    /// Who asked the controller that this process is.
    pub(super) alters: BTreeMap<u64, (BrokerId, u64)>,
    /// What was asked of the controller: which partition, and its attempt.
    pub(super) altering: BTreeMap<u64, (TopicPartition, u64)>,
    pub(super) describes: BTreeMap<(BrokerId, BrokerEpoch), BTreeSet<TopicPartition>>,
    pub(super) fetchers: BTreeMap<BrokerId, Fetcher>,
    /// Produces on their way to the append thread.
    pub(super) submitting: VecDeque<ProcessJob>,
    /// Records of the fetch answer that is being handled.
    pub(super) fetched: Bytes,
    watermarks: BTreeMap<TopicPartition, Offset>,
    pub(super) last_number: u64,
    pub(super) giving: Giving,
    ticks: u64,
}

fn fence(settings: &Settings) -> SelfFence {
    let fence = SelfFence::new(settings.session_timeout / MS);
    #[cfg(planted)]
    let fence = fence.planted_with(settings.planted);
    fence
}

impl Process {
    /// A process that has just started on a disk.
    ///
    /// # Errors
    /// What the disk or its files say: it ends before it has said anything to anybody.
    pub fn start(
        id: BrokerId,
        settings: Rc<Settings>,
        disk: &SimulatedDisk,
        seed: u64,
        out: &mut Outbox,
    ) -> Result<Self, String> {
        let mut random = Random::new(seed);
        let directory = Directory::open(disk)?;
        let session = Session::begin(disk, directory.was_clean(), &mut random)?;
        let mut process = Self {
            id,
            random,
            session,
            feed: ImageFeed::default(),
            image: Image::default(),
            telling: Telling::default(),
            hosting: Hosting::new(id, []),
            seat: Seat::new(settings.controller_config(), None),
            fence: fence(&settings),
            giving: Giving::new(id, seed, &settings),
            settings,
            started: None,
            epoch: None,
            replicas: Replicas::default(),
            directory,
            lives: Arc::default(),
            readings: BTreeMap::new(),
            alters: BTreeMap::new(),
            altering: BTreeMap::new(),
            describes: BTreeMap::new(),
            fetchers: BTreeMap::new(),
            submitting: VecDeque::new(),
            fetched: Bytes::new(),
            watermarks: BTreeMap::new(),
            // Numbers of a former life must not be taken for this one's.
            last_number: (seed & 0x3fff) << 16,
            ticks: 0,
        };
        process.recover_logs(0, out)?;
        process.hosting = Hosting::new(id, process.replicas.keys());
        process.open_session(out);
        out.alarms.push((TICK, Alarm::Tick));
        Ok(process)
    }

    /// The partition of a topic of this name, as far as this process has heard.
    pub(super) fn key_of(&self, topic: &str, partition: PartitionId) -> Option<TopicPartition> {
        let topic = self.image.topic(topic)?.node.id;
        Some(TopicPartition { topic, partition })
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// An alarm rang.
    pub fn alarm(&mut self, alarm: Alarm, now: Time, out: &mut Outbox) {
        let needs_disk = matches!(
            alarm,
            Alarm::LogThread | Alarm::RoundStart | Alarm::RoundEnd | Alarm::MarksEnd | Alarm::Clean
        );
        if needs_disk && self.is_stalled(alarm, now, out) {
            return;
        }
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
            Alarm::WaitEnd(wait) => self.end_wait(wait, now, out),
            Alarm::MarksEnd => self.end_marks(out),
            Alarm::Clean => self.clean(out),
            Alarm::Fetch(leader) => self.fetch(leader, now, out),
        }
    }

    fn tick(&mut self, now: Time, out: &mut Outbox) {
        self.ticks += 1;
        out.alarms.push((TICK, Alarm::Tick));
        let keys: Vec<_> = self.replicas.0.keys().copied().collect();
        let has_failed = self.directory.failed.is_some();
        for key in keys {
            self.step_partition(key, now, out, |hosted, outcome| {
                if has_failed {
                    return hosted.end(ErrorCode::KafkaStorageError, outcome);
                }
                hosted.expire(Millis::new(now / MS), outcome);
                hosted.step(outcome, |core, effects| core.tick(Millis::new(now / MS), effects));
            });
        }
        self.expire_readings(now, out);
        self.unlink_some();
        self.check_marks(now);
        self.watch_fetchers(now, out);
        self.tick_session(now, self.ticks, out);
        self.give_ids(out);
        if self.ticks.is_multiple_of(CHECKPOINT_EVERY_TICKS) {
            self.look_after_logs(now, out);
            self.describe_again(out);
        }
    }

    /// The image moved on.
    pub(super) fn apply_image(&mut self, applied: &Applied, now: Time, out: &mut Outbox) {
        self.image = applied.image.clone();
        let mut effects = Vec::new();
        self.seat.image_applied(applied, &mut effects);
        self.do_controller(effects, now, out);
        self.hear(applied, now, out);
    }

    /// Hosts a partition, whose log is not open yet.
    pub(super) fn host(&mut self, of: &Of) {
        let settings = PartitionSettings {
            durability: self.settings.durability,
            min_insync_replicas: self.settings.min_insync_replicas(),
            lag_time_max_ms: self.settings.lag_time_max_ms,
            alter_retry_ms: self.settings.alter_retry_ms,
            #[cfg(planted)]
            planted: self.settings.planted,
        };
        let hosted = Hosted::new(self.id, of.key, settings);
        self.replicas.0.insert(of.key, (of.clone(), hosted));
    }

    pub(super) fn hosted_mut(&mut self, key: TopicPartition) -> Option<&mut Host> {
        self.replicas.0.get_mut(&key).map(|(_, hosted)| hosted)
    }

    pub(super) fn of(&self, key: TopicPartition) -> Of {
        self.replicas.0[&key].0.clone()
    }

    /// What this life knows now.
    pub(super) fn moment(&self, now: Time) -> Moment {
        let live = Arc::clone(&self.lives);
        Moment { started: self.started, live, now: Millis::new(now / MS) }
    }

    /// Lets a hosted partition do something, and does what comes of it.
    pub(super) fn step_partition(
        &mut self,
        key: TopicPartition,
        now: Time,
        out: &mut Outbox,
        act: impl FnOnce(&mut Host, &mut Outcome<Stored<Produce>, u64>),
    ) {
        let Some((_, hosted)) = self.replicas.0.get_mut(&key) else { return };
        let mut outcome = Outcome::default();
        act(hosted, &mut outcome);
        hosted.check();
        if let Some(core) = hosted.core() {
            self.watermarks.entry(key).or_insert(core.high_watermark());
        }
        for effect in outcome.effects {
            self.do_effect(key, effect, now, out);
        }
        for released in outcome.released {
            match released {
                Released::Settled(stored, result) => storage::answer(&stored, result, out),
                Released::Woken(number) => self.woken(number, now, out),
            }
        }
    }

    /// Lets a partition's core do something, and does what it wants done.
    pub(super) fn on_partition(
        &mut self,
        key: TopicPartition,
        now: Time,
        out: &mut Outbox,
        act: impl FnOnce(&mut Partition, &mut Vec<Effect>),
    ) {
        self.step_partition(key, now, out, |hosted, outcome| {
            hosted.step(outcome, act);
        });
    }

    pub(super) fn do_effect(
        &mut self,
        key: TopicPartition,
        effect: Effect,
        now: Time,
        out: &mut Outbox,
    ) {
        out.decided.push(name_of(&effect));
        match effect {
            Effect::AdoptEpoch { leader_epoch } => {
                let leads = self.replicas[&key].is_elected();
                self.push_log_job(key, LogJob::Adopt { leader_epoch, leads }, out);
            }
            Effect::AppendFetched { leader_epoch, .. } => {
                let records = std::mem::take(&mut self.fetched);
                self.push_log_job(key, LogJob::AppendFetched(leader_epoch, records), out);
            }
            Effect::Truncate { leader_epoch, to } => {
                self.push_log_job(key, LogJob::Truncate(leader_epoch, to), out);
            }
            Effect::RestartAt { leader_epoch, start } => {
                self.push_log_job(key, LogJob::RestartAt(leader_epoch, start), out);
            }
            Effect::DropBelow { start } => self.push_log_job(key, LogJob::DropBelow(start), out),
            Effect::CutRepaired => self.push_log_job(key, LogJob::CutRepaired, out),
            Effect::CommittedCut { high_watermark, end_offset } => {
                out.committed_cuts.push((key, high_watermark, end_offset));
            }
            Effect::HighWatermark { high_watermark } => {
                let leads = self.replicas[&key].leading().is_some();
                let former = self.watermarks.insert(key, high_watermark).expect("begun");
                out.watermarks.push((key, former, high_watermark, leads));
            }
            // Who waits for these is released with them.
            Effect::EndMoved { .. } | Effect::LeadershipLost => {}
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
                self.follower_fetches(from, request, now, out);
            }
            (Message::Fetched { number, answers }, Address::Broker(leader)) => {
                self.fetched(leader, number, answers, now, out);
            }
            (Message::Alter { number, request }, Address::Broker(from)) => {
                self.controller_alters((from, number), request, now, out);
            }
            (Message::Altered { number, key, result }, _) => {
                let Some((asked, attempt)) = self.altering.remove(&number) else { return };
                let is_whole = key == TopicPartition::default() && result.is_err();
                assert!(asked == key || is_whole, "the answer is about what was asked");
                self.on_partition(asked, now, out, |core, _| {
                    core.alter_answered(attempt, result, Millis::new(now / MS));
                });
            }
            (Message::Describe { number, controller_epoch, partitions }, from) => {
                self.describe((from, number), controller_epoch, &partitions, out);
            }
            (Message::Described { epoch, reports, .. }, Address::Broker(from)) => {
                self.described(from, epoch, &reports, now, out);
            }
            (Message::ShutDown { broker, epoch, .. }, _) => {
                let mut effects = Vec::new();
                let request = self.next_number();
                self.seat.controller_mut().controlled_shutdown(
                    request,
                    broker,
                    epoch,
                    &mut effects,
                );
                self.do_controller(effects, now, out);
            }
            (Message::Produce { number, topic, key, acks, batch }, to) => {
                let produce = Produce { to, number, acks };
                match self.key_of(&topic, key) {
                    Some(key) => self.produce(key, batch, produce, now, out),
                    None => unknown_topic(produce, out),
                }
            }
            (Message::Consume(request), to) => self.consume(&request, to, now, out),
            (message, from) => unreachable!("{message:?} from {from:?}"),
        }
    }

    /// Every struct's own invariants.
    pub fn check(&self) {
        for (of, hosted) in self.replicas.0.values() {
            assert!(hosted.core().is_none_or(|core| core.key() == of.key()));
            hosted.check();
        }
        self.check_positions();
        self.directory.check();
        self.seat.check();
        self.image.check();
    }
}

fn name_of(effect: &Effect) -> &'static str {
    match effect {
        Effect::AdoptEpoch { .. } => "AdoptEpoch",
        Effect::AppendFetched { .. } => "AppendFetched",
        Effect::Truncate { .. } => "Truncate",
        Effect::RestartAt { .. } => "RestartAt",
        Effect::DropBelow { .. } => "DropBelow",
        Effect::CutRepaired => "CutRepaired",
        Effect::CommittedCut { .. } => "CommittedCut",
        Effect::HighWatermark { .. } => "HighWatermark",
        Effect::EndMoved { .. } => "EndMoved",
        Effect::LeadershipLost => "LeadershipLost",
        Effect::ReportProgress => "ReportProgress",
        Effect::FetchFrom { .. } => "FetchFrom",
        Effect::StopFetching => "StopFetching",
        Effect::Alter(_) => "Alter",
    }
}
