//! Which partition is fetched from whom.
//!
//! Called by: the partitions, under their locks (what changes), the server's start and stop.
//! Calls: `fetcher`, one task per leader. Invariant: a partition is in the list of at most one
//! leader; nothing here waits, so that it may be called under a lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker_core::ids::TopicPartition;
use broker_core::image::Image;
use client_protocol::BrokerId;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::contacts::Contacts;
use super::fetcher::{self, Context};
use crate::config::ReplicaConfig;
use crate::partitions::Partitions;

/// The partitions that follow one leader, and what the task has not looked at.
#[derive(Default)]
pub(super) struct Followed {
    state: Mutex<FollowedState>,
    /// Something changed.
    pub(super) changed: Notify,
}

#[derive(Default)]
struct FollowedState {
    partitions: BTreeSet<TopicPartition>,
    progressed: BTreeSet<TopicPartition>,
}

impl Followed {
    fn lock(&self) -> MutexGuard<'_, FollowedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All partitions that follow this leader.
    pub(super) fn partitions(&self) -> Vec<TopicPartition> {
        self.lock().partitions.iter().copied().collect()
    }

    /// Those that got further since the last call.
    pub(super) fn take_progressed(&self) -> BTreeSet<TopicPartition> {
        std::mem::take(&mut self.lock().progressed)
    }

    pub(super) fn contains(&self, partition: TopicPartition) -> bool {
        self.lock().partitions.contains(&partition)
    }

    fn add(&self, partition: TopicPartition) {
        let mut state = self.lock();
        state.partitions.insert(partition);
        state.progressed.insert(partition);
        drop(state);
        self.changed.notify_one();
    }

    fn progressed(&self, partition: TopicPartition) {
        self.lock().progressed.insert(partition);
        self.changed.notify_one();
    }

    /// True if none is left.
    fn remove(&self, partition: TopicPartition) -> bool {
        let mut state = self.lock();
        state.partitions.remove(&partition);
        state.progressed.remove(&partition);
        let empty = state.partitions.is_empty();
        drop(state);
        self.changed.notify_one();
        empty
    }
}

struct Leader {
    followed: Arc<Followed>,
    task: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    leader_of: BTreeMap<TopicPartition, BrokerId>,
    leaders: BTreeMap<BrokerId, Leader>,
    context: Option<Arc<Context>>,
    stopped: bool,
}

/// All fetchers of this broker.
pub struct Fetchers {
    runtime: Handle,
    contacts: Arc<Contacts>,
    state: Mutex<State>,
}

impl Fetchers {
    /// No partition follows anybody yet; tasks run on `runtime`.
    pub fn new(runtime: Handle) -> Self {
        Self { runtime, contacts: Arc::default(), state: Mutex::default() }
    }

    /// What the fetchers see of their leaders.
    pub fn contacts(&self) -> Arc<Contacts> {
        Arc::clone(&self.contacts)
    }

    /// Tells the fetchers where partitions and metadata are. What was to be fetched so far begins.
    pub fn begin(
        &self,
        broker: BrokerId,
        partitions: Arc<Partitions>,
        image: watch::Receiver<Arc<Image>>,
        config: ReplicaConfig,
    ) {
        let mut state = self.lock();
        let contacts = self.contacts();
        state.context = Some(Arc::new(Context { broker, partitions, image, contacts, config }));
        let waiting: Vec<BrokerId> = state.leaders.keys().copied().collect();
        for leader in waiting {
            self.start(&mut state, leader);
        }
    }

    /// `partition` follows `leader` from now on.
    pub fn fetch_from(&self, partition: TopicPartition, leader: BrokerId) {
        let mut state = self.lock();
        if state.stopped {
            return;
        }
        let former = state.leader_of.insert(partition, leader);
        if let Some(former) = former.filter(|former| *former != leader) {
            forget(&mut state, former, partition);
        }
        self.start(&mut state, leader);
        if let Some(leader) = state.leaders.get(&leader) {
            leader.followed.add(partition);
        }
    }

    /// `partition` follows nobody any more.
    pub fn stop_fetching(&self, partition: TopicPartition) {
        let mut state = self.lock();
        if let Some(leader) = state.leader_of.remove(&partition) {
            forget(&mut state, leader, partition);
        }
    }

    /// `partition` may fetch again, or has more on disk: its leader wants to know.
    pub fn report_progress(&self, partition: TopicPartition) {
        let state = self.lock();
        let leader = state.leader_of.get(&partition).and_then(|id| state.leaders.get(id));
        if let Some(leader) = leader {
            leader.followed.progressed(partition);
        }
    }

    /// Ends all tasks; returns when none runs.
    pub async fn stop(&self) {
        let tasks: Vec<JoinHandle<()>> = {
            let mut state = self.lock();
            state.stopped = true;
            state.leader_of.clear();
            state.context = None;
            std::mem::take(&mut state.leaders).into_values().filter_map(|l| l.task).collect()
        };
        for task in tasks {
            task.abort();
            // A cancelled task is what was asked for.
            let _ = task.await;
        }
    }

    fn start(&self, state: &mut State, leader: BrokerId) {
        let State { leaders, context, .. } = state;
        let entry = leaders
            .entry(leader)
            .or_insert_with(|| Leader { followed: Arc::default(), task: None });
        if let (None, Some(context)) = (&entry.task, context) {
            let run = fetcher::run(leader, Arc::clone(&entry.followed), Arc::clone(context));
            entry.task = Some(self.runtime.spawn(run));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a partition off a leader's list; a leader without partitions loses its task.
fn forget(state: &mut State, leader: BrokerId, partition: TopicPartition) {
    let Some(entry) = state.leaders.get(&leader) else { return };
    if entry.followed.remove(partition) {
        if let Some(task) = &entry.task {
            task.abort();
        }
        state.leaders.remove(&leader);
    }
}
