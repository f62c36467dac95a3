//! Which shards are here, and the way to them.
//!
//! Called by: the request handlers (ask), the server's start (run). Calls: `task`, the metadata image.
//! Invariant: a shard is asked only while its partition is led here under the epoch that it was
//! loaded under; what cannot be asked is answered with the code that sends the client on.
//! Does not know what a group is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use broker_core::group::{GroupFigures, OFFSETS_TOPIC, Request, Response, Settings, partition_of};
use broker_core::ids::TopicPartition;
use broker_core::image::{Image, Topic};
use client_protocol::{BrokerId, ErrorCode, LeaderEpoch, PartitionId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{debug, info};

use super::load::Damaged;
use super::task::{self, Task};
use crate::partitions::Partitions;

/// Requests that may wait for a shard's task.
pub(super) const ASKED_MAX: usize = 4_096;

/// What is on its way to a shard.
pub(super) enum Ask {
    /// A request, and where its answer goes.
    Request(Request, oneshot::Sender<Response>),
    /// What its groups look like in figures.
    Figures(oneshot::Sender<Vec<GroupFigures>>),
    /// These topics are deleted.
    TopicsGone(Arc<BTreeSet<String>>),
}

/// The shards of this broker.
pub struct Groups {
    broker_id: BrokerId,
    settings: Settings,
    started: Instant,
    partitions: Arc<Partitions>,
    images: watch::Receiver<Arc<Image>>,
    shards: ArcSwap<BTreeMap<PartitionId, Shard>>,
    damaged: Arc<Damaged>,
}

/// The way to one shard. The task ends when the last of these is dropped.
#[derive(Clone)]
struct Shard {
    key: TopicPartition,
    leader_epoch: LeaderEpoch,
    asks: mpsc::Sender<Ask>,
    is_loaded: Arc<AtomicBool>,
}

/// An answer that is known, or that a shard owes.
enum Asked {
    Known(Response),
    Owed(oneshot::Receiver<Response>, Response),
}

impl Groups {
    /// No shards yet: [`Groups::run`] brings them.
    pub fn new(
        broker_id: BrokerId,
        settings: Settings,
        partitions: Arc<Partitions>,
        images: watch::Receiver<Arc<Image>>,
    ) -> Arc<Self> {
        let shards = ArcSwap::default();
        let (started, damaged) = (Instant::now(), Arc::default());
        Arc::new(Self { broker_id, settings, started, partitions, images, shards, damaged })
    }

    /// The partition of `__consumer_offsets` that a group belongs to; `None` before there is one.
    pub fn partition_of(image: &Image, group: &str) -> Option<PartitionId> {
        let count = image.topic(OFFSETS_TOPIC)?.node.partitions.len();
        Some(partition_of(group, i32::try_from(count).ok()?))
    }

    /// Hands a request about one group to its shard, in the order of the calls; the future yields
    /// the answer. Dropping it does not take the request back.
    pub fn ask(&self, request: Request) -> impl Future<Output = Response> + Send + use<> {
        let partition = {
            let image = self.images.borrow();
            request.group().and_then(|group| Self::partition_of(&image, group))
        };
        let shards = self.shards.load();
        let asked = match partition.and_then(|partition| shards.get(&partition)) {
            Some(shard) => self.ask_shard(shard, request),
            None => Asked::Known(request.refused(ErrorCode::NotCoordinator)),
        };
        asked.answer()
    }

    /// Asks every shard here.
    pub fn ask_all(&self, request: &Request) -> Vec<impl Future<Output = Response> + Send + use<>> {
        let shards = self.shards.load();
        shards.values().map(|shard| self.ask_shard(shard, request.clone()).answer()).collect()
    }

    /// What the groups of all shards here look like in figures. A shard that is loading, or has no
    /// room, is left out.
    pub fn figures(&self) -> impl Future<Output = Vec<GroupFigures>> + Send + use<> {
        let shards = self.shards.load();
        let asked = shards.values().filter_map(|shard| {
            let (reply, receiver) = oneshot::channel();
            let is_led = self.partitions.leading(shard.key).map(|(epoch, _)| epoch);
            let is_loaded = shard.is_loaded.load(Ordering::Acquire);
            let is_ours = is_loaded && is_led == Some(shard.leader_epoch);
            (is_ours && shard.asks.try_send(Ask::Figures(reply)).is_ok()).then_some(receiver)
        });
        let asked: Vec<_> = asked.collect();
        async move {
            let mut all = Vec::new();
            for owed in asked {
                all.extend(owed.await.unwrap_or_default());
            }
            all
        }
    }

    fn ask_shard(&self, shard: &Shard, request: Request) -> Asked {
        // The image may not have told yet that the time of this epoch is over.
        let leading = self.partitions.leading(shard.key).map(|(epoch, _)| epoch);
        if !shard.is_loaded.load(Ordering::Acquire) {
            return Asked::Known(request.refused(ErrorCode::CoordinatorLoadInProgress));
        }
        let lost = request.refused(ErrorCode::NotCoordinator);
        if leading != Some(shard.leader_epoch) {
            return Asked::Known(lost);
        }
        let (reply, receiver) = oneshot::channel();
        let busy = request.refused(ErrorCode::CoordinatorNotAvailable);
        match shard.asks.try_send(Ask::Request(request, reply)) {
            Ok(()) => Asked::Owed(receiver, lost),
            Err(mpsc::error::TrySendError::Closed(_)) => Asked::Known(lost),
            Err(mpsc::error::TrySendError::Full(_)) => Asked::Known(busy),
        }
    }

    /// Begins a shard for each partition that this broker leads, and ends it with the leadership;
    /// until `stop` turns true.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut images = self.images.clone();
        let mut tasks = JoinSet::new();
        let mut former: Arc<Image> = Arc::default();
        loop {
            let image = Arc::clone(&images.borrow_and_update());
            self.follow(&image, &mut tasks);
            self.tell_of_deletions(&former, &image);
            former = image;
            // Each arm is cancel-safe: nothing is taken but the fact that something changed.
            tokio::select! {
                changed = images.changed() => if changed.is_err() { break },
                Some(_) = tasks.join_next() => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        self.shards.store(Arc::default());
        while tasks.join_next().await.is_some() {}
    }

    fn follow(&self, image: &Image, tasks: &mut JoinSet<()>) {
        let before = self.shards.load();
        let led = self.led(image);
        let goes_on = |partition: &PartitionId, (key, epoch): (TopicPartition, LeaderEpoch)| {
            let shard = before.get(partition).filter(|shard| !shard.asks.is_closed())?;
            (shard.key == key && shard.leader_epoch == epoch).then(|| shard.clone())
        };
        let mut after = BTreeMap::new();
        for (partition, led) in led {
            let shard = goes_on(&partition, led).unwrap_or_else(|| self.begin(led, tasks));
            after.insert(partition, shard);
        }
        for (partition, shard) in before.iter().filter(|(p, _)| !after.contains_key(p)) {
            info!(%partition, epoch = %shard.leader_epoch, "groups resigned");
        }
        self.shards.store(Arc::new(after));
    }

    /// Lets the shards forget what groups have read of topics that are gone. One that is loading, or
    /// has no room, is not told: there they stay until they expire.
    fn tell_of_deletions(&self, former: &Image, image: &Image) {
        let is_gone = |topic: &&Topic| {
            image.topic(&topic.name).is_none_or(|now| now.node.id != topic.node.id)
        };
        let gone = former.topics().filter(is_gone).map(|topic| topic.name.to_string());
        let gone: BTreeSet<String> = gone.collect();
        if gone.is_empty() {
            return;
        }
        let gone = Arc::new(gone);
        let shards = self.shards.load();
        for shard in shards.values().filter(|shard| shard.is_loaded.load(Ordering::Acquire)) {
            if shard.asks.try_send(Ask::TopicsGone(Arc::clone(&gone))).is_err() {
                debug!(partition = %shard.key.partition, "not told of deleted topics");
            }
        }
    }

    /// What this broker leads of the topic, according to the image.
    fn led(&self, image: &Image) -> BTreeMap<PartitionId, (TopicPartition, LeaderEpoch)> {
        let Some(topic) = image.topic(OFFSETS_TOPIC) else { return BTreeMap::new() };
        let mine = image
            .states(OFFSETS_TOPIC)
            .filter(|(_, stored)| stored.state.leader == Some(self.broker_id));
        mine.map(|(partition, stored)| {
            let key = TopicPartition { topic: topic.node.id, partition };
            (partition, (key, stored.state.leader_epoch))
        })
        .collect()
    }

    fn begin(&self, led: (TopicPartition, LeaderEpoch), tasks: &mut JoinSet<()>) -> Shard {
        let (key, leader_epoch) = led;
        debug!(partition = %key.partition, epoch = %leader_epoch, "groups are loaded");
        let (asks, asked) = mpsc::channel(ASKED_MAX);
        let is_loaded = Arc::new(AtomicBool::new(false));
        let shard = Shard { key, leader_epoch, asks, is_loaded: Arc::clone(&is_loaded) };
        tasks.spawn(task::run(Task {
            key,
            leader_epoch,
            asked,
            is_loaded,
            settings: self.settings.clone(),
            started: self.started,
            partitions: Arc::clone(&self.partitions),
            damaged: Arc::clone(&self.damaged),
        }));
        shard
    }
}

impl Asked {
    async fn answer(self) -> Response {
        match self {
            Self::Known(response) => response,
            // The shard ended with its leadership: whoever waited goes elsewhere.
            Self::Owed(receiver, lost) => receiver.await.unwrap_or(lost),
        }
    }
}
