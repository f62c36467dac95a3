//! One partition: its core under a short lock, its published log, and who waits on it.
//!
//! Called by: every way in, and both threads of its log directory. Calls: `broker-core`, `waiting`,
//! the append queue, [`Outlet`].
//! Invariant: effects are carried out in their order, under the lock that they were decided under;
//! carrying one out only pushes and wakes, so the lock is never held over I/O or an await.
//! Does not know the wire.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use broker_core::ids::{BrokerId, LeaderEpoch, Millis, Offset, TopicPartition, Zxid};
use broker_core::image::StoredState;
use broker_core::partition::{
    AppendPermit, Appended, Effect, Loaded, Partition as Core, StateUpdate, Synced, Truncated,
};
use broker_log::LogView;
use bytes::Bytes;
use client_protocol::ErrorCode;

use super::append::{Job, LogJob};
use super::directory::Directory;
use super::registry::Hub;
use super::settings::TopicSettings;
use super::waiting::{WaitingFetches, WaitingProduce, WaitingProduces};

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

/// What the lock guards.
pub(super) struct State {
    /// What the log said when it was opened, until the core takes it.
    loaded: Option<Loaded>,
    core: Option<Core>,
    /// The newest state of the metadata, while there is no core yet.
    waiting_state: Option<(StoredState, Vec<BrokerId>)>,
    produces: WaitingProduces,
    fetches: WaitingFetches,
    effects: Vec<Effect>,
    stopped: bool,
}

