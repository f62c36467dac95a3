//! A partition as a broker hosts it: from before its log is open and the broker registered, to its end; with who waits on it.
//!
//! *Called by* the broker's shell under the partition's lock, and by the simulator: events in; effects and who waits no longer out.
//! *Calls* the partition's core and the purgatory. Invariants: the core begins once the log is open and the process is registered, and takes
//! the newest state that came before; whoever waits is released by what the core decides, in the same step; nothing waits after the end.
//! It does not know logs, tickets or futures.

use std::collections::BTreeMap;
use std::sync::Arc;

use client_protocol::ErrorCode;

use crate::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Millis, Offset, TopicPartition, Zxid};
use crate::image::StoredState;
use crate::partition::{
    AppendPermit, Appended, Effect, Loaded, Partition, Settings, StateUpdate, Truncated,
};
use crate::purgatory::{FetchWait, ProduceWait, Purgatory, Released};
use crate::refusals::{Refusals, Sequenced};

/// What the process knows when something happens.
#[derive(Clone, Debug)]
pub struct Moment {
    /// czxid of the first registration of this process, once there was one.
    pub started: Option<Zxid>,
    /// Lives of all registered brokers.
    pub live: Arc<BTreeMap<BrokerId, BrokerEpoch>>,
    /// The time.
    pub now: Millis,
}

/// What is to be done after a step: the effects in order, then the releases.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome<P, F> {
    /// For the log, the fetchers and the controller.
    pub effects: Vec<Effect>,
    /// Who waits no longer.
    pub released: Vec<Released<P, F>>,
}

impl<P, F> Default for Outcome<P, F> {
    fn default() -> Self {
        Self { effects: Vec::new(), released: Vec::new() }
    }
}

/// A client's batch, as far as it matters whether it may be appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// -1, 0 or 1.
    pub acks: i16,
    /// Its place among others of its producer, if that is idempotent.
    pub batch: Option<Sequenced>,
    /// Whether the broker may serve ([`crate::fence`]).
    pub may_serve: bool,
}

/// A client's batch may be appended, by the log that adopted this epoch and no other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducePermit {
    /// The epoch to stamp on the records.
    pub leader_epoch: LeaderEpoch,
    /// Should the log find a gap before the batch: one that was refused a moment ago is missing there, with this error.
    pub behind: Option<ErrorCode>,
}

/// See the module. `P` and `F` are what the shell knows a produce and a fetch by.
#[derive(Clone, Debug)]
pub struct Hosted<P, F> {
    me: BrokerId,
    key: TopicPartition,
    settings: Settings,
    /// What the log said when it was opened, until the core takes it.
    loaded: Option<Loaded>,
    /// The newest state of the metadata, while there is no core yet.
    early_state: Option<(StoredState, Vec<BrokerId>)>,
    core: Option<Partition>,
    waiting: Purgatory<P, F>,
    refusals: Refusals,
    /// Why it ended.
    ended: Option<ErrorCode>,
}

impl<P, F> Hosted<P, F> {
    /// A partition whose log is not open yet.
    #[must_use]
    pub fn new(me: BrokerId, key: TopicPartition, settings: Settings) -> Self {
        Self {
            me,
            key,
            settings,
            loaded: None,
            early_state: None,
            core: None,
            waiting: Purgatory::default(),
            refusals: Refusals::default(),
            ended: None,
        }
    }

    /// The core, from when the log is open and the process registered, to the end.
    #[must_use]
    pub fn core(&self) -> Option<&Partition> {
        self.core.as_ref()
    }

    /// The high watermark; before the core begins, that of the checkpoint.
    #[must_use]
    pub fn high_watermark(&self) -> Option<Offset> {
        let core = self.core.as_ref().map(Partition::high_watermark);
        core.or_else(|| self.loaded.as_ref().map(|loaded| loaded.high_watermark))
    }

    /// Whether produces wait, for whoever looks after their time.
    #[must_use]
    pub fn has_waiting_produces(&self) -> bool {
        !self.waiting.produces.is_empty()
    }

    /// How many fetches wait.
    #[must_use]
    pub fn waiting_fetches(&self) -> usize {
        self.waiting.fetches.len()
    }

