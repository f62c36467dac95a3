//! This broker's membership: one coordinator session after the other, until it is stopped.
//!
//! Called by: the server's start and stop. Calls: everything in this folder.
//! Invariant: a session comes with a registration of its own, and while there is none the broker serves
//! nothing; each registration of this process is a new life to the cluster. The tasks are joined by
//! [`Running::stop`].

use std::sync::Arc;
use std::time::Duration;

use broker_core::controller::ControllerConfig;
use broker_core::hosting::{Telling, Told};
use broker_core::ids::{BrokerEpoch, BrokerId};
use broker_core::image::{BrokerRegistration, Endpoint, Image};
use coordinator_client::{Client, Config, Error};
use thiserror::Error as ThisError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::feed::{Publisher, Updated};
use super::forward::Forward;
use super::handle::Handle;
use super::local::Local;
use super::office::{self, Needs, Office, Request};
use super::peers::Peers;
use super::registration::{Applicant, RegistrationError};
use super::{alters, layout};
use crate::config::{ClusterConfig, CoordinatorAddress};

/// How long after its connection broke a broker's session goes on (safety.md A6).
const FAST_DEATH_GRACE: Duration = Duration::from_millis(200);
/// Between a session that came to no registration and the next.
const PAUSE: Duration = Duration::from_millis(500);

/// Who joins.
#[derive(Clone, Debug)]
pub struct Member {
    /// The broker's number.
    pub broker: BrokerId,
    /// Its rack.
    pub rack: Option<String>,
    /// Where clients and brokers reach it, the public listener first.
    pub endpoints: Vec<Endpoint>,
    /// The coordinator's servers.
    pub coordinator: CoordinatorAddress,
    /// Time-outs.
    pub cluster: ClusterConfig,
    /// What the controller needs, should this broker be it.
    pub controller: ControllerConfig,
}

/// Why this broker did not become a member.
#[derive(Debug, ThisError)]
pub enum StartError {
    /// The registration was refused, or cannot be recorded.
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    /// The task ended.
    #[error("the membership ended before the broker was registered")]
    Ended,
}

/// A membership that is not started yet.
pub struct Membership {
    member: Member,
    handle: Arc<Handle>,
    publisher: Publisher,
    requests: mpsc::Receiver<Request>,
    epoch: watch::Sender<Option<BrokerEpoch>>,
}

/// A membership under way.
pub struct Running {
    stop: watch::Sender<bool>,
    tasks: [JoinHandle<()>; 2],
    ended: watch::Receiver<Option<String>>,
}

/// Makes a membership and the handle to it. Nothing is done yet; `listeners` get every image with what
/// changed, in order.
pub fn prepare(member: Member, listeners: Vec<mpsc::Sender<Updated>>) -> (Arc<Handle>, Membership) {
    let publisher = Publisher::new(listeners);
    let (office, requests) = mpsc::channel(office::REQUESTS_MAX);
    let (epoch, epochs) = watch::channel(None);
    let forward = Forward {
        broker: member.broker,
        images: publisher.images(),
        office,
        peers: Arc::new(Peers::default()),
    };
    let handle = Handle::new(member.cluster.clone(), forward, epochs);
    let handle = Arc::new(handle);
    let membership = Membership { member, handle: Arc::clone(&handle), publisher, requests, epoch };
    (handle, membership)
}

