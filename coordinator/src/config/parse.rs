//! From text to a [`Config`].
//!
//! Called by: `config`. Calls: TOML, the table of names.
//! Invariant: nothing is guessed: an unknown name, a value of the wrong kind or a contradiction is an error.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

use coordinator_core::ServerId;
use coordinator_core::members::{Member, MemberIds, Members, Role};
use coordinator_core::server as core;
use coordinator_core::watch::{WATCHED_PATHS_MAX, WatchLimits};

use super::listeners::{self, Served};
use super::names::{MEMBER_PREFIX, find, is_secret, nearest};
use super::zookeeper::{instead_of, told_of_file};
use super::{Config, SettingError};
use super::{audit, limits, sasl, tls};
use crate::net::Whitelist;
use crate::storage::{Packing, SnapshotSettings};

/// Settings by name, as text; later ones replace earlier ones.
#[derive(Clone, Default)]
pub struct Values {
    texts: BTreeMap<String, String>,
}

/// The names alone: some of the texts are secret.
impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.texts.keys()).finish()
    }
}

impl Values {
    /// Sets one; names are checked by [`Config::from_values`].
    pub fn set(&mut self, name: &str, text: &str) {
        self.texts.insert(name.to_owned(), text.to_owned());
    }

    /// Adds those of a TOML text; tables become dotted names.
    ///
    /// # Errors
    /// When it is not TOML, or a value is a list or a date.
    pub fn add_toml(&mut self, text: &str) -> Result<(), SettingError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            SettingError(told_of_file(text).unwrap_or_else(|| told_of_toml(text, &error)))
        })?;
        self.add_table("", table)
    }

    /// Adds one of the form `NAME=VALUE`.
    ///
    /// # Errors
    /// Without an equals sign.
    pub fn add_assignment(&mut self, text: &str) -> Result<(), SettingError> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| SettingError(format!("--set takes NAME=VALUE, not {text:?}")))?;
        self.set(name.trim(), value.trim());
        Ok(())
    }

    fn add_table(&mut self, prefix: &str, table: toml::Table) -> Result<(), SettingError> {
        for (key, value) in table {
            let name = format!("{prefix}{key}");
            match value {
                toml::Value::String(text) => self.set(&name, &text),
                toml::Value::Integer(number) => self.set(&name, &number.to_string()),
                toml::Value::Boolean(flag) => self.set(&name, &flag.to_string()),
                toml::Value::Table(inner) => self.add_table(&format!("{name}."), inner)?,
                other => {
                    let kind = other.type_str();
                    return Err(SettingError(format!("{name}: a {kind} is no setting's value")));
                }
            }
        }
        Ok(())
    }

    pub(super) fn text(&self, name: &'static str) -> &str {
        let default = find(name).map_or("", |setting| setting.default);
        self.texts.get(name).map_or(default, String::as_str)
    }

    /// The value, or `None` when it is neither set nor has a default.
    pub(super) fn optional<T: FromStr>(
        &self,
        name: &'static str,
        what: &str,
    ) -> Result<Option<T>, SettingError> {
        let text = self.text(name);
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| wrong(name, text, what))
    }

    pub(super) fn value<T: FromStr>(
        &self,
        name: &'static str,
        what: &str,
    ) -> Result<T, SettingError> {
        self.optional(name, what)?.ok_or_else(|| wrong(name, "", what))
    }

    /// Those that are set, without what is secret.
    fn shown(&self) -> Vec<(String, String)> {
        let shown = |(name, text): (&String, &String)| {
            let text = if is_secret(name) { ".." } else { text };
            (name.clone(), text.to_owned())
        };
        self.texts.iter().map(shown).collect()
    }

    fn check_names(&self) -> Result<(), SettingError> {
        for name in self.texts.keys() {
            if find(name).is_some() || name.starts_with(MEMBER_PREFIX) {
                continue;
            }
            if let Some(instead) = instead_of(name) {
                return Err(SettingError(format!(
                    "{name} is ZooKeeper's and no setting here: {instead}"
                )));
            }
            let hint = nearest(name).map_or_else(
                || "; --help lists all".to_owned(),
                |near| format!("; did you mean {near}?"),
            );
            return Err(SettingError(format!("{name} is no setting{hint}")));
        }
        Ok(())
    }
}

