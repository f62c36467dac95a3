//! Does what the consumer's cores say: connects, fetches, asks, and brings the answers back.
//!
//! *Called by* `consumer`, as one task. *Calls* `client-core`, `network`, `routing`.
//!
//! Invariant: every request is answered to its core once. Answers are taken apart (checksums, decompression) in the tasks
//! that wait for them, outside of the lock.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use client_core::consumer::read::{PartitionAnswer, read};
use client_core::consumer::{Effect, RequestId};
use client_core::group::{self, Answer, Ask, Coordinator};
use client_protocol::messages::{
    FetchRequest, ListOffsetsResponse, MetadataResponse, OffsetForLeaderEpochResponse,
};
use client_protocol::{BrokerId, Request};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Shared;
use crate::connection::Connection;
use crate::error::ClientError;
use crate::network::{Asked, Network, Purpose, failure};
use crate::options::ClientOptions;
use crate::routing::Routes;

/// Longer than anybody waits.
const IDLE: Duration = Duration::from_secs(3600);

/// What a rebalance may take beyond its own time-out.
const REBALANCE_GRACE: Duration = Duration::from_secs(5);

/// What a task of the driver brought.
enum Done {
    Opened((BrokerId, u8), Result<Arc<Connection>, ClientError>),
    Fetched(RequestId, Result<Vec<PartitionAnswer>, ClientError>),
    Offsets(RequestId, Result<ListOffsetsResponse, ClientError>),
    Epochs(RequestId, Result<OffsetForLeaderEpochResponse, ClientError>),
    Metadata(Vec<Arc<str>>, Asked<MetadataResponse>),
    Group(u64, Option<(BrokerId, Purpose)>, Asked<Answer>),
}

struct Driver {
    shared: Arc<Shared>,
    network: Network,
    tasks: JoinSet<Done>,
}

/// Tells those that wait for the driver that it has ended, however it did.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.state().end();
        self.0.ready.notify_waiters();
    }
}

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>, bootstrap: Vec<String>, options: ClientOptions) {
    let _ending = Ending(shared.clone());
    let mut routes = Routes::follow(&options);
    let network = Network::new(&bootstrap, &options);
    let mut driver = Driver { shared, network, tasks: JoinSet::new() };
    loop {
        let until = driver.turn();
        let shared = driver.shared.clone();
        // Each branch is cancel-safe: a permit stays, a finished task stays in the set, a route in its channel.
        tokio::select! {
            () = shared.wake.notified() => {}
            Some(Ok(done)) = driver.tasks.join_next() => driver.done(done),
            route = routes.next() => {
                let now_ms = shared.now_ms();
                let mut effects = Vec::new();
                {
                    let mut state = shared.state();
                    state.fetcher.route(&route, &mut effects);
                    if let Some(member) = &mut state.member {
                        member.route(&route, now_ms);
                    }
                }
                driver.perform(effects);
            }
            () = tokio::time::sleep_until(Instant::now() + until) => {}
        }
        while let Some(Ok(done)) = driver.tasks.try_join_next() {
            driver.done(done);
        }
    }
}

/// What the cores say is to be done.
struct Said {
    fetches: Vec<Effect>,
    asks: Vec<(u64, Option<Coordinator>, Ask)>,
    /// Addresses of brokers.
    known: Vec<String>,
    /// What joining may take.
    rebalance_max: Duration,
    next_ms: Option<u64>,
}