impl Partition {
    pub fn new(
        key: TopicPartition,
        topic: Arc<str>,
        hub: Arc<Hub>,
        directory: Arc<Directory>,
        settings: Arc<TopicSettings>,
    ) -> Arc<Self> {
        Arc::new(Self {
            key,
            topic,
            hub,
            directory,
            settings: ArcSwap::new(settings),
            view: OnceLock::new(),
            waiting: AtomicBool::new(false),
            state: Mutex::new(State {
                loaded: None,
                core: None,
                waiting_state: None,
                produces: WaitingProduces::default(),
                fetches: WaitingFetches::default(),
                effects: Vec::new(),
                stopped: false,
            }),
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

    /// The log is open.
    pub fn log_opened(self: &Arc<Self>, view: LogView, loaded: Loaded) {
        let mut state = self.lock();
        if self.view.set(view).is_ok() {
            state.loaded = Some(loaded);
        }
        self.make_core(&mut state);
        self.carry_out(&mut state, None);
    }

    /// Takes the newest state that the metadata has of this partition.
    pub fn apply_state(self: &Arc<Self>, stored: &StoredState, replicas: &[BrokerId]) {
        let now = self.now();
        let mut state = self.lock();
        let State { core, effects, .. } = &mut *state;
        match core {
            Some(core) => core.apply_state(StateUpdate { stored, replicas }, now, effects),
            None => state.waiting_state = Some((stored.clone(), replicas.to_vec())),
        }
        self.make_core(&mut state);
        self.carry_out(&mut state, None);
    }

    /// The zxid of this process's registration is known, or brokers came and went.
    pub fn apply_brokers(self: &Arc<Self>) {
        let now = self.now();
        let live = self.hub.live();
        let mut state = self.lock();
        self.make_core(&mut state);
        let State { core, effects, .. } = &mut *state;
        if let Some(core) = core {
            core.apply_brokers(&live, now, effects);
        }
        self.carry_out(&mut state, None);
    }

    /// The topic's settings changed.
    pub fn apply_settings(self: &Arc<Self>, settings: Arc<TopicSettings>) {
        let now = self.now();
        let core_settings = settings.core;
        let configure = LogJob::Configure(settings.log.clone());
        // Before the job, behind which the thread asks them whether to sync.
        self.settings.store(settings);
        self.directory.push(Job::Log(Arc::clone(self), configure));
        self.with_core(None, |core, effects| core.apply_settings(core_settings, now, effects));
    }

    /// The core begins once the log is open and the process is registered.
    fn make_core(self: &Arc<Self>, state: &mut State) {
        let Some(started) = self.hub.started() else { return };
        if state.core.is_some() || state.stopped {
            return;
        }
        let Some(loaded) = state.loaded.take() else { return };
        state.core = Some(self.new_core(started, loaded));
        let now = self.now();
        let live = self.hub.live();
        let State { core, effects, waiting_state, .. } = state;
        if let Some(core) = core {
            core.apply_brokers(&live, now, effects);
            if let Some((stored, replicas)) = waiting_state.take() {
                let update = StateUpdate { stored: &stored, replicas: &replicas };
                core.apply_state(update, now, effects);
            }
        }
    }

    fn new_core(&self, started: Zxid, loaded: Loaded) -> Core {
        let settings = self.settings.load().core;
        Core::new(self.hub.broker_id, self.key, started, loaded, settings)
    }

    /// Lets the core decide and carries its effects out. `None` while there is no core.
    pub fn with_core<R>(
        self: &Arc<Self>,
        fetched: Option<&Bytes>,
        decide: impl FnOnce(&mut Core, &mut Vec<Effect>) -> R,
    ) -> Option<R> {
        let mut state = self.lock();
        let State { core, effects, .. } = &mut *state;
        let decided = core.as_mut().map(|core| decide(core, effects));
        self.carry_out(&mut state, fetched);
        decided
    }

    /// Looks at the core. `None` while there is none.
    pub fn read_core<R>(&self, look: impl FnOnce(&Core) -> R) -> Option<R> {
        self.lock().core.as_ref().map(look)
    }

    /// The high watermark; before the core begins, that of the checkpoint.
    pub fn high_watermark(&self) -> Option<i64> {
        let state = self.lock();
        match (&state.core, &state.loaded) {
            (Some(core), _) => Some(core.high_watermark().get()),
            (None, Some(loaded)) => Some(loaded.high_watermark.get()),
            (None, None) => None,
        }
    }

    /// Whether a produce may be appended, and under which epoch.
    pub fn admit_produce(&self, acks: i16) -> Result<AppendPermit, ErrorCode> {
        let state = self.lock();
        if state.stopped && self.directory.is_failed() {
            return Err(ErrorCode::KafkaStorageError);
        }
        let core = state.core.as_ref().ok_or(ErrorCode::NotLeaderOrFollower)?;
        core.admit_produce(acks)
    }

    /// Batches were appended: tells the core, and parks what waits for the in-sync replicas.
    pub fn appended(
        self: &Arc<Self>,
        appended: &Appended,
        waiting: impl IntoIterator<Item = WaitingProduce>,
    ) {
        let now = self.now();
        let mut state = self.lock();
        let State { core, effects, produces, .. } = &mut *state;
        let Some(core) = core else {
            let refuse = |w: WaitingProduce| w.ticket.refuse(ErrorCode::NotLeaderOrFollower);
            return waiting.into_iter().for_each(refuse);
        };
        if appended.end_offset > appended.base_offset {
            core.appended(appended, now, effects);
        }
        let leads = core.leading().is_some();
        let high_watermark = core.high_watermark().get();
        for waiting in waiting {
            if waiting.needed <= high_watermark {
                waiting.ticket.settle(Ok(waiting.produced));
            } else if leads {
                produces.push(waiting);
                self.waiting.store(true, Ordering::Relaxed);
            } else {
                // In the log, but this replica cannot learn any more whether it was committed.
                waiting.ticket.refuse(ErrorCode::NotLeaderOrFollower);
            }
        }
        self.carry_out(&mut state, None);
    }

    /// A commit round ended.
    pub fn synced(self: &Arc<Self>, durable_end: i64, generation: u64) {
        let now = self.now();
        let synced = Synced { durable_end: Offset::new(durable_end), generation };
        self.with_core(None, |core, effects| core.synced(synced, now, effects));
    }

    /// The log was cut.
    pub fn truncated(self: &Arc<Self>) {
        let Some(view) = self.view() else { return };
        let ends = view.ends();
        let truncated = Truncated {
            start: Offset::new(ends.log_start),
            end_offset: Offset::new(ends.end),
            durable_end: Offset::new(ends.durable_end),
            generation: view.generation(),
        };
        self.with_core(None, |core, effects| core.truncated(truncated, effects));
        self.lock().fetches.wake_all();
    }

    /// Time passed: answers what has waited too long.
    pub fn expire_waiting(&self) {
        if self.waiting.load(Ordering::Relaxed) {
            let now = self.now();
            let mut state = self.lock();
            state.produces.expire(now);
            self.waiting.store(!state.produces.is_empty(), Ordering::Relaxed);
        }
    }

    /// Time passed: lets the core look at lag and at what it asked for.
    pub fn tick(self: &Arc<Self>) {
        let now = self.now();
        self.with_core(None, |core, effects| core.tick(now, effects));
    }

    /// The topic is gone, or the log directory failed: serves nothing any more.
    pub fn stop(self: &Arc<Self>, error: ErrorCode) {
        let mut state = self.lock();
        state.stopped = true;
        state.produces.refuse_all(error);
        let State { core, effects, .. } = &mut *state;
        if let Some(core) = core {
            core.stop(effects);
        }
        self.carry_out(&mut state, None);
        state.core = None;
        state.fetches.wake_all();
    }

    /// Access to the fetches that wait here.
    pub fn with_fetches<R>(&self, change: impl FnOnce(&mut WaitingFetches) -> R) -> R {
        change(&mut self.lock().fetches)
    }

    /// Parks a fetch unless what it may read has moved above `above` meanwhile; false if so.
    pub fn park_fetch(
        &self,
        waiter: &Arc<super::waiting::FetchWaiter>,
        above: Offset,
        epoch: LeaderEpoch,
    ) -> bool {
        let mut state = self.lock();
        let Some(core) = &state.core else { return false };
        let limit = match waiter.replica {
            Some(_) => core.positions().end,
            None => core.high_watermark(),
        };
        if core.leading() != Some(epoch) || limit > above {
            return false;
        }
        state.fetches.push(waiter, above.get());
        true
    }

    fn carry_out(self: &Arc<Self>, state: &mut State, fetched: Option<&Bytes>) {
        let mut effects = std::mem::take(&mut state.effects);
        for effect in effects.drain(..) {
            self.carry_out_one(state, effect, fetched);
        }
        state.effects = effects;
    }

    fn carry_out_one(self: &Arc<Self>, state: &mut State, effect: Effect, fetched: Option<&Bytes>) {
        let job = |job| self.directory.push(Job::Log(Arc::clone(self), job));
        let outlet = &self.hub.outlet;
        match effect {
            Effect::AdoptEpoch { leader_epoch } => job(LogJob::Adopt(leader_epoch)),
            Effect::AppendFetched { leader_epoch, .. } => {
                let records = fetched.cloned().unwrap_or_default();
                job(LogJob::AppendFetched(leader_epoch, records));
            }
            Effect::Truncate { leader_epoch, to } => job(LogJob::Truncate(leader_epoch, to)),
            Effect::RestartAt { leader_epoch, start } => {
                job(LogJob::RestartAt(leader_epoch, start));
            }
            Effect::DropBelow { start } => job(LogJob::DropBelow(start)),
            Effect::HighWatermark { high_watermark } => {
                state.produces.committed(high_watermark.get());
                state.fetches.high_watermark(high_watermark.get());
            }
            Effect::EndMoved { end_offset } => state.fetches.end_moved(end_offset.get()),
            Effect::ReportProgress => outlet.report_progress(self.key),
            Effect::FetchFrom { leader, leader_epoch } => {
                outlet.fetch_from(self.key, leader, leader_epoch);
            }
            Effect::StopFetching => outlet.stop_fetching(self.key),
            Effect::LeadershipLost => {
                state.produces.refuse_all(ErrorCode::NotLeaderOrFollower);
                state.fetches.wake_all();
            }
            Effect::Alter(request) => outlet.alter(request),
            Effect::CutRepaired => job(LogJob::CutRepaired),
        }
    }
}
