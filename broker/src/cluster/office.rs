//! The controller's loop: feeds `broker_core::controller` and does its effects.
//!
//! Called by: `membership`, for as long as a session lasts. Calls: `asking`, `writes`, `describe`.
//! Invariant: every request is answered, at the latest when the session ends; nothing is decided here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use broker_core::controller::message::RequestId;
use broker_core::controller::{Answer, Balance, ControllerConfig, Effect, Seat, Sitter};
use broker_core::ids::{BrokerEpoch, BrokerId, ControllerEpoch, Millis};
use broker_core::image::{Applied, Image, path};
use broker_core::store;
use coordinator_client::{Client, Error};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::asking::{self, Answered};
use super::describe::{self, Described, Question};
use super::feed::Updated;
use super::peers::Peers;
use super::requests::Ask;
use super::writes::{Ended, Writes};

/// How many requests may wait for the loop; more are refused.
pub(super) const REQUESTS_MAX: usize = 1024;
/// Between two attempts to stand after an error.
const PAUSE: Duration = Duration::from_millis(200);
/// How often the office is looked at without anything happening.
const TICK: Duration = Duration::from_secs(1);

/// A request and who waits for its answer.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) ask: Ask,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What the loop needs of its broker.
#[derive(Clone)]
pub(super) struct Needs {
    pub(super) broker: BrokerId,
    /// This broker's registration; another one of the same number is another process.
    pub(super) epoch: watch::Receiver<Option<BrokerEpoch>>,
    pub(super) config: ControllerConfig,
    pub(super) peers: Arc<Peers>,
    pub(super) images: watch::Receiver<Arc<Image>>,
    pub(super) request_timeout: Duration,
    /// When leaders are brought back by themselves.
    pub(super) balance: Option<Balance>,
    /// Counts them for the metrics.
    pub(super) unclean_elections: Arc<AtomicU64>,
}

/// The loop's state during one session.
pub(super) struct Office {
    needs: Needs,
    client: Client,
    seat: Seat,
    began: Instant,
    epoch: ControllerEpoch,
    writes: Writes,
    describing: JoinSet<Option<Described>>,
    waiting: BTreeMap<RequestId, oneshot::Sender<Answer>>,
    next_request: RequestId,
    effects: VecDeque<Effect>,
}

impl Office {
    pub(super) fn new(needs: Needs, client: Client) -> Self {
        Self {
            seat: Seat::new(needs.config, needs.balance),
            needs,
            began: Instant::now(),
            epoch: ControllerEpoch::new(0),
            writes: Writes::new(client.clone()),
            client,
            describing: JoinSet::new(),
            waiting: BTreeMap::new(),
            next_request: 0,
            effects: VecDeque::new(),
        }
    }