/// Lets the cores speak, and tells each what concerns it of the other's words.
fn consult(shared: &Shared, now_ms: u64) -> Said {
    let mut state = shared.state();
    let state = &mut *state;
    let mut fetches = Vec::new();
    let mut next_ms = state.fetcher.poll(now_ms, &mut fetches);
    let commit_at_ms = state.commit_unasked(now_ms);
    let mut effects = std::mem::take(&mut state.effects);
    let mut rebalance_ms = 0;
    if let Some(member) = &mut state.member {
        if shared.is_polling.load(Ordering::Relaxed) {
            member.caller_lives(now_ms);
        }
        let member_at_ms = member.poll(state.fetcher.metadata(), now_ms, &mut effects);
        next_ms = [next_ms, commit_at_ms, member_at_ms].into_iter().flatten().min();
        rebalance_ms = member.settings().rebalance_timeout_ms;
    }
    let mut asks = Vec::new();
    for effect in effects {
        match effect {
            group::Effect::Ask { number, to, body } => {
                asks.push((number, to, body));
                continue;
            }
            group::Effect::WatchTopics(topics) => state.fetcher.watch(topics),
            group::Effect::Tell(notice) => state.told(notice),
            group::Effect::Committed(placed) => {
                for (partition, position) in placed {
                    state.fetcher.place(&partition, position);
                }
            }
            group::Effect::CommitDone { token, result } => state.commit_done(token, result),
        }
        // It may give either core something to do.
        shared.wake.notify_one();
    }
    let rebalance_ms = u64::try_from(rebalance_ms).unwrap_or(0);
    Said {
        fetches,
        asks,
        known: state.fetcher.metadata().addresses().map(str::to_owned).collect(),
        rebalance_max: Duration::from_millis(rebalance_ms) + REBALANCE_GRACE,
        next_ms,
    }
}

impl Driver {
    /// Lets the cores say what to do, does it, and says for how long nothing else is due.
    fn turn(&mut self) -> Duration {
        let now_ms = self.shared.now_ms();
        let said = consult(&self.shared, now_ms);
        self.shared.ready.notify_waiters();
        for (number, to, body) in said.asks {
            self.ask(number, to, body, (said.rebalance_max, &said.known));
        }
        self.perform_with(said.fetches, &said.known);
        said.next_ms.map_or(IDLE, |next| Duration::from_millis(next.saturating_sub(now_ms)))
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        let known: Vec<_> = {
            let state = self.shared.state();
            state.fetcher.metadata().addresses().map(str::to_owned).collect()
        };
        self.perform_with(effects, &known);
    }

    fn perform_with(&mut self, effects: Vec<Effect>, known: &[String]) {
        for effect in effects {
            match effect {
                Effect::Connect { broker, slot, address } => {
                    let open = self.network.open(address);
                    self.tasks.spawn(async move { Done::Opened((broker, slot), open.await) });
                }
                Effect::Disconnect(broker) => self.disconnect(broker),
                Effect::Fetch { request, to, body } => {
                    let link = self.link(to);
                    self.tasks.spawn(async move {
                        let answer = match link {
                            Ok(link) => fetch(&link, &body).await,
                            Err(error) => Err(error),
                        };
                        Done::Fetched(request, answer)
                    });
                }
                Effect::ListOffsets { request, broker, body } => {
                    let call = call(self.query_link(broker), body);
                    self.tasks.spawn(async move { Done::Offsets(request, call.await) });
                }
                Effect::CheckEpochs { request, broker, body } => {
                    let call = call(self.query_link(broker), body);
                    self.tasks.spawn(async move { Done::Epochs(request, call.await) });
                }
                Effect::AskMetadata(topics) => {
                    let ask = self.network.ask_metadata(&topics, known.iter().cloned());
                    self.tasks.spawn(async move { Done::Metadata(topics, ask.await) });
                }
            }
        }
    }

    /// Ends all connections to a broker, also the one by which anybody is asked.
    fn disconnect(&mut self, broker: BrokerId) {
        self.network.drop_links(broker);
        let state = self.shared.state();
        if let Some(address) = state.fetcher.metadata().address(broker) {
            self.network.drop_seed_at(address);
        }
    }

    fn link(&self, (broker, slot): (BrokerId, u8)) -> Result<Arc<Connection>, ClientError> {
        let link = self.network.link(broker, Purpose::Records(slot));
        link.cloned().ok_or(ClientError::NoSuchBroker(broker))
    }

    fn query_link(&self, broker: BrokerId) -> Result<Arc<Connection>, ClientError> {
        self.link((broker, client_core::consumer::QUERY_SLOT))
    }