    /// The log is open.
    pub fn log_opened(&mut self, loaded: Loaded, moment: &Moment, out: &mut Outcome<P, F>) {
        if self.core.is_none() {
            self.loaded = Some(loaded);
        }
        self.begin(moment, out);
    }

    /// The metadata says this of the partition.
    pub fn apply_state(
        &mut self,
        update: StateUpdate<'_>,
        moment: &Moment,
        out: &mut Outcome<P, F>,
    ) {
        if self.core.is_none() {
            self.early_state = Some((update.stored.clone(), update.replicas.to_vec()));
            return self.begin(moment, out);
        }
        self.step(out, |core, effects| core.apply_state(update, moment.now, effects));
    }

    /// The process was registered, or brokers came and went.
    pub fn apply_brokers(&mut self, moment: &Moment, out: &mut Outcome<P, F>) {
        if self.core.is_none() {
            return self.begin(moment, out);
        }
        self.step(out, |core, effects| core.apply_brokers(&moment.live, moment.now, effects));
    }

    /// The topic's settings changed.
    pub fn apply_settings(&mut self, settings: Settings, now: Millis, out: &mut Outcome<P, F>) {
        self.settings = settings;
        self.step(out, |core, effects| core.apply_settings(settings, now, effects));
    }

    fn begin(&mut self, moment: &Moment, out: &mut Outcome<P, F>) {
        let Some(started) = moment.started else { return };
        if self.ended.is_some() {
            return;
        }
        let Some(loaded) = self.loaded.take() else { return };
        self.core = Some(Partition::new(self.me, self.key, started, loaded, self.settings));
        let early_state = self.early_state.take();
        self.step(out, |core, effects| {
            core.apply_brokers(&moment.live, moment.now, effects);
            if let Some((stored, replicas)) = &early_state {
                core.apply_state(StateUpdate { stored, replicas }, moment.now, effects);
            }
        });
    }

    /// Lets the core decide; `None` while there is none.
    pub fn step<R>(
        &mut self,
        out: &mut Outcome<P, F>,
        decide: impl FnOnce(&mut Partition, &mut Vec<Effect>) -> R,
    ) -> Option<R> {
        let known = out.effects.len();
        let decided = self.core.as_mut().map(|core| decide(core, &mut out.effects));
        for effect in out.effects.get(known..).unwrap_or_default() {
            self.waiting.note(effect, &mut out.released);
        }
        decided
    }

    /// Whether a client's batch may be appended, and under which epoch.
    ///
    /// # Errors
    /// The code to answer: NOT_LEADER_OR_FOLLOWER while the broker may not serve; that of the end, after it; else as
    /// [`Partition::admit_produce`].
    pub fn admit_produce(&mut self, asked: Asked, now: Millis) -> Result<ProducePermit, ErrorCode> {
        match self.permit(asked) {
            Ok(AppendPermit { leader_epoch }) => {
                let behind = asked.batch.and_then(|batch| {
                    self.refusals.settle(batch);
                    self.refusals.behind(batch, now)
                });
                Ok(ProducePermit { leader_epoch, behind })
            }
            Err(error) => {
                self.refused(asked.batch, error, now);
                Err(error)
            }
        }
    }

    fn permit(&self, asked: Asked) -> Result<AppendPermit, ErrorCode> {
        match (&self.core, self.ended) {
            _ if !asked.may_serve => Err(ErrorCode::NotLeaderOrFollower),
            (Some(core), _) => core.admit_produce(asked.acks),
            (None, Some(error)) => Err(error),
            (None, None) => Err(ErrorCode::NotLeaderOrFollower),
        }
    }

    /// A client's batch was refused, here or by the log.
    pub fn refused(&mut self, batch: Option<Sequenced>, error: ErrorCode, now: Millis) {
        if let Some(batch) = batch
            && error.is_retriable()
        {
            self.refusals.note(batch, error, now);
        }
    }