    /// Runs until the session is over. It has a registration.
    pub(super) async fn run(
        &mut self,
        updates: &mut mpsc::Receiver<Updated>,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Error {
        if let Err(error) = self.sit_down().await {
            return error;
        }
        loop {
            let step = tokio::select! {
                // Receiving is cancel-safe in all arms: what is not taken stays.
                Some(updated) = updates.recv() => {
                    self.updated(&updated);
                    Ok(())
                }
                Some(request) = requests.recv() => {
                    self.ask(request);
                    Ok(())
                }
                ended = self.writes.next() => self.written(ended),
                Some(described) = self.describing.join_next() => {
                    self.described(described.ok().flatten());
                    Ok(())
                }
                // Made anew in each round.
                () = tokio::time::sleep(TICK) => Ok(()),
            };
            self.tick();
            let step = match step {
                Ok(()) => self.work().await,
                Err(error) => Err(error),
            };
            if let Err(error) = step {
                if error.is_session_over() {
                    return error;
                }
                warn!(%error, "the controller leaves its office");
                self.leave();
                // Nobody else can be in office before this one is given up. What fails of it is tried again.
                if let Err(error) = self.work().await
                    && error.is_session_over()
                {
                    return error;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn sit_down(&mut self) -> Result<(), Error> {
        let session = asking::session_id(self.client.connected().await?);
        let epoch = *self.needs.epoch.borrow();
        self.tick();
        if let Some(epoch) = epoch {
            let sitter = Sitter { broker: self.needs.broker, session, epoch };
            self.step(|seat, effects| seat.registered(sitter, effects));
        }
        Ok(())
    }

    fn step(&mut self, act: impl FnOnce(&mut Seat, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        act(&mut self.seat, &mut effects);
        self.effects.extend(effects);
    }

    fn updated(&mut self, applied: &Applied) {
        self.step(|seat, effects| seat.image_applied(applied, effects));
    }

    fn tick(&mut self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.step(|seat, effects| seat.tick(Millis::new(now), wall_ms(), effects));
    }

    fn ask(&mut self, Request { ask, answer }: Request) {
        self.next_request += 1;
        let request = self.next_request;
        self.waiting.insert(request, answer);
        self.step(|seat, effects| {
            let controller = seat.controller_mut();
            match ask {
                Ask::Create { topics, validate_only } => {
                    controller.create_topics(request, topics, validate_only, effects);
                }
                Ask::Grow { wishes, validate_only } => {
                    controller.create_partitions(request, wishes, validate_only, effects);
                }
                Ask::Delete { names } => controller.delete_topics(request, names, effects),
                Ask::Elect { kind, asked } => {
                    controller.elect_leaders(request, kind, asked, effects);
                }
                Ask::Alter(alter) => controller.alter_partitions(request, alter, effects),
                Ask::ShutDown { broker, epoch } => {
                    controller.controlled_shutdown(request, broker, epoch, effects);
                }
            }
        });
    }

    fn written(&mut self, (id, outcome): Ended) -> Result<(), Error> {
        let outcome = outcome?;
        self.step(|seat, effects| seat.controller_mut().write_done(id, outcome, effects));
        Ok(())
    }

    fn described(&mut self, described: Option<Described>) {
        let Some(Described { broker, epoch, reports }) = described else { return };
        self.step(|seat, effects| {
            seat.controller_mut().described(broker, epoch, &reports, effects);
        });
    }

    /// Does what the controller wants done; what an error leaves undone stays.
    async fn work(&mut self) -> Result<(), Error> {
        while let Some(effect) = self.effects.pop_front() {
            match effect {
                Effect::Ask(ask) => self.ask_ensemble(ask).await?,
                Effect::Write { id, ops } => self.writes.send(id, ops).await,
                Effect::Answer { request, answer } => self.answer(request, answer),
                Effect::Describe { broker, epoch, partitions } => {
                    let controller_epoch = self.epoch;
                    let question = Question { controller_epoch, broker, epoch, partitions };
                    self.describe(question);
                }
                Effect::UncleanElection { topic, partition, leader, leader_epoch, report } => {
                    self.needs.unclean_elections.fetch_add(1, Ordering::Relaxed);
                    error!(
                        %topic, %partition, ?leader, %leader_epoch, ?report,
                        "no eligible replica: electing one that may lack committed records"
                    );
                }
                Effect::Won(election) => {
                    info!(epoch = election.epoch.get(), zxid = election.zxid.get(), "controller");
                    self.epoch = election.epoch;
                    self.writes.forget();
                }
                Effect::Resign => info!("no longer the controller"),
                Effect::EpochMissing => error!(
                    path = path::CONTROLLER_EPOCH,
                    "it is not there, so nobody can be controller: create it with the greatest epoch that a state has"
                ),
            }
        }
        Ok(())
    }

    async fn ask_ensemble(&mut self, ask: store::Ask) -> Result<(), Error> {
        match asking::ask(&self.client, ask).await {
            Ok(Answered::Found(nodes, zxid)) => {
                self.step(|seat, effects| seat.found(&nodes, zxid, effects));
            }
            Ok(Answered::Written(outcome)) => {
                self.step(|seat, effects| seat.written(outcome, effects));
            }
            Err(error) => {
                self.seat.put_off();
                return Err(error);
            }
        }
        Ok(())
    }

    fn describe(&mut self, question: Question) {
        let (peers, images) = (Arc::clone(&self.needs.peers), self.needs.images.clone());
        let timeout = self.needs.request_timeout;
        self.describing.spawn(describe::ask(peers, images, question, timeout));
    }

    fn answer(&mut self, request: RequestId, answer: Answer) {
        if let Some(waiting) = self.waiting.remove(&request) {
            // Whoever asked may have stopped waiting.
            let _ = waiting.send(answer);
        }
    }

    /// What cannot be told any more is better begun anew, by this broker or another one. Who waits is answered now.
    fn leave(&mut self) {
        // Of what the lost office still wanted only the answers have a meaning.
        self.effects.retain(|effect| matches!(effect, Effect::Answer { .. }));
        self.step(Seat::leave);
        self.writes.forget();
        self.describing = JoinSet::new();
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Answer { request, answer } => self.answer(request, answer),
                other => self.effects.push_back(other),
            }
        }
    }
}

/// What humans read in `/controller` and `/brokers/ids/N`; nothing is decided by it.
pub(super) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
