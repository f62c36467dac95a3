//! The broker as a whole: what is started in which order, and stopped in the reverse.
//!
//! Called by: `main`, tests. Calls: everything else in this package. Invariant: addresses are bound
//! first (a taken port fails early), logs are recovered before the broker registers, and it serves
//! before it says so. A stop moves leaders away, answers what is on its way, closes the logs, and
//! only then ends the session.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use broker_core::controller::ControllerConfig;
use broker_core::ids::TopicPartition;
use broker_core::image::Endpoint as RegisteredEndpoint;
use broker_core::partition::AlterRequest;
use bytes::BytesMut;
use client_protocol::api::Scope;
use client_protocol::{BrokerId, LeaderEpoch};
use coordinator_disk::{Disk, RealDisk};
use tokio::runtime::Handle as Runtime;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tracing::{error, info, warn};

use crate::api::{Api, Reach, Session, Shared};
use crate::cluster::{self, Handle, Member, Running};
use crate::config::{Config, Endpoint, INTERNAL_LISTENER, ListenersConfig, PUBLIC_LISTENER};
use crate::embedded::EmbeddedCoordinator;
use crate::groups::Groups;
use crate::http::{Http, Probes};
use crate::metrics::{Metrics, Sources};
use crate::net::budget::Limits;
use crate::net::listener::Listener;
use crate::net::service::Service;
use crate::partitions::{Outlet, Partitions};
use crate::replica::Fetchers;
use crate::response::Dispatch;

/// Replicas of a topic whose creator names no number, where there are enough brokers.
const REPLICATION_FACTOR_DEFAULT: i16 = 3;
/// How long a scrape waits for other brokers to tell where their partitions end.
const WATERMARKS_WAIT: Duration = Duration::from_secs(1);

/// Where a server can be reached.
#[derive(Clone, Copy, Debug)]
pub struct BoundAddresses {
    /// Clients.
    pub public: SocketAddr,
    /// Brokers.
    pub internal: SocketAddr,
    /// /live, /ready and /metrics.
    pub http: Option<SocketAddr>,
}

/// A running broker.
pub struct Server {
    addresses: BoundAddresses,
    embedded: Option<EmbeddedCoordinator>,
    moves_leaders: bool,
    handle: Arc<Handle>,
    membership: Running,
    partitions: Arc<Partitions>,
    outlets: Arc<Outlets>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Sockets that are bound and not served yet.
struct Bound {
    public: Listener,
    internal: Listener,
    http: Option<Http>,
    addresses: BoundAddresses,
}

impl Service for Api {
    type Session = Session;

    fn open(&self, peer: SocketAddr, local: SocketAddr) -> Session {
        Self::open(self, peer, local)
    }

    fn dispatch(&self, session: &mut Session, frame: BytesMut) -> Dispatch {
        Self::dispatch(self, session, frame)
    }
}

/// Where the partitions' wishes go. Called under their locks: only notes and wakes.
struct Outlets {
    fetchers: Fetchers,
    handle: Arc<Handle>,
    failed: watch::Sender<Option<String>>,
}

impl Outlet for Outlets {
    fn fetch_from(&self, partition: TopicPartition, leader: BrokerId, _: LeaderEpoch) {
        self.fetchers.fetch_from(partition, leader);
    }

    fn stop_fetching(&self, partition: TopicPartition) {
        self.fetchers.stop_fetching(partition);
    }

    fn report_progress(&self, partition: TopicPartition) {
        self.fetchers.report_progress(partition);
    }

    fn alter(&self, request: AlterRequest) {
        self.handle.alter(request);
    }