    /// Batches stand in the log: the core hears of them, and those of `waits` that are not committed yet are parked. A batch that was in the
    /// log before, sent again, is among `waits` and not in `appended`.
    pub fn appended(
        &mut self,
        appended: &Appended,
        waits: impl IntoIterator<Item = ProduceWait<P>>,
        now: Millis,
        out: &mut Outcome<P, F>,
    ) {
        if appended.end_offset > appended.base_offset {
            self.step(out, |core, effects| core.appended(appended, now, effects));
        }
        let leads = self.core.as_ref().is_some_and(|core| core.leading().is_some());
        let committed = self.core.as_ref().map(Partition::high_watermark);
        for wait in waits {
            if committed.is_some_and(|committed| wait.needed <= committed) {
                out.released.push(Released::Settled(wait.produce, Ok(())));
            } else if leads {
                self.waiting.produces.park(wait);
            } else {
                // In the log, but this replica cannot learn any more whether it was committed.
                let lost = Err(ErrorCode::NotLeaderOrFollower);
                out.released.push(Released::Settled(wait.produce, lost));
            }
        }
    }

    /// The log was cut or restarted: what was found for a fetch may not be there any more.
    pub fn truncated(&mut self, truncated: Truncated, out: &mut Outcome<P, F>) {
        self.step(out, |core, effects| core.truncated(truncated, effects));
        self.waiting.fetches.wake_all(&mut out.released);
    }

    /// A follower's fetch for `bytes_max` bytes came. One of no bytes only tells progress, beside the one that waits.
    pub fn follower_came(&mut self, replica: BrokerId, bytes_max: u32, out: &mut Outcome<P, F>) {
        if bytes_max > 0 {
            self.waiting.fetches.superseded(replica, &mut out.released);
        }
    }

    /// Parks a fetch that came under `epoch`, unless there is news for it already; false if so.
    pub fn park_fetch(&mut self, wait: FetchWait<F>, epoch: LeaderEpoch) -> bool {
        let has_news = self.core.as_ref().is_none_or(|core| {
            core.leading() != Some(epoch) || core.read_limit(wait.replica) > wait.above
        });
        if !has_news {
            self.waiting.fetches.park(wait);
        }
        !has_news
    }

    /// Takes a fetch off without waking it.
    pub fn forget_fetch(&mut self, is_it: impl Fn(&F) -> bool) {
        self.waiting.fetches.forget(is_it);
    }

    /// Time passed: ends the waits of produces that are over.
    pub fn expire(&mut self, now: Millis, out: &mut Outcome<P, F>) {
        self.waiting.produces.expire(now, &mut out.released);
    }

    /// The topic is gone, the log directory failed, or the broker stops: all that waits is told `error`, and so is what comes.
    pub fn end(&mut self, error: ErrorCode, out: &mut Outcome<P, F>) {
        self.ended.get_or_insert(error);
        self.waiting.produces.refuse_all(error, &mut out.released);
        self.step(out, Partition::stop);
        self.core = None;
        self.waiting.fetches.wake_all(&mut out.released);
    }