/// Checks and types everything.
pub fn config(values: &Values) -> Result<Config, SettingError> {
    values.check_names()?;
    limits::check(values)?;
    let insecure = values.value("insecure", "true or false")?;
    let id = server_id("id", values.text("id"))?;
    let mut renewals = Vec::new();
    let peer_tls = tls::peers(values, &mut renewals)?;
    let mut members = members(values, insecure || peer_tls.is_some())?;
    limits::check_members(&members)?;
    let peer_secret = values.text("peerSecret").to_owned();
    let reconfigures: bool = values.value("reconfigEnabled", "true or false")?;
    let may_be_several = members.len() > 1 || (reconfigures && !members.is_empty());
    if may_be_several && peer_secret.is_empty() {
        let why = "members prove to one another that they know it; choose any secret text";
        return Err(SettingError(format!("peerSecret is needed with more than one member: {why}")));
    }
    let (gate, all_proved) = tls::gate(values, &mut renewals)?;
    let host = values.text("clientPortAddress");
    let own_client = joined(host, values.text("clientPort"));
    if let Some(own) = members.remove(&id) {
        members.insert(id, own.with_client(own_client));
    }
    let audit = audit::config(values)?;
    let mut core = core_config(values, id, &members)?;
    core.audit = audit.is_some();
    let client_address = listeners::client(values, &Served { gate: &gate, all_proved }, insecure)?;
    let http_address = listeners::http(values, client_address, insecure)?;
    let connections_max = values.value("maxCnxns", COUNT)?;
    let per_address: usize = values.value("maxClientCnxns", "a number")?;
    Ok(Config {
        data_dir: PathBuf::from(values.text("dataDir")),
        client_address,
        http_address,
        cluster_id: values.text("clusterId").to_owned(),
        members: members.iter().map(|(id, member)| (*id, member.peer_address())).collect(),
        peer_secret,
        peer_tls,
        gate,
        renewals,
        connections_max,
        connections_per_address_max: (per_address > 0).then_some(per_address),
        whitelist: whitelist(values, core.read_only_mode)?,
        tick_time_ms: values.value("tickTime", MILLISECONDS)?,
        settings: values.shown(),
        audit,
        snapshots: snapshots(values)?,
        core,
    })
}

fn whitelist(values: &Values, serves_read_only: bool) -> Result<Whitelist, SettingError> {
    const NAME: &str = "4lw.commands.whitelist";
    let read = Whitelist::parse(values.text(NAME), serves_read_only);
    read.map_err(|word| wrong(NAME, &word, "a four-letter word"))
}

pub(super) const PORT: &str = "a port, 0 to 65535";
const COUNT: &str = "a number above 0";
const BYTES: &str = "a number of bytes";
const SUPER_DIGEST: &str = "DigestAuthenticationProvider.superDigest";
const MILLISECONDS: &str = "a number of milliseconds above 0";

fn core_config(
    values: &Values,
    id: ServerId,
    members: &Members,
) -> Result<core::Config, SettingError> {
    let voters = MemberIds::of(members).voters;
    let ids = if members.is_empty() { vec![id] } else { voters.into_iter().collect() };
    let mut config = core::Config::new(id, ids);
    config.servers = members.clone();
    config.reconfig_enabled = values.value("reconfigEnabled", "true or false")?;
    let tick_time: u32 = values.value("tickTime", MILLISECONDS)?;
    let derived = |factor: u32| tick_time.saturating_mul(factor);
    config.session_timeout_ms_min =
        values.optional("minSessionTimeout", MILLISECONDS)?.unwrap_or_else(|| derived(2));
    config.session_timeout_ms_max =
        values.optional("maxSessionTimeout", MILLISECONDS)?.unwrap_or_else(|| derived(20));
    let (least, greatest) = (config.session_timeout_ms_min, config.session_timeout_ms_max);
    limits::check_sessions(values, least, greatest)?;
    config.super_digest = values.optional(SUPER_DIGEST, "super:DIGEST")?;
    config.skip_acl = match values.text("skipACL") {
        "yes" => true,
        "no" => false,
        other => return Err(wrong("skipACL", other, "yes or no")),
    };
    config.sasl = sasl::config(values)?;
    config.container_check_ms = values.value("znode.container.checkIntervalMs", MILLISECONDS)?;
    config.linearizable_reads = values.value("linearizableReads", "true or false")?;
    config.request_bytes_max = values.value("jute.maxbuffer", BYTES)?;
    config.reply_bytes_max = values.value("maxResponseBytes", BYTES)?;
    config.watch_limits = watch_limits(values)?;
    config.sessions_per_client_max = values.value("maxSessionsPerClient", "a number")?;
    config.snapshot_entries = values.value("snapCount", COUNT)?;
    let kib: i64 = values.value("snapSizeLimitInKb", "a number of KiB")?;
    // As in ZooKeeper: then entries alone count.
    let no_limit = || u64::MAX;
    config.snapshot_bytes = u64::try_from(kib)
        .ok()
        .filter(|kib| *kib > 0)
        .map_or_else(no_limit, |kib| kib.saturating_mul(1024));
    config.read_only_mode = values.value("readonlymode.enabled", "true or false")?;
    config.disk_free_bytes_min = values.value("diskFreeBytesMin", BYTES)?;
    config.log_entries_kept = values.value("catchUpEntries", COUNT)?;
    config.log_bytes_kept = values.value("catchUpBytes", BYTES)?;
    config.tick_ms = values.value("peerTick", MILLISECONDS)?;
    let election: u64 = values.value("electionTimeout", MILLISECONDS)?;
    let ticks = election.div_ceil(config.tick_ms.max(1));
    config.election_ticks = usize::try_from(ticks).unwrap_or(usize::MAX);
    config.validate().map_err(|error| SettingError(error.to_string()))?;
    Ok(config)
}