impl Membership {
    /// Joins the cluster: returns when this broker is registered and its image shows it. Waits for a
    /// coordinator as long as it takes.
    ///
    /// # Errors
    /// [`StartError`]: the broker must not serve.
    pub async fn start(self, local: Arc<dyn Local>) -> Result<Running, StartError> {
        let (stop, stopping) = watch::channel(false);
        let (started_sender, started) = oneshot::channel();
        let (ended, has_ended) = watch::channel(None);
        let handle = Arc::clone(&self.handle);
        let mut images = handle.images();
        let altering = alters::run(
            Arc::clone(&handle.alters),
            handle.epoch(),
            handle.forward.clone(),
            Arc::clone(&local),
        );
        let sessions = Sessions {
            member: self.member,
            handle,
            publisher: self.publisher,
            requests: self.requests,
            epoch: self.epoch,
            local,
            started: Some(started_sender),
            is_first: true,
            ended,
        };
        let broker = sessions.member.broker;
        let mut alters_stop = stopping.clone();
        let altering = tokio::spawn(async move {
            tokio::select! {
                // What is under way when the broker stops has no meaning any more.
                () = altering => {}
                _ = alters_stop.wait_for(|stop| *stop) => {}
            }
        });
        let tasks = [tokio::spawn(sessions.run(stopping)), altering];
        let running = Running { stop, tasks, ended: has_ended };
        let epoch = match started.await {
            Ok(Ok(epoch)) => epoch,
            Ok(Err(error)) => {
                running.stop().await;
                return Err(error.into());
            }
            Err(_) => return Err(StartError::Ended),
        };
        let shows = |image: &Arc<Image>| image.broker(broker).is_some_and(|b| b.epoch >= epoch);
        images.wait_for(shows).await.map_err(|_| StartError::Ended)?;
        Ok(running)
    }
}

impl Running {
    /// Why this broker is no member any more and will not be one again by itself; pending until then. Cancel-safe.
    pub async fn ended(&self) -> String {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // It was stopped.
            Err(_) => std::future::pending().await,
        }
    }

    /// Ends the session, and with it the registration, and waits until nothing runs any more.
    pub async fn stop(self) {
        // The task may have ended by itself.
        let _ = self.stop.send(true);
        for task in self.tasks {
            if let Err(error) = task.await {
                error!(%error, "a task of the membership has died");
            }
        }
    }
}

struct Sessions {
    member: Member,
    handle: Arc<Handle>,
    publisher: Publisher,
    requests: mpsc::Receiver<Request>,
    epoch: watch::Sender<Option<BrokerEpoch>>,
    local: Arc<dyn Local>,
    /// Told once, when the partitions have begun for the first time.
    started: Option<oneshot::Sender<Result<BrokerEpoch, RegistrationError>>>,
    /// No registration of this process went through yet.
    is_first: bool,
    /// Why there is no other session after the last one.
    ended: watch::Sender<Option<String>>,
}

impl Sessions {
    async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        loop {
            let client = Client::open(self.coordinator_config());
            let ended = tokio::select! {
                ended = self.session(&client) => Some(ended),
                // A session that is cut short is closed below.
                _ = stopping.wait_for(|stop| *stop) => None,
            };
            self.handle.set_client(None);
            let was_registered = self.epoch.send_replace(None).is_some();
            client.close().await;
            match ended {
                None => return,
                Some(error) => {
                    if self.is_hopeless(error) {
                        return;
                    }
                }
            }
            let pause = if was_registered { Duration::ZERO } else { PAUSE };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopping.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Whether another session would end the same way. A human has to look then.
    fn is_hopeless(&mut self, error: RegistrationError) -> bool {
        let RegistrationError::Coordinator(error) = error else {
            error!(%error, "this broker may not be a member");
            match self.started.take() {
                // The start may have been given up.
                Some(started) => drop(started.send(Err(error))),
                None => drop(self.ended.send_replace(Some(error.to_string()))),
            }
            return true;
        };
        warn!(%error, "the coordinator session has ended; opening another one");
        false
    }

    fn coordinator_config(&self) -> Config {
        let mut config = Config::new(self.member.coordinator.servers.clone());
        config.root.clone_from(&self.member.coordinator.chroot);
        config.tls.clone_from(&self.member.cluster.coordinator_tls);
        config.session_timeout = self.member.cluster.session_timeout;
        config.fast_death_grace = Some(FAST_DEATH_GRACE);
        config
    }

    /// One session, to its end.
    async fn session(&mut self, client: &Client) -> RegistrationError {
        let cluster_id = match layout::found(client).await {
            Ok(cluster_id) => cluster_id,
            Err(error) => return error.into(),
        };
        if let Err(error) = claim(&self.local, cluster_id).await {
            return RegistrationError::Claim(error);
        }
        let mut office_updates = self.publisher.listen();
        let mut local_updates = self.publisher.listen();
        let needs = Needs {
            broker: self.member.broker,
            epoch: self.epoch.subscribe(),
            config: self.member.controller,
            peers: Arc::clone(&self.handle.forward.peers),
            images: self.handle.images(),
            request_timeout: self.member.cluster.request_timeout,
            balance: self.member.cluster.balance,
            unclean_elections: self.handle.unclean_elections(),
        };
        let mut office = Office::new(needs, client.clone());
        let mut epochs = self.epoch.subscribe();
        let life = Life { member: &self.member, local: &self.local, epoch: &self.epoch };
        let (requests, is_first) = (&mut self.requests, &mut self.is_first);
        let (handle, started) = (&self.handle, &mut self.started);
        let serve = |epoch| {
            handle.set_client(Some(client.clone()));
            if let Some(started) = started.take() {
                // The start may have been given up.
                let _ = started.send(Ok(epoch));
            }
        };
        let registered = async {
            if let Err(error) = life.register(client, is_first).await {
                return error;
            }
            office.run(&mut office_updates, requests).await.into()
        };
        tokio::select! {
            error = self.publisher.follow(client) => error.into(),
            error = registered => error,
            () = tell(&self.local, &mut local_updates, &mut epochs, serve) => Error::Closed.into(),
        }
    }
}

/// What a registration needs of the broker.
struct Life<'a> {
    member: &'a Member,
    local: &'a Arc<dyn Local>,
    epoch: &'a watch::Sender<Option<BrokerEpoch>>,
}

