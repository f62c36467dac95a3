//! The controller's loop: stands for election, feeds `broker_core::controller`, does its effects.
//!
//! Called by: `membership`, for as long as a session lasts. Calls: `election`, `writes`, `describe`.
//! Invariant: every request is answered, at the latest when the session ends; nothing is decided here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use broker_core::controller::message::RequestId;
use broker_core::controller::{Answer, Controller, ControllerConfig, Effect};
use broker_core::ids::{BrokerEpoch, BrokerId, ControllerEpoch, Zxid};
use broker_core::image::{Applied, Image};
use coordinator_client::{Client, Error};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::describe::{self, Described, Question};
use super::election::{self, Outcome};
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
/// How long after its election a controller looks for leaders to bring back.
const FIRST_BALANCE: Duration = Duration::from_secs(5);

/// A request and who waits for its answer.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) ask: Ask,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What the loop needs of its broker.
#[derive(Clone)]
pub(super) struct Seat {
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

/// How leaders are brought back.
#[derive(Clone, Copy, Debug)]
pub struct Balance {
    /// `leader.imbalance.check.interval.seconds`
    pub interval: Duration,
    /// `leader.imbalance.per.broker.percentage`
    pub percentage: u32,
}

/// The loop's state during one session.
pub(super) struct Office {
    seat: Seat,
    client: Client,
    controller: Controller,
    epoch: ControllerEpoch,
    elected_at: Zxid,
    /// Standing again makes sense once the image has reached this.
    stand_after: Zxid,
    writes: Writes,
    describing: JoinSet<Option<Described>>,
    waiting: BTreeMap<RequestId, oneshot::Sender<Answer>>,
    next_request: RequestId,
    effects: Vec<Effect>,
    balance_at: Instant,
}

impl Office {
    pub(super) fn new(seat: Seat, client: Client) -> Self {
        Self {
            controller: Controller::new(seat.config),
            seat,
            epoch: ControllerEpoch::new(0),
            elected_at: Zxid::default(),
            stand_after: Zxid::default(),
            writes: Writes::new(client.clone()),
            client,
            describing: JoinSet::new(),
            waiting: BTreeMap::new(),
            next_request: 0,
            effects: Vec::new(),
            balance_at: Instant::now(),
        }
    }

    /// Runs until the session is over.
    pub(super) async fn run(
        &mut self,
        updates: &mut mpsc::Receiver<Updated>,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Error {
        loop {
            let step = tokio::select! {
                // Receiving is cancel-safe in all arms: what is not taken stays.
                Some(updated) = updates.recv() => self.updated(&updated).await,
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
                () = tokio::time::sleep(TICK) => self.stand_if_vacant().await,
            };
            self.balance_if_due();
            let step = match step {
                Ok(()) => self.work().await,
                Err(error) => Err(error),
            };
            if let Err(error) = step {
                if error.is_session_over() {
                    return error;
                }
                warn!(%error, "the controller leaves its office");
                self.leave().await;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn updated(&mut self, applied: &Applied) -> Result<(), Error> {
        self.controller.image_applied(applied, &mut self.effects);
        let image = &applied.image;
        let holder = image.controller();
        if self.controller.is_elected() {
            let held = holder.is_some_and(|node| node.czxid == self.elected_at);
            if !held && image.complete_to() >= self.elected_at {
                info!("no longer the controller");
                self.controller.deposed(&mut self.effects);
            }
        }
        self.stand_if_vacant().await
    }

    async fn stand_if_vacant(&mut self) -> Result<(), Error> {
        let image = Arc::clone(&self.seat.images.borrow());
        let vacant = image.controller().is_none() && image.complete_to() >= self.stand_after;
        let registered = image.broker(self.seat.broker).map(|broker| broker.epoch);
        let registered = registered.is_some() && registered == *self.seat.epoch.borrow();
        if !registered || self.controller.is_elected() {
            return Ok(());
        }
        if vacant {
            return self.stand().await;
        }
        // An office that was left and not given up, as the connection broke: nobody else can take it while this session lives.
        let holder = image.controller().map(|node| node.broker);
        if holder == Some(self.seat.broker) && image.complete_to() >= self.stand_after {
            election::give_up(&self.client).await?;
        }
        Ok(())
    }

    fn balance_if_due(&mut self) {
        let Some(balance) = self.seat.balance else { return };
        let now = Instant::now();
        if self.controller.is_active() && now >= self.balance_at {
            self.balance_at = now + balance.interval;
            self.controller.balance(balance.percentage, &mut self.effects);
        }
    }

    async fn stand(&mut self) -> Result<(), Error> {
        match election::stand(&self.client, self.seat.broker).await? {
            Outcome::Won(election) => {
                info!(epoch = election.epoch.get(), zxid = election.zxid.get(), "controller");
                self.epoch = election.epoch;
                self.elected_at = election.zxid;
                // Nobody can be in office before us: what shows next is this election.
                self.stand_after = election.zxid;
                self.writes.forget();
                self.balance_at = Instant::now() + FIRST_BALANCE;
                self.controller.elected(election, &mut self.effects);
            }
            Outcome::Lost(zxid) => self.stand_after = zxid,
        }
        Ok(())
    }

    fn ask(&mut self, Request { ask, answer }: Request) {
        self.next_request += 1;
        let request = self.next_request;
        self.waiting.insert(request, answer);
        let (controller, effects) = (&mut self.controller, &mut self.effects);
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
    }

    fn written(&mut self, (id, outcome): Ended) -> Result<(), Error> {
        self.controller.write_done(id, outcome?, &mut self.effects);
        Ok(())
    }

    fn described(&mut self, described: Option<Described>) {
        let Some(Described { broker, epoch, reports }) = described else { return };
        self.controller.described(broker, epoch, &reports, &mut self.effects);
    }

    /// Does what the controller wants done.
    async fn work(&mut self) -> Result<(), Error> {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Write { id, ops } => self.writes.send(id, ops).await,
                Effect::Answer { request, answer } => self.answer(request, answer),
                Effect::Describe { broker, epoch, partitions } => {
                    let controller_epoch = self.epoch;
                    let question = Question { controller_epoch, broker, epoch, partitions };
                    self.describe(question);
                }
                Effect::UncleanElection { topic, partition, leader, leader_epoch, report } => {
                    self.seat.unclean_elections.fetch_add(1, Ordering::Relaxed);
                    error!(
                        %topic, %partition, ?leader, %leader_epoch, ?report,
                        "no eligible replica: electing one that may lack committed records"
                    );
                }
                Effect::Resign => {
                    info!("another controller is in office");
                    election::give_up(&self.client).await?;
                }
            }
        }
        Ok(())
    }

    fn describe(&mut self, question: Question) {
        let (peers, images) = (Arc::clone(&self.seat.peers), self.seat.images.clone());
        let timeout = self.seat.request_timeout;
        self.describing.spawn(describe::ask(peers, images, question, timeout));
    }

    fn answer(&mut self, request: RequestId, answer: Answer) {
        if let Some(waiting) = self.waiting.remove(&request) {
            // Whoever asked may have stopped waiting.
            let _ = waiting.send(answer);
        }
    }

    /// What cannot be told any more is better begun anew, by this broker or another one.
    async fn leave(&mut self) {
        self.controller.deposed(&mut self.effects);
        self.writes.forget();
        self.describing = JoinSet::new();
        for effect in std::mem::take(&mut self.effects) {
            if let Effect::Answer { request, answer } = effect {
                self.answer(request, answer);
            }
        }
        if let Err(error) = election::give_up(&self.client).await {
            warn!(%error, "/controller is not given up");
        }
    }
}
