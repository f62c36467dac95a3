//! One server: its sockets, its core, its disk.
//!
//! Called by: the binary and the embedded mode. Calls: every other part, once.
//! Invariant: nothing is answered before the data folder was read back and locked; after [`Server::run`] no socket,
//! thread or lock is left.
//! Does not know: flags, signals.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coordinator_core::server as core;
use coordinator_disk::Disk;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::info;

use crate::admin::{Desk, Facts};
use crate::audit::{AuditCounts, AuditLog, AuditSettings};
use crate::clock::Clock;
use crate::config::Config;
use crate::core_loop::{CoreLoop, INPUTS_MAX, Input, LoopEnd};
use crate::disk_room;
use crate::http::{self, Probed};
use crate::net::{ClientListener, Gate, Limits, RequestLimits, Whitelist};
use crate::peers::{self, Ensemble};
use crate::roster::Roster;
use crate::storage::{self, Opened, RoomGauge, SnapshotTimes, Storage, StorageError, SyncTimes};
use crate::tls::{self, Renewal, RenewalCounts};

/// How long a leader may take to hand its office over when it stops.
const RESIGN_MS_MAX: u64 = 1_000;
/// Files of others that are named at a start; of more their number is told.
const FOREIGN_TOLD_MAX: usize = 20;

/// Why a server does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The data folder cannot be used.
    #[error("data folder: {0}{next}", next = next_for(.0))]
    Storage(StorageError),
    /// What the data folder holds cannot be continued.
    #[error("data folder: {0}")]
    Restore(String),
    /// A socket cannot be had.
    #[error("cannot listen on {address} ({what}): {error}")]
    Bind {
        /// Whose socket.
        what: &'static str,
        /// Where.
        address: String,
        /// The system's words.
        error: io::Error,
    },
    /// The audit log cannot be written.
    #[error("audit.file {path}: {error}")]
    Audit {
        /// Its file.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// The server can never vote or answer again in this life.
    #[error("stopped: {0}")]
    Halted(&'static str),
}

/// Where to go with a damaged folder, unless the error says it.
fn next_for(error: &StorageError) -> &'static str {
    let is_told = error.to_string().contains("coordinator repair");
    match error.is_damage() && !is_told {
        true => {
            "; `tidegate coordinator repair`, or `coordinator repair`, with this server's --config says what can be done"
        }
        false => "",
    }
}

// No source of its own: its words are in the text already, and whoever prints the chain would repeat them.
impl From<StorageError> for ServerError {
    fn from(error: StorageError) -> ServerError {
        ServerError::Storage(error)
    }
}

/// Where a server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// For clients.
    pub client: SocketAddr,
    /// For other members.
    pub peer: Option<SocketAddr>,
    /// For probes.
    pub http: Option<SocketAddr>,
}

/// A server that is ready to run.
pub struct Server {
    client: TcpListener,
    peer: Option<TcpListener>,
    http: Option<TcpListener>,
    ensemble: Ensemble,
    gate: Gate,
    limits: Limits,
    facts: Facts,
    whitelist: Whitelist,
    requests: RequestLimits,
    core_loop: CoreLoop,
    room_gauge: RoomGauge,
    sync_times: Arc<SyncTimes>,
    snapshot_times: Arc<SnapshotTimes>,
    audit_counts: Option<Arc<AuditCounts>>,
    renewals: Vec<Renewal>,
    stored: mpsc::UnboundedReceiver<core::Event>,
}

impl Server {
    /// Reads the data folder back and binds the sockets. Nothing is answered before [`Server::run`].
    ///
    /// # Errors
    /// Every [`ServerError`] but `Halted`.
    pub async fn bind(config: Config, disk: Arc<dyn Disk>) -> Result<Server, ServerError> {
        let owner = storage::Owner {
            cluster_id: config.cluster_id.clone(),
            server_id: config.core.id.get(),
        };
        let (opened, restored) = storage::open(disk.clone(), &config.data_dir, owner)?;
        tell(&opened, &config.data_dir);
        let beginnings = opened.beginnings();
        let client = listen("clientPort", config.client_address.to_string()).await?;
        let own_id = config.core.id;
        let peer = match config.members.get(&own_id) {
            // Who has a secret may be one of several by the log, whomever the file names.
            Some(address) if config.members.len() > 1 || !config.peer_secret.is_empty() => {
                Some(listen("server.N", address.clone()).await?)
            }
            _ => None,
        };
        let http = match config.http_address {
            Some(address) => Some(listen("httpPort", address.to_string()).await?),
            None => None,
        };
        let bound = client.local_addr().unwrap_or(config.client_address);
        let facts = Facts::new(&config, bound);
        let (roster, others) = Roster::new(own_id, config.members, peer.is_some());
        let ensemble = Ensemble {
            cluster_id: config.cluster_id,
            secret: config.peer_secret,
            tls: config.peer_tls,
            own_id,
            others,
            takes_unknown: config.core.reconfig_enabled,
            beginnings,
        };
        let mut settings = config.core;
        settings.seed = seed()?;
        let requests = RequestLimits::up_to(settings.request_bytes_max);
        let core = core::Server::new(settings, restored)
            .map_err(|error| ServerError::Restore(error.to_string()))?;
        let (events, stored) = mpsc::unbounded_channel();
        let (room_gauge, sync_times, snapshot_times) = opened.gauges();
        let storage =
            Storage::start(opened, config.snapshots, events).map_err(ServerError::Thread)?;
        let audit = config.audit.map(|settings| start_audit(disk, settings)).transpose()?;
        let audit_counts = audit.as_ref().map(AuditLog::counts);
        let core_loop = CoreLoop::new(core, Clock::new(), storage, roster).with_audit(audit);
        let limits = Limits {
            clients_max: config.connections_max,
            per_address_max: config.connections_per_address_max,
        };
        Ok(Server {
            client,
            peer,
            http,
            ensemble,
            gate: config.gate,
            limits,
            facts,
            whitelist: config.whitelist,
            requests,
            core_loop,
            room_gauge,
            sync_times,
            snapshot_times,
            audit_counts,
            renewals: config.renewals,
            stored,
        })
    }