impl Life<'_> {
    /// `is_first`: no registration of this process went through before.
    async fn register(
        &self,
        client: &Client,
        is_first: &mut bool,
    ) -> Result<(), RegistrationError> {
        let applicant = Applicant {
            client,
            broker: self.member.broker,
            registration: BrokerRegistration {
                endpoints: self.member.endpoints.clone(),
                rack: self.member.rack.clone(),
                timestamp_ms: office::wall_ms(),
            },
            local: self.local,
            is_first: *is_first,
        };
        let epoch = applicant.register().await?;
        info!(epoch = epoch.get(), "registered");
        *is_first = false;
        self.epoch.send_replace(Some(epoch));
        Ok(())
    }
}

/// Takes the log directories into use for the cluster, before anything is said of them.
async fn claim(local: &Arc<dyn Local>, cluster_id: String) -> std::io::Result<()> {
    let local = Arc::clone(local);
    let claiming = tokio::task::spawn_blocking(move || local.claim(&cluster_id));
    claiming.await.map_err(std::io::Error::other)?
}

/// Tells the partitions what changed, from the moment at which the image shows the registration; until
/// then only what is gone. `serve` hears of each registration under which they have begun: what was led
/// under a former one may be another's by now, so nothing is served before.
pub(super) async fn tell(
    local: &Arc<dyn Local>,
    updates: &mut mpsc::Receiver<Updated>,
    epochs: &mut watch::Receiver<Option<BrokerEpoch>>,
    mut serve: impl FnMut(BrokerEpoch),
) {
    let mut telling = Telling::default();
    let mut last: Option<Updated> = None;
    // There is no image yet that could show it.
    let registered = *epochs.borrow_and_update();
    let _ = registered.map(|epoch| telling.registered(epoch));
    loop {
        let told = tokio::select! {
            // Both are cancel-safe.
            updated = updates.recv() => {
                let Some(updated) = updated else { return };
                let told = telling.image_applied(&updated);
                last = Some(updated);
                told
            }
            changed = epochs.changed() => {
                if changed.is_err() {
                    return;
                }
                epochs.borrow().and_then(|epoch| telling.registered(epoch)).into_iter().collect()
            }
        };
        let Some(last) = &last else { continue };
        for told in told {
            match told {
                Told::Gone => local.drop_gone(last),
                Told::Changes => local.apply(last),
                Told::Begin(epoch) => {
                    local.begin(epoch.zxid(), &last.image);
                    serve(epoch);
                }
            }
        }
    }
}
