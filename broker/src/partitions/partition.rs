//! One partition: what it hosts under a short lock, its published log, and its outlets.
//!
//! Called by: every way in, and both threads of its log directory. Calls: `broker-core`, the append
//! queue, [`Outlet`].
//! Invariant: effects are carried out in their order, under the lock that they were decided under;
//! carrying one out only pushes and wakes, so the lock is never held over I/O or an await.
//! Decides nothing, and does not know the wire.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use broker_core::hosted::{Asked, Hosted, Moment, Outcome, ProducePermit};
use broker_core::ids::{BrokerId, LeaderEpoch, Millis, Offset, TopicPartition};
use broker_core::image::StoredState;
use broker_core::partition::{
    Appended, Effect, Loaded, Partition as Core, StateUpdate, Synced, Truncated,
};
use broker_core::purgatory::{FetchWait, ProduceWait, Released};
use broker_core::refusals::Sequenced;
use broker_log::LogView;
use bytes::Bytes;
use client_protocol::ErrorCode;

use super::append::Command;
use super::directory::Directory;
use super::registry::Hub;
use super::settings::TopicSettings;
use super::waiting::{Ticket, Waker};
use super::worker::{Job, LogJob, Stored};

/// One partition that this broker holds.
pub(super) struct Partition {
    pub key: TopicPartition,
    /// Its topic's name.
    pub topic: Arc<str>,
    hub: Arc<Hub>,
    directory: Arc<Directory>,
    settings: ArcSwap<TopicSettings>,
    /// Set once, when the log is open.
    view: OnceLock<LogView>,
    /// Whether produces may be waiting, so that the ticker need not lock what is idle.
    waiting: AtomicBool,
    state: Mutex<State>,
}

type Produces = Stored<Ticket>;

/// What the lock guards.
struct State {
    hosted: Hosted<Produces, Waker>,
    /// What a step yields; empty between steps.
    out: Outcome<Produces, Waker>,
}

impl Partition {
    pub fn new(
        key: TopicPartition,
        topic: Arc<str>,
        hub: Arc<Hub>,
        directory: Arc<Directory>,
        settings: Arc<TopicSettings>,
    ) -> Arc<Self> {
        let hosted = Hosted::new(hub.broker_id, key, settings.core);
        Arc::new(Self {
            key,
            topic,
            hub,
            directory,
            settings: ArcSwap::new(settings),
            view: OnceLock::new(),
            waiting: AtomicBool::new(false),
            state: Mutex::new(State { hosted, out: Outcome::default() }),
        })
    }