fn snapshots(values: &Values) -> Result<SnapshotSettings, SettingError> {
    let packing = match values.text("snapshot.compression.method") {
        "" => Packing::None,
        "zstd" => Packing::Zstd,
        other => return Err(wrong("snapshot.compression.method", other, "zstd or nothing")),
    };
    Ok(SnapshotSettings {
        bytes_per_second: values.value("snapshotBytesPerSecond", BYTES)?,
        packing,
    })
}

fn watch_limits(values: &Values) -> Result<WatchLimits, SettingError> {
    let per_connection = values.value("maxWatchesPerSession", COUNT)?;
    if !(1..=WATCHED_PATHS_MAX).contains(&per_connection) {
        let text = values.text("maxWatchesPerSession");
        return Err(wrong("maxWatchesPerSession", text, "a number, 1 to 1000000"));
    }
    let or_any = |name| {
        let limit: usize = values.value(name, "a number")?;
        Ok(if limit == 0 { usize::MAX } else { limit })
    };
    let (per_client, all) = (or_any("maxWatchesPerClient")?, or_any("maxWatches")?);
    Ok(WatchLimits { per_connection, per_client, all })
}

fn members(values: &Values, insecure: bool) -> Result<Members, SettingError> {
    let mut members = Members::new();
    for (name, text) in &values.texts {
        let Some(number) = name.strip_prefix(MEMBER_PREFIX) else { continue };
        let id = server_id(name, number)?;
        let what = "host:port[:port][:participant|observer][;[host:]port] of the member";
        members.insert(id, Member::parse(text).ok_or_else(|| wrong(name, text, what))?);
    }
    let id = server_id("id", values.text("id"))?;
    let observes = match values.text("peerType") {
        "observer" => true,
        "participant" => false,
        other => return Err(wrong("peerType", other, "participant or observer")),
    };
    if let Some(own) = members.get(&id) {
        let resolved = resolve("server", &own.peer_address())?;
        check_loopback("server", resolved, insecure)?;
    }
    let is_called_observer = members.get(&id).is_some_and(|own| own.role() == Role::Observer);
    if observes && !is_called_observer {
        let reason = format!("peerType: server.{id} has to be called an observer as well");
        return Err(SettingError(reason));
    }
    Ok(members)
}

/// What is wrong with a text that is no TOML, and where: without the line itself, which may hold a secret.
fn told_of_toml(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let Some(before) = before else { return format!("not valid TOML: {}", error.message()) };
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("not valid TOML, line {line}, column {column}: {}", error.message())
}

fn server_id(name: &str, text: &str) -> Result<ServerId, SettingError> {
    let what = "a server id, 1 to 254";
    text.parse().ok().and_then(ServerId::new).ok_or_else(|| wrong(name, text, what))
}

pub(super) fn address(
    name: &str,
    host: &str,
    port: u16,
    insecure: bool,
) -> Result<SocketAddr, SettingError> {
    let address = resolve(name, &joined(host, port))?;
    check_loopback(name, address, insecure)?;
    Ok(address)
}

pub(super) fn joined(host: &str, port: impl Display) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The first address that `host:port` stands for.
pub fn resolve(name: &str, text: &str) -> Result<SocketAddr, SettingError> {
    let failed = |reason: String| SettingError(format!("{name}: {text} has no address: {reason}"));
    let mut found = text.to_socket_addrs().map_err(|error| failed(error.to_string()))?;
    found.next().ok_or_else(|| failed("the name stands for none".to_owned()))
}

fn check_loopback(name: &str, address: SocketAddr, insecure: bool) -> Result<(), SettingError> {
    if insecure || address.ip().is_loopback() {
        return Ok(());
    }
    Err(SettingError(format!(
        "{name}: {address} can be reached from other machines, where nothing is encrypted and nobody has to prove who \
         they are; use TLS with certificates on both sides, or say insecure = true if the network is trusted"
    )))
}

fn wrong(name: &str, text: &str, what: impl Display) -> SettingError {
    SettingError(format!("{name}: {text:?} is not {what}"))
}
