//! Settings: read from a file and flags, checked once, handed out as typed structs.
//!
//! Called by: the binary, the embedded mode. Calls: TOML, the name service for listener addresses.
//! Invariant: a [`Config`] that exists can be used: every value is in range, every listener is on a loopback address or
//! `insecure` was said.
//! Does not know: sockets, the core's own rules beyond their settings.

mod audit;
mod limits;
mod listeners;
mod names;
mod parse;
mod sasl;
mod tls;
mod zookeeper;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use coordinator_core::ServerId;
use coordinator_core::server as core;

use crate::audit::AuditSettings;
use crate::net::{Gate, Whitelist};
use crate::peers::PeerTls;
use crate::storage::SnapshotSettings;
use crate::tls::Renewal;

pub use names::help;
pub use parse::Values;
pub use sasl::user_names as sasl_user_names;

/// Why settings cannot be used. The text says which and what would do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingError(String);

/// Everything that a server is told at its start.
#[derive(Clone)]
pub struct Config {
    /// Folder of log and snapshots; created when absent.
    pub data_dir: PathBuf,
    /// Where clients connect; port 0 takes any free one.
    pub client_address: SocketAddr,
    /// Where probes connect, if anywhere.
    pub http_address: Option<SocketAddr>,
    /// Which ensemble this is; stands in every file and link.
    pub cluster_id: String,
    /// All members with `host:port` for their links, this one included; empty for a server that stands alone.
    pub members: BTreeMap<ServerId, String>,
    /// What members prove to know.
    pub peer_secret: String,
    /// How members encrypt their links, if they do.
    pub peer_tls: Option<PeerTls>,
    /// Who gets in at the client port.
    pub gate: Gate,
    /// Files for TLS that are read again when they change.
    pub renewals: Vec<Renewal>,
    /// Clients that may be in at once.
    pub connections_max: usize,
    /// Of those, from one address; `None` for all.
    pub connections_per_address_max: Option<usize>,
    /// Which four-letter words are answered.
    pub whitelist: Whitelist,
    /// From which the limits of sessions are derived.
    pub tick_time_ms: u32,
    /// What was set, as text, without what is secret.
    pub settings: Vec<(String, String)>,
    /// Where the audit log goes, if there is one.
    pub audit: Option<AuditSettings>,
    /// How snapshots are written.
    pub snapshots: SnapshotSettings,
    /// What the core is told.
    pub core: core::Config,
}

impl Config {
    /// A server that stands alone on loopback, with defaults for everything else.
    pub fn standalone(data_dir: PathBuf, client_address: SocketAddr) -> Config {
        let mut values = Values::default();
        values.set("dataDir", &data_dir.display().to_string());
        let mut config = parse::config(&values).expect("the defaults are valid");
        config.data_dir = data_dir;
        config.client_address = client_address;
        config
    }

    /// Checks and types `values`.
    ///
    /// # Errors
    /// [`SettingError`] with the name of the setting and what it should be.
    pub fn from_values(values: &Values) -> Result<Config, SettingError> {
        parse::config(values)
    }
}

/// Without what is secret: it may stand in a log.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Named one by one, so that a new field is looked at here.
        let Config {
            data_dir,
            client_address,
            http_address,
            cluster_id,
            members,
            peer_secret: _,
            peer_tls,
            gate,
            renewals: _,
            connections_max,
            connections_per_address_max,
            whitelist,
            tick_time_ms: _,
            settings: _,
            audit,
            snapshots,
            core,
        } = self;
        let mut core = core.clone();
        core.super_digest = core.super_digest.map(|_| "..".to_owned());
        f.debug_struct("Config")
            .field("data_dir", data_dir)
            .field("client_address", client_address)
            .field("http_address", http_address)
            .field("cluster_id", cluster_id)
            .field("members", members)
            .field("peer_tls", peer_tls)
            .field("gate", gate)
            .field("connections_max", connections_max)
            .field("connections_per_address_max", connections_per_address_max)
            .field("whitelist", whitelist)
            .field("audit", audit)
            .field("snapshots", snapshots)
            .field("core", &core)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