    /// Panics when an invariant is broken.
    pub fn check(&self) {
        if let Some(core) = &self.core {
            core.check();
        }
        self.waiting.check();
        self.refusals.check();
        let leads = self.core.as_ref().is_some_and(|core| core.leading().is_some());
        assert!(leads || self.waiting.produces.is_empty(), "{:?}: waits without a lead", self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ControllerEpoch, PartitionEpoch, PartitionId, TopicId};
    use crate::image::PartitionState;
    use crate::partition::{Durability, EpochHistory, LogPositions, Synced};
    use client_protocol::{ProducerEpoch, ProducerId};

    type Out = Outcome<u8, u8>;

    const ME: BrokerId = BrokerId::new(1);

    fn offset(value: i64) -> Offset {
        Offset::new(value)
    }

    fn moment(started: Option<i64>) -> Moment {
        let live = Arc::new([(ME, BrokerEpoch::new(10))].into());
        Moment { started: started.map(Zxid::new), live, now: Millis::new(0) }
    }

    fn loaded() -> Loaded {
        let positions = LogPositions {
            start: offset(0),
            end: offset(4),
            durable_end: offset(4),
            generation: 1,
            epochs: EpochHistory::new(&[(LeaderEpoch::new(0), offset(0))]),
        };
        Loaded { positions, high_watermark: offset(2), cut_below_mark: false }
    }

    fn state(epoch: i32, leader: i32) -> StoredState {
        StoredState {
            state: PartitionState {
                controller_epoch: ControllerEpoch::new(1),
                leader: Some(BrokerId::new(leader)),
                leader_epoch: LeaderEpoch::new(epoch),
                isr: vec![BrokerId::new(leader)],
                recovering: false,
            },
            partition_epoch: PartitionEpoch::new(epoch),
            written: Zxid::new(i64::from(20 + epoch)),
        }
    }

    fn hosted() -> Hosted<u8, u8> {
        let settings = Settings {
            durability: Durability::Disk,
            min_insync_replicas: 1,
            lag_time_max_ms: 1000,
            alter_retry_ms: 100,
            #[cfg(planted)]
            planted: None,
        };
        let topic = TopicId::from_bytes([3; 16]);
        Hosted::new(ME, TopicPartition { topic, partition: PartitionId::new(0) }, settings)
    }

    fn lead(hosted: &mut Hosted<u8, u8>, epoch: i32) -> Out {
        let mut out = Out::default();
        let stored = state(epoch, 1);
        let update = StateUpdate { stored: &stored, replicas: &[ME, BrokerId::new(2)] };
        hosted.apply_state(update, &moment(Some(10)), &mut out);
        out
    }

    fn leading() -> Hosted<u8, u8> {
        let mut hosted = hosted();
        let mut out = lead(&mut hosted, 1);
        hosted.log_opened(loaded(), &moment(Some(10)), &mut out);
        hosted.step(&mut out, |core, effects| {
            core.epoch_adopted(LeaderEpoch::new(1), Millis::new(0), effects);
        });
        assert_eq!(hosted.high_watermark(), Some(offset(4)));
        hosted
    }

    fn sequenced(base_sequence: i32) -> Sequenced {
        let (producer, epoch) = (ProducerId::new(9), ProducerEpoch::new(0));
        Sequenced { producer, epoch, base_sequence }
    }

    fn produce(
        hosted: &mut Hosted<u8, u8>,
        base_sequence: Option<i32>,
        now: u64,
    ) -> Result<ProducePermit, ErrorCode> {
        let batch = base_sequence.map(sequenced);
        hosted.admit_produce(Asked { acks: 1, batch, may_serve: true }, Millis::new(now))
    }

    fn append(hosted: &mut Hosted<u8, u8>, waits: &[(u8, i64)]) -> Out {
        let mut out = Out::default();
        let appended = Appended {
            base_offset: offset(4),
            end_offset: offset(6),
            epochs: vec![(LeaderEpoch::new(1), offset(4))],
        };
        let waits = waits.iter().map(|&(produce, needed)| ProduceWait {
            needed: offset(needed),
            deadline: Millis::new(100),
            produce,
        });
        hosted.appended(&appended, waits, Millis::new(0), &mut out);
        hosted.check();
        out
    }

    #[test]
    fn the_core_begins_with_log_and_registration_and_the_newest_early_state() {
        let mut hosted = hosted();
        let mut out = lead(&mut hosted, 1);
        out.effects.extend(lead(&mut hosted, 2).effects);
        hosted.log_opened(loaded(), &moment(None), &mut out);
        assert_eq!((hosted.high_watermark(), out.effects.len()), (Some(offset(2)), 0));
        assert_eq!(produce(&mut hosted, None, 0), Err(ErrorCode::NotLeaderOrFollower));
        hosted.apply_brokers(&moment(Some(10)), &mut out);
        let adopt = Effect::AdoptEpoch { leader_epoch: LeaderEpoch::new(2) };
        assert_eq!(out.effects, [adopt]);
        assert!(hosted.core().is_some_and(Partition::is_elected));
    }

    #[test]
    fn appends_wait_for_the_high_watermark_and_duplicates_do_not() {
        let mut hosted = leading();
        let out = append(&mut hosted, &[(1, 3), (2, 6)]);
        assert_eq!(out.released, [Released::Settled(1, Ok(()))]);
        let mut out = Out::default();
        let synced = Synced { durable_end: offset(6), generation: 1 };
        hosted.step(&mut out, |core, effects| core.synced(synced, Millis::new(1), effects));
        assert_eq!(out.released, [Released::Settled(2, Ok(()))]);
        assert!(!hosted.has_waiting_produces());
    }

    #[test]
    fn what_comes_behind_a_refused_batch_is_told_so_until_that_one_comes_again() {
        let mut hosted = hosted();
        let mut out = Out::default();
        assert_eq!(produce(&mut hosted, Some(5), 0), Err(ErrorCode::NotLeaderOrFollower));
        lead(&mut hosted, 1);
        hosted.log_opened(loaded(), &moment(Some(10)), &mut out);
        assert_eq!(produce(&mut hosted, Some(6), 1), Err(ErrorCode::NotLeaderOrFollower));
        hosted.step(&mut out, |core, effects| {
            core.epoch_adopted(LeaderEpoch::new(1), Millis::new(1), effects);
        });
        let leader_epoch = LeaderEpoch::new(1);
        let behind = Some(ErrorCode::NotLeaderOrFollower);
        let waits = Ok(ProducePermit { leader_epoch, behind });
        let free = Ok(ProducePermit { leader_epoch, behind: None });
        assert_eq!(produce(&mut hosted, Some(7), 2), waits);
        assert_eq!(produce(&mut hosted, None, 2), free);
        assert_eq!(produce(&mut hosted, Some(5), 2), free);
        assert_eq!(produce(&mut hosted, Some(6), 2), free);
        // Permitted, and refused by the log, which follows another epoch by then.
        let late = sequenced(6);
        hosted.refused(Some(late), ErrorCode::NotLeaderOrFollower, Millis::new(3));
        assert_eq!(produce(&mut hosted, Some(7), 3), waits);
        // An error that does not pass says nothing of what comes behind.
        hosted.refused(Some(sequenced(2)), ErrorCode::MessageTooLarge, Millis::new(3));
        assert_eq!(produce(&mut hosted, Some(3), 3), free);
        hosted.check();
    }

    #[test]
    fn a_broker_that_may_not_serve_refuses_and_remembers() {
        let mut hosted = leading();
        let asked = Asked { acks: -1, batch: Some(sequenced(5)), may_serve: false };
        let now = Millis::new(0);
        assert_eq!(hosted.admit_produce(asked, now), Err(ErrorCode::NotLeaderOrFollower));
        let behind = Some(ErrorCode::NotLeaderOrFollower);
        let leader_epoch = LeaderEpoch::new(1);
        let waits = Ok(ProducePermit { leader_epoch, behind });
        assert_eq!(produce(&mut hosted, Some(6), 0), waits);
    }

    #[test]
    fn a_lost_lead_and_the_end_release_all() {
        let mut hosted = leading();
        append(&mut hosted, &[(2, 6)]);
        let wait = |fetch| FetchWait { fetch, replica: None, above: offset(4) };
        assert!(hosted.park_fetch(wait(7), LeaderEpoch::new(1)));
        assert!(!hosted.park_fetch(wait(8), LeaderEpoch::new(0)));
        let mut out = Out::default();
        let stored = state(2, 2);
        let update = StateUpdate { stored: &stored, replicas: &[ME, BrokerId::new(2)] };
        hosted.apply_state(update, &moment(Some(10)), &mut out);
        let lost = Released::Settled(2, Err(ErrorCode::NotLeaderOrFollower));
        assert_eq!(out.released, [lost, Released::Woken(7)]);
        let late = append_late(&mut hosted);
        assert_eq!(late, [Released::Settled(9, Err(ErrorCode::NotLeaderOrFollower))]);
        hosted.end(ErrorCode::KafkaStorageError, &mut out);
        assert_eq!(produce(&mut hosted, None, 0), Err(ErrorCode::KafkaStorageError));
        hosted.check();
    }

    /// A batch that was on its way when the lead was lost.
    fn append_late(hosted: &mut Hosted<u8, u8>) -> Vec<Released<u8, u8>> {
        let mut out = Out::default();
        let nothing = Appended { base_offset: offset(6), end_offset: offset(6), epochs: vec![] };
        let wait = ProduceWait { needed: offset(6), deadline: Millis::new(9), produce: 9 };
        hosted.appended(&nothing, [wait], Millis::new(1), &mut out);
        out.released
    }
}