    fn ask(
        &mut self,
        number: u64,
        to: Option<Coordinator>,
        body: Ask,
        (wait, known): (Duration, &[String]),
    ) {
        let Some(coordinator) = to else {
            if let Ask::Find(request) = body {
                let ask = self.network.ask_anyone(request, known.iter().cloned());
                self.tasks.spawn(async move {
                    let found = ask.await.map(|(answer, link)| (Answer::Find(answer), link));
                    Done::Group(number, None, found)
                });
            }
            return;
        };
        let purpose = match &body {
            Ask::Find(_) | Ask::Join(_) | Ask::Sync(_) | Ask::Heartbeat(_) | Ask::Leave(_) => {
                Purpose::Group
            }
            Ask::Commit(_) | Ask::Committed(_) => Purpose::Offsets,
        };
        let link = self.network.link(coordinator.broker, purpose).cloned();
        let open = self.network.open(coordinator.address);
        let key = (coordinator.broker, purpose);
        self.tasks.spawn(async move {
            let asked = async {
                let link = match link {
                    Some(link) => link,
                    None => open.await?,
                };
                let answer = ask(&link, body, wait).await;
                if answer.as_ref().is_err_and(ClientError::spoils_connection) {
                    link.end();
                }
                Ok((answer?, link))
            };
            Done::Group(number, Some(key), asked.await)
        });
    }

    fn done(&mut self, done: Done) {
        let now_ms = self.shared.now_ms();
        let mut state = self.shared.state();
        let state = &mut *state;
        match done {
            Done::Opened((broker, slot), Ok(link)) => {
                self.network.keep(broker, Purpose::Records(slot), link);
                state.fetcher.connected(broker, slot);
            }
            Done::Opened((broker, slot), Err(error)) => {
                tracing::debug!(%broker, %error, "cannot connect");
                state.fetcher.connect_failed(broker, slot, now_ms);
            }
            Done::Fetched(request, answer) => {
                let answer = answer.map_err(|error| {
                    tracing::debug!(%error, "fetch failed");
                    failure(&error)
                });
                state.fetcher.fetched(request, answer, now_ms);
            }
            Done::Offsets(request, answer) => {
                let answer = answer.map_err(|error| failure(&error));
                state.fetcher.offsets_answered(request, answer, now_ms);
            }
            Done::Epochs(request, answer) => {
                let answer = answer.map_err(|error| failure(&error));
                state.fetcher.epochs_answered(request, answer, now_ms);
            }
            Done::Metadata(topics, answer) => {
                let answer = self.network.told(answer, "metadata");
                let has_changed = state.fetcher.metadata_answered(answer, &topics, now_ms);
                if has_changed && let Some(member) = &mut state.member {
                    member.partitions_changed(state.fetcher.metadata(), &mut state.effects);
                }
            }
            Done::Group(number, key, asked) => {
                let answer = match (asked, key) {
                    (Ok((answer, link)), Some((broker, purpose))) => {
                        self.network.keep(broker, purpose, link);
                        Ok(answer)
                    }
                    (asked, None) => self.network.told(asked, "who coordinates the group"),
                    (Err(error), Some(_)) => {
                        tracing::debug!(%error, "the group coordinator was not reached");
                        Err(failure(&error))
                    }
                };
                if let Some(member) = &mut state.member {
                    member.answered(number, answer, now_ms, &mut state.effects);
                }
            }
        }
    }
}

async fn fetch(
    link: &Arc<Connection>,
    request: &FetchRequest,
) -> Result<Vec<PartitionAnswer>, ClientError> {
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let (answer, frame) = link.call_for(request, wait).await.inspect_err(|error| {
        if error.spoils_connection() {
            link.end();
        }
    })?;
    let code = answer.error_code;
    code.into_result().map_err(|code| ClientError::broker("fetch", code, None))?;
    Ok(read(request, answer, &frame))
}

async fn call<R: Request>(
    link: Result<Arc<Connection>, ClientError>,
    request: R,
) -> Result<R::Response, ClientError> {
    link?.call(&request).await
}

async fn ask(link: &Connection, body: Ask, wait: Duration) -> Result<Answer, ClientError> {
    Ok(match body {
        Ask::Find(request) => Answer::Find(link.call(&request).await?),
        Ask::Join(request) => Answer::Join(link.call_for(&request, wait).await?.0),
        Ask::Sync(request) => Answer::Sync(link.call_for(&request, wait).await?.0),
        Ask::Heartbeat(request) => Answer::Heartbeat(link.call(&request).await?),
        Ask::Leave(request) => Answer::Leave(link.call(&request).await?),
        Ask::Commit(request) => Answer::Commit(link.call(&request).await?),
        Ask::Committed(request) => Answer::Committed(link.call(&request).await?),
    })
}
