//! What a server is told at its start and does not change.
//!
//! Called by: `server`, which makes it; both writers. Calls: the settings.
//! Invariant: nothing secret is in it.
//! Does not know: what the server does.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use coordinator_core::ServerId;

use crate::config::Config;

/// The same for every answer.
#[derive(Debug, Clone)]
pub struct Facts {
    /// This server.
    pub id: ServerId,
    /// Where clients connect without TLS, if they may.
    pub client_address: Option<SocketAddr>,
    /// Where they connect with it, if they can.
    pub secure_client_address: Option<SocketAddr>,
    /// Folder of snapshots.
    pub snapshots: PathBuf,
    /// Folder of the log.
    pub log: PathBuf,
    /// The setting of this name.
    pub tick_time_ms: u32,
    /// Clients from one address; `None` for as many as there is room for.
    pub per_address_max: Option<usize>,
    /// Shortest time-out of sessions.
    pub session_timeout_ms_min: u32,
    /// Longest.
    pub session_timeout_ms_max: u32,
    /// What was set, without what is secret.
    pub settings: Vec<(String, String)>,
    /// When the process began.
    pub began: Instant,
}

impl Facts {
    /// Of a server that clients reach at `bound`.
    pub fn new(config: &Config, bound: SocketAddr) -> Facts {
        let gate = &config.gate;
        let absolute = |folder: &str| {
            let path = config.data_dir.join(folder);
            std::path::absolute(&path).unwrap_or(path)
        };
        Facts {
            id: config.core.id,
            client_address: (!gate.only_tls).then_some(bound),
            secure_client_address: gate.tls.is_some().then_some(bound),
            snapshots: absolute("snapshots"),
            log: absolute("log"),
            tick_time_ms: config.tick_time_ms,
            per_address_max: config.connections_per_address_max,
            session_timeout_ms_min: config.core.session_timeout_ms_min,
            session_timeout_ms_max: config.core.session_timeout_ms_max,
            settings: config.settings.clone(),
            began: Instant::now(),
        }
    }

    /// As ZooKeeper shows ports: -1 for none.
    pub fn client_port(&self) -> i32 {
        port(self.client_address)
    }

    /// The same of the port for TLS, which here is the other one.
    pub fn secure_client_port(&self) -> i32 {
        port(self.secure_client_address)
    }

    /// Since the process began.
    pub fn uptime_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn port(address: Option<SocketAddr>) -> i32 {
    address.map_or(-1, |address| i32::from(address.port()))
}

/// A path for people.
pub fn shown(path: &Path) -> String {
    path.display().to_string()
}