    pub fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory)
    }

    pub fn settings(&self) -> Arc<TopicSettings> {
        self.settings.load_full()
    }

    /// The published log; `None` until it is open.
    pub fn view(&self) -> Option<&LogView> {
        self.view.get()
    }

    pub fn now(&self) -> Millis {
        self.hub.clock.now()
    }

    pub fn wall_ms(&self) -> i64 {
        self.hub.clock.wall_ms()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is alive now. To be asked under the lock: who changes it looks at the partitions
    /// afterwards, so what was decided by an older answer would not be looked at again.
    fn moment(&self) -> Moment {
        Moment { started: self.hub.started(), live: self.hub.live(), now: self.now() }
    }

    /// The log is open.
    pub fn log_opened(self: &Arc<Self>, view: LogView, loaded: Loaded) {
        if self.view.set(view).is_ok() {
            self.step(None, |hosted, out| hosted.log_opened(loaded, &self.moment(), out));
        }
    }

    /// Takes the newest state that the metadata has of this partition.
    pub fn apply_state(self: &Arc<Self>, stored: &StoredState, replicas: &[BrokerId]) {
        let update = StateUpdate { stored, replicas };
        self.step(None, |hosted, out| hosted.apply_state(update, &self.moment(), out));
    }

    /// The zxid of this process's registration is known, or brokers came and went.
    pub fn apply_brokers(self: &Arc<Self>) {
        self.step(None, |hosted, out| hosted.apply_brokers(&self.moment(), out));
    }

    /// The topic's settings changed.
    pub fn apply_settings(self: &Arc<Self>, settings: Arc<TopicSettings>) {
        let (now, core) = (self.now(), settings.core);
        self.push(LogJob::Configure(settings.log.clone(), core.durability));
        self.settings.store(settings);
        self.step(None, |hosted, out| hosted.apply_settings(core, now, out));
    }

    /// Lets what is hosted here decide, and does what comes of it.
    fn step<R>(
        self: &Arc<Self>,
        fetched: Option<&Bytes>,
        decide: impl FnOnce(&mut Hosted<Produces, Waker>, &mut Outcome<Produces, Waker>) -> R,
    ) -> R {
        let mut state = self.lock();
        let State { hosted, out } = &mut *state;
        let decided = decide(hosted, out);
        self.carry_out(&mut state, fetched);
        decided
    }

    /// Lets the core decide and carries its effects out. `None` while there is no core.
    pub fn with_core<R>(
        self: &Arc<Self>,
        fetched: Option<&Bytes>,
        decide: impl FnOnce(&mut Core, &mut Vec<Effect>) -> R,
    ) -> Option<R> {
        self.step(fetched, |hosted, out| hosted.step(out, decide))
    }

    /// Looks at the core. `None` while there is none.
    pub fn read_core<R>(&self, look: impl FnOnce(&Core) -> R) -> Option<R> {
        self.lock().hosted.core().map(look)
    }

    /// The high watermark; before the core begins, that of the checkpoint.
    pub fn high_watermark(&self) -> Option<Offset> {
        self.lock().hosted.high_watermark()
    }

    /// Whether a client's batch may be appended, and under which epoch.
    pub fn admit_produce(&self, asked: Asked) -> Result<ProducePermit, ErrorCode> {
        // Asked for under the lock, so that what is remembered of refusals is in the order of its times.
        let mut state = self.lock();
        state.hosted.admit_produce(asked, self.now())
    }

    /// A client's batch was refused by the log.
    pub fn refused(&self, batch: Option<Sequenced>, error: ErrorCode) {
        let mut state = self.lock();
        state.hosted.refused(batch, error, self.now());
    }

    /// Batches were appended.
    pub fn appended(self: &Arc<Self>, appended: &Appended, waits: Vec<ProduceWait<Produces>>) {
        let now = self.now();
        self.step(None, |hosted, out| {
            hosted.appended(appended, waits, now, out);
            self.waiting.store(hosted.has_waiting_produces(), Ordering::Relaxed);
        });
    }

    /// The log adopted an epoch.
    pub fn epoch_adopted(self: &Arc<Self>, epoch: LeaderEpoch) {
        let now = self.now();
        self.with_core(None, |core, effects| core.epoch_adopted(epoch, now, effects));
    }

    /// The log took nothing of what was fetched or decided under the epoch.
    pub fn append_refused(self: &Arc<Self>, epoch: LeaderEpoch) {
        self.with_core(None, |core, _| core.append_refused(epoch));
    }

    /// A commit round ended.
    pub fn synced(self: &Arc<Self>, synced: Synced) {
        let now = self.now();
        self.with_core(None, |core, effects| core.synced(synced, now, effects));
    }

    /// The log was cut.
    pub fn truncated(self: &Arc<Self>, truncated: Truncated) {
        self.step(None, |hosted, out| hosted.truncated(truncated, out));
    }

    /// The log start moved up.
    pub fn log_start_moved(self: &Arc<Self>, start: Offset) {
        self.with_core(None, |core, effects| {
            if core.positions().start < start {
                core.log_start_moved(start, effects);
            }
        });
    }

    /// Time passed: answers what has waited too long.
    pub fn expire_waiting(self: &Arc<Self>) {
        if self.waiting.load(Ordering::Relaxed) {
            let now = self.now();
            self.step(None, |hosted, out| {
                hosted.expire(now, out);
                self.waiting.store(hosted.has_waiting_produces(), Ordering::Relaxed);
            });
        }
    }

    /// Time passed: lets the core look at lag and at what it asked for.
    pub fn tick(self: &Arc<Self>) {
        let now = self.now();
        self.with_core(None, |core, effects| core.tick(now, effects));
    }

    /// The topic is gone, or the log directory failed: serves nothing any more.
    pub fn stop(self: &Arc<Self>, error: ErrorCode) {
        self.step(None, |hosted, out| hosted.end(error, out));
    }

    /// A follower's fetch for so many bytes came.
    pub fn follower_came(self: &Arc<Self>, replica: BrokerId, bytes_max: u32) {
        self.step(None, |hosted, out| hosted.follower_came(replica, bytes_max, out));
    }

    /// Parks a fetch unless there is news for it; false if so.
    pub fn park_fetch(&self, wait: FetchWait<Waker>, epoch: LeaderEpoch) -> bool {
        self.lock().hosted.park_fetch(wait, epoch)
    }

    /// Takes a fetch off.
    pub fn forget_fetch(&self, waker: &Waker) {
        self.lock().hosted.forget_fetch(|other| other.is(waker));
    }

    /// How many fetches wait here.
    #[cfg(test)]
    pub fn waiting_fetches(&self) -> usize {
        self.lock().hosted.waiting_fetches()
    }

    /// Hands a job to the log directory's thread.
    pub fn push(self: &Arc<Self>, job: LogJob) {
        self.directory.push(Command::Job(Job::Log(Arc::clone(self), job)));
    }

    fn carry_out(self: &Arc<Self>, state: &mut State, fetched: Option<&Bytes>) {
        let mut effects = std::mem::take(&mut state.out.effects);
        for effect in effects.drain(..) {
            self.carry_out_one(state, effect, fetched);
        }
        state.out.effects = effects;
        for released in state.out.released.drain(..) {
            match released {
                Released::Settled(stored, result) => {
                    let Stored { placed, produce } = stored;
                    match result {
                        Ok(()) => produce.settle(Ok(placed)),
                        Err(error) => produce.refuse(error),
                    }
                }
                Released::Woken(waker) => waker.wake(),
            }
        }
    }

    fn carry_out_one(self: &Arc<Self>, state: &State, effect: Effect, fetched: Option<&Bytes>) {
        let outlet = &self.hub.outlet;
        match effect {
            Effect::AdoptEpoch { leader_epoch } => {
                let leads = state.hosted.core().is_some_and(Core::is_elected);
                self.push(LogJob::Adopt { leader_epoch, leads });
            }
            Effect::AppendFetched { leader_epoch, .. } => {
                let records = fetched.cloned().unwrap_or_default();
                self.push(LogJob::AppendFetched(leader_epoch, records));
            }
            Effect::Truncate { leader_epoch, to } => self.push(LogJob::Truncate(leader_epoch, to)),
            Effect::RestartAt { leader_epoch, start } => {
                self.push(LogJob::RestartAt(leader_epoch, start));
            }
            Effect::DropBelow { start } => self.push(LogJob::DropBelow(start)),
            Effect::CommittedCut { high_watermark, end_offset } => {
                let (topic, partition) = (&self.topic, self.key.partition);
                tracing::error!(
                    %topic, %partition, %high_watermark, %end_offset,
                    "cut below the high watermark: committed records are gone from this replica"
                );
            }
            // Who waits for these is released with them.
            Effect::HighWatermark { .. } | Effect::EndMoved { .. } | Effect::LeadershipLost => {}
            Effect::ReportProgress => outlet.report_progress(self.key),
            Effect::FetchFrom { leader, leader_epoch } => {
                outlet.fetch_from(self.key, leader, leader_epoch);
            }
            Effect::StopFetching => outlet.stop_fetching(self.key),
            Effect::Alter(request) => outlet.alter(request),
            Effect::CutRepaired => self.push(LogJob::CutRepaired),
        }
    }
}