    fn directory_failed(&self, path: &Path, reason: &str) {
        error!("the log directory {} has failed: {reason}", path.display());
        self.failed.send_replace(Some(format!("{}: {reason}", path.display())));
    }
}

impl Server {
    /// Starts a broker; returns when it is registered and serves.
    ///
    /// # Errors
    /// What kept it from starting, with its context.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let (stop, stopping) = watch::channel(false);
        let bound = bind(&config.listeners).await?;
        let addresses = bound.addresses;
        let embedded = start_coordinator(&config).await?;
        let member = member(&config, &addresses, embedded.as_ref())?;
        let coordinator = member.coordinator.servers.join(",");
        let (handle, membership) = cluster::prepare(member, Vec::new());
        let outlets = Arc::new(Outlets {
            fetchers: Fetchers::new(Runtime::current()),
            handle: Arc::clone(&handle),
            failed: watch::Sender::new(None),
        });
        let partitions = open_partitions(&config, Arc::clone(&outlets) as Arc<dyn Outlet>).await?;
        let images = handle.images();
        let id = config.broker_id;
        outlets.fetchers.begin(id, Arc::clone(&partitions), images.clone(), config.replica);
        info!(coordinator, "joining the cluster");
        let membership = membership.start(Arc::clone(&partitions) as _).await?;
        let groups = Groups::new(id, config.groups.shard, Arc::clone(&partitions), images.clone());
        let reach = Reach {
            image: images,
            partitions: Arc::clone(&partitions),
            groups: Arc::clone(&groups),
            cluster: Arc::clone(&handle) as _,
            contacts: outlets.fetchers.contacts(),
            traffic: Arc::default(),
        };
        let shared = Arc::new(Shared::new(id, config.api, reach));
        let mut tasks = JoinSet::new();
        tasks.spawn(groups.run(stopping.clone()));
        serve(bound, shared, &handle, config.listeners.limits, &stopping, &mut tasks);
        Ok(Self {
            addresses,
            moves_leaders: config.cluster.controlled_shutdown && embedded.is_none(),
            embedded,
            handle,
            membership,
            partitions,
            outlets,
            stop,
            tasks,
        })
    }

    /// Where it can be reached.
    pub fn addresses(&self) -> BoundAddresses {
        self.addresses
    }

    /// Waits until a log directory fails, or the cluster does not want this broker any more; yields why. The broker should then be stopped: what it
    /// holds cannot be relied upon, or nobody asks for it.
    pub async fn failed(&self) -> String {
        let mut failed = self.outlets.failed.subscribe();
        let failed = async {
            match failed.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone().unwrap_or_default(),
                // The sender lives as long as this server.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            // Both are cancel-safe. A failing directory also ends the membership: it is the cause.
            biased;
            reason = failed => format!("a log directory has failed: {reason}"),
            reason = self.membership.ended() => format!("no member of the cluster any more: {reason}"),
        }
    }

    /// Stops in order; returns when nothing of it runs any more.
    pub async fn stop(mut self) {
        let healthy = self.outlets.failed.borrow().is_none();
        if self.moves_leaders && healthy {
            // A follower that goes on fetching would be taken back into the in-sync replicas.
            self.outlets.fetchers.stop().await;
            if !self.handle.shut_down().await {
                warn!("stopping although this broker still leads partitions");
            }
        }
        // Every receiver may be gone already: then there is nobody to tell.
        let _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
        self.outlets.fetchers.stop().await;
        let partitions = Arc::clone(&self.partitions);
        if let Err(error) = spawn_blocking(move || partitions.stop()).await {
            error!("the logs were not closed in order: {error}");
        }
        self.membership.stop().await;
        if let Some(embedded) = self.embedded
            && let Ok(Err(error)) = spawn_blocking(move || embedded.stop()).await
        {
            error!("the coordinator had ended by itself: {error}");
        }
        info!("stopped");
    }
}

async fn bind(config: &ListenersConfig) -> anyhow::Result<Bound> {
    let public = Listener::bind(PUBLIC_LISTENER, config.public)
        .await
        .with_context(|| format!("cannot listen on {}", config.public))?;
    let internal = Listener::bind(INTERNAL_LISTENER, config.internal)
        .await
        .with_context(|| format!("cannot listen on {}", config.internal))?;
    let http = match config.http {
        Some(address) => {
            Some(Http::bind(address).await.with_context(|| format!("cannot listen on {address}"))?)
        }
        None => None,
    };
    let addresses = BoundAddresses {
        public: public.local_address(),
        internal: internal.local_address(),
        http: http.as_ref().map(Http::local_address).transpose()?,
    };
    Ok(Bound { public, internal, http, addresses })
}