    /// Where it listens, with the ports that the system chose.
    ///
    /// # Errors
    /// When the system does not know.
    pub fn addresses(&self) -> io::Result<Addresses> {
        let of = |listener: &Option<TcpListener>| {
            listener.as_ref().map(TcpListener::local_addr).transpose()
        };
        Ok(Addresses {
            client: self.client.local_addr()?,
            peer: of(&self.peer)?,
            http: of(&self.http)?,
        })
    }

    /// Serves until `stop` is done, then hands over and stops.
    ///
    /// # Errors
    /// [`ServerError::Halted`] when the server can no longer take part, by itself or by a failed disk.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), ServerError> {
        let (inputs, waiting) = mpsc::channel(INPUTS_MAX);
        let (end, ended) = oneshot::channel();
        let mut tasks = JoinSet::new();
        let desk = Desk::new(inputs.clone(), self.facts, self.sync_times, self.whitelist);
        let desk = Arc::new(desk);
        let beginnings = Arc::clone(&self.ensemble.beginnings);
        let too_large = Arc::clone(&self.requests.too_large);
        let (limits, gate, requests) = (self.limits, self.gate, self.requests);
        let clients = ClientListener::new(self.client, limits, gate, requests, Arc::clone(&desk));
        tasks.spawn(clients.run());
        if let Some(listener) = self.peer {
            tasks.spawn(peers::run(listener, self.ensemble, inputs.clone()));
        }
        let tls_renewals = start_renewals(self.renewals, &mut tasks);
        if let Some(listener) = self.http {
            let probed = Probed {
                desk,
                snapshot_times: self.snapshot_times,
                audit_counts: self.audit_counts,
                beginnings,
                too_large,
                tls_renewals,
            };
            tasks.spawn(http::run(listener, probed));
        }
        tasks.spawn(disk_room::run(self.room_gauge, inputs.clone()));
        let core = self.core_loop.run(waiting, self.stored, ended);
        tokio::pin!(core);
        let outcome = tokio::select! {
            outcome = &mut core => outcome,
            () = stop => {
                info!("stopping");
                let resign = async {
                    // The core's task ends only by `end`, or for a reason that the other arm sees.
                    let _ = inputs.send(Input::Event(core::Event::Resign)).await;
                    wait_for_handover(&inputs).await;
                    let _ = end.send(());
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    outcome = &mut core => outcome,
                    () = resign => LoopEnd::Stopped,
                }
            }
        };
        tasks.shutdown().await;
        match outcome {
            LoopEnd::Stopped => Ok(()),
            LoopEnd::Halted(reason) => Err(ServerError::Halted(reason)),
        }
    }
}

/// `None` where no files are followed.
fn start_renewals(renewals: Vec<Renewal>, tasks: &mut JoinSet<()>) -> Option<Arc<RenewalCounts>> {
    if renewals.is_empty() {
        return None;
    }
    let counts = Arc::new(RenewalCounts::default());
    tasks.spawn(tls::renew(renewals, Arc::clone(&counts)));
    Some(counts)
}

/// Returns when another member leads, there is none, or it took long enough.
async fn wait_for_handover(inputs: &crate::core_loop::Inputs) {
    let handover = async {
        while let Some(status) = crate::admin::status(inputs).await {
            if status.mode != core::Mode::Leader {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let limit = std::time::Duration::from_millis(RESIGN_MS_MAX);
    let _ = tokio::time::timeout(limit, handover).await;
}

/// Nothing in a data folder comes or goes without a word.
fn tell(opened: &Opened, folder: &Path) {
    let findings = opened.findings();
    if let Some(checksum) = opened.beginnings().own() {
        info!(%checksum, "this server began with a state that was imported or restored");
    }
    if findings.begins {
        info!(dataDir = %folder.display(), "no log is here, nor ever was: it begins with nothing");
    }
    for path in &findings.removed {
        info!(path = %path.display(), "removed what a stop had left unfinished");
    }
    for path in findings.foreign.iter().take(FOREIGN_TOLD_MAX) {
        info!(path = %path.display(), "no file of ours: left alone");
    }
    if let Some(more) = findings.foreign.len().checked_sub(FOREIGN_TOLD_MAX + 1) {
        info!(count = more + 1, "more files that are not ours: left alone");
    }
}

fn start_audit(disk: Arc<dyn Disk>, settings: AuditSettings) -> Result<AuditLog, ServerError> {
    let path = settings.path.clone();
    AuditLog::start(disk, settings).map_err(|error| ServerError::Audit { path, error })
}

async fn listen(what: &'static str, address: String) -> Result<TcpListener, ServerError> {
    TcpListener::bind(&address).await.map_err(|error| ServerError::Bind { what, address, error })
}

/// Makes election jitter differ between members and lives.
fn seed() -> Result<u64, ServerError> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| ServerError::Thread(error.into()))?;
    Ok(u64::from_le_bytes(bytes))
}