fn serve(
    bound: Bound,
    shared: Arc<Shared>,
    handle: &Arc<Handle>,
    limits: Limits,
    stopping: &watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) {
    if let Some(http) = bound.http {
        let (epoch, asked) = (handle.epoch(), Arc::clone(handle));
        let open = [&bound.public, &bound.internal];
        let metrics = Metrics::new(Sources {
            broker_id: shared.broker_id,
            image: shared.image.clone(),
            partitions: Arc::clone(&shared.partitions),
            traffic: Arc::clone(&shared.traffic),
            connections: open.map(|socket| (socket.name(), socket.open_connections())).to_vec(),
            groups: Arc::clone(&shared.groups),
            remote: Box::new(move |wanted| asked.latest_offsets(wanted, WATERMARKS_WAIT)),
            unclean_elections: handle.unclean_elections(),
        });
        let metrics = Arc::new(metrics);
        let probes = Probes {
            ready: Box::new(move || epoch.borrow().is_some()),
            metrics: Box::new(move || {
                let metrics = Arc::clone(&metrics);
                Box::pin(async move { metrics.text().await })
            }),
        };
        tasks.spawn(http.run(probes, stopping.clone()));
    }
    let clients = Arc::new(Api::new(Scope::Public, Arc::clone(&shared)));
    let brokers = Arc::new(Api::new(Scope::InterBroker, shared));
    tasks.spawn(bound.public.run(clients, limits, stopping.clone()));
    tasks.spawn(bound.internal.run(brokers, limits, stopping.clone()));
}

async fn start_coordinator(config: &Config) -> anyhow::Result<Option<EmbeddedCoordinator>> {
    if config.cluster.coordinator.is_some() {
        return Ok(None);
    }
    let folder = config.cluster.embedded_dir.clone();
    let shown = folder.display().to_string();
    let started = spawn_blocking(move || EmbeddedCoordinator::start(folder)).await?;
    let embedded = started.with_context(|| format!("cannot run a coordinator in {shown}"))?;
    info!(address = embedded.address().servers.join(","), "a coordinator runs inside this process");
    Ok(Some(embedded))
}

async fn open_partitions(
    config: &Config,
    outlet: Arc<dyn Outlet>,
) -> anyhow::Result<Arc<Partitions>> {
    let (settings, id) = (config.partitions.clone(), config.broker_id);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let opened = spawn_blocking(move || Partitions::open(settings, id, &disk, outlet)).await?;
    Ok(opened?)
}

fn member(
    config: &Config,
    addresses: &BoundAddresses,
    embedded: Option<&EmbeddedCoordinator>,
) -> anyhow::Result<Member> {
    let listeners = &config.listeners;
    let coordinator = embedded.map(EmbeddedCoordinator::address);
    let coordinator = coordinator.or_else(|| config.cluster.coordinator.clone());
    let default_factor = config.api.replication_factor.unwrap_or(REPLICATION_FACTOR_DEFAULT);
    Ok(Member {
        broker: config.broker_id,
        rack: config.rack.clone(),
        endpoints: vec![
            registered(PUBLIC_LISTENER, listeners.advertised_public.as_ref(), addresses.public),
            registered(
                INTERNAL_LISTENER,
                listeners.advertised_internal.as_ref(),
                addresses.internal,
            ),
        ],
        coordinator: coordinator.context("there is no coordinator to join")?,
        cluster: config.cluster.clone(),
        controller: ControllerConfig {
            partitions: config.api.partitions_default,
            replication_factor: default_factor,
            unclean: config.cluster.unclean,
            #[cfg(planted)]
            planted: None,
        },
    })
}

/// A listener as others are told of it: the port of an advertised address that leaves it open is
/// the bound one.
fn registered(name: &str, advertised: Option<&Endpoint>, bound: SocketAddr) -> RegisteredEndpoint {
    let endpoint = advertised.cloned().unwrap_or_else(|| Endpoint::from(bound));
    let port = if endpoint.port == 0 { bound.port() } else { endpoint.port };
    RegisteredEndpoint {
        listener: name.to_owned(),
        protocol: PUBLIC_LISTENER.to_owned(),
        host: endpoint.host,
        port,
    }
}
