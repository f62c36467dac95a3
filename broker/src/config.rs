//! The configuration: parsed and validated once, then handed to each module as its own struct.
//!
//! Called by: `main`, the server's start; `table` lists every setting and default. Invariant: a
//! [`Config`] that exists is consistent; what crosses settings (loopback unless insecure) is
//! checked here. Modules never see the whole.

pub mod flags;
pub mod groups;
pub mod table;
mod tls;
pub mod topic;
pub mod values;

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use broker_core::controller::Balance;
use broker_log::KEY_ENTRY_BYTES;
use client_protocol::BrokerId;
use coordinator_client::Tls;

use crate::net::budget::Limits;
use groups::GroupsConfig;
use values::{SettingError, Values};

/// Name of the listener for clients.
pub const PUBLIC_LISTENER: &str = "PLAINTEXT";
/// Name of the listener for brokers.
pub const INTERNAL_LISTENER: &str = "INTERNAL";

/// Everything, by module.
#[derive(Clone, Debug)]
pub struct Config {
    /// This broker's number.
    pub broker_id: BrokerId,
    /// Its rack.
    pub rack: Option<String>,
    /// Sockets.
    pub listeners: ListenersConfig,
    /// Logs on disk.
    pub partitions: PartitionsConfig,
    /// The coordinator and membership.
    pub cluster: ClusterConfig,
    /// Follower fetchers.
    pub replica: ReplicaConfig,
    /// The group coordinator.
    pub groups: GroupsConfig,
    /// Request handlers.
    pub api: ApiConfig,
}

/// Addresses and limits of the sockets.
#[derive(Clone, Debug)]
pub struct ListenersConfig {
    /// Where clients connect.
    pub public: SocketAddr,
    /// Where brokers connect.
    pub internal: SocketAddr,
    /// What clients are told; `None`: the bound address.
    pub advertised_public: Option<Endpoint>,
    /// What brokers are told; `None`: the bound address.
    pub advertised_internal: Option<Endpoint>,
    /// /live and /ready.
    pub http: Option<SocketAddr>,
    /// Limits of each listener.
    pub limits: Limits,
    /// Reactor threads.
    pub threads: usize,
}

/// A host name or address with a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

/// What the partitions and their logs need.
#[derive(Clone, Debug)]
pub struct PartitionsConfig {
    /// Log directories; at least one.
    pub log_dirs: Vec<PathBuf>,
    /// Threads that recover logs.
    pub recovery_threads: usize,
    /// How often retention is looked at.
    pub retention_check_interval: Duration,
    /// How often it is looked for logs to compact; `None`: never.
    pub cleaner_backoff: Option<Duration>,
    /// Keys that one compaction remembers.
    pub cleaner_keys_max: usize,
    /// How long an idle producer's state is kept.
    pub producer_id_expiration_ms: i64,
    /// After this long a follower that lags leaves the in-sync replicas.
    pub replica_lag_time_max: Duration,
    /// The settings under the topics' overrides: `topic::resolve` reads them.
    pub defaults: Values,
}

/// What membership needs.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Coordinator servers, `host:port`; `None`: run one inside this process.
    pub coordinator: Option<CoordinatorAddress>,
    /// How coordinators are spoken to encrypted, if they are.
    pub coordinator_tls: Option<Tls>,
    /// Folder of the coordinator that runs inside this process.
    pub embedded_dir: PathBuf,
    /// Session time-out.
    pub session_timeout: Duration,
    /// Longest wait for another broker's answer.
    pub request_timeout: Duration,
    /// Move leaders away before stopping.
    pub controlled_shutdown: bool,
    /// Attempts to do so.
    pub controlled_shutdown_retries_max: usize,
    /// Pause between them.
    pub controlled_shutdown_backoff: Duration,
    /// How leaders are brought back; `None`: only on request.
    pub balance: Option<Balance>,
    /// Topics that do not say themselves may elect uncleanly.
    pub unclean: bool,
    /// The settings under the topics' overrides.
    pub defaults: Values,
}

/// Servers of the coordinator, and the folder below which everything of ours lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorAddress {
    /// `host:port` of each server.
    pub servers: Vec<String>,
    /// `/path`, or empty.
    pub chroot: String,
}

/// What follower fetchers need.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// Bytes asked for per partition.
    pub fetch_bytes_max: i32,
    /// Bytes asked for per request.
    pub response_bytes_max: i32,
    /// Bytes that complete a fetch.
    pub fetch_bytes_min: i32,
    /// How long a fetch waits.
    pub fetch_wait_max: Duration,
    /// Pause after a failure.
    pub backoff: Duration,
    /// Longest wait for an answer beyond the fetch's own wait.
    pub socket_timeout: Duration,
}

/// What request handlers need.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Create topics when first used.
    pub auto_create_topics: bool,
    /// Allow topics to be deleted.
    pub delete_topics: bool,
    /// Partitions of a topic whose creator names no number.
    pub partitions_default: i32,
    /// Replicas of such a topic; `None`: min(3, brokers).
    pub replication_factor: Option<i16>,
    /// Largest answer to a fetch.
    pub fetch_bytes_max: usize,
    /// `__consumer_offsets` as it is created.
    pub offsets_topic: groups::OffsetsTopic,
    /// Fetch sessions that are kept.
    pub fetch_sessions_max: usize,
    /// Everything that was set, for DescribeConfigs.
    pub values: Values,
}

impl Config {
    /// Builds the typed structs from `values`.
    ///
    /// # Errors
    /// The first setting that is wrong by itself or does not fit the others.
    pub fn from_values(values: &Values) -> Result<Self, SettingError> {
        let listeners = listeners(values)?;
        let coordinator = coordinator_address(values.text("zookeeper.connect"))?;
        let embedded = coordinator.is_none();
        let id = i32::try_from(values.count("broker.id")).map_err(|_| too_large("broker.id"))?;
        let replication_factor = values
            .number("default.replication.factor")
            .map(|n| narrow("default.replication.factor", n));
        Ok(Self {
            broker_id: BrokerId::new(id),
            rack: Some(values.text("broker.rack").to_owned()).filter(|rack| !rack.is_empty()),
            listeners,
            partitions: partitions(values),
            cluster: cluster(values, coordinator)?,
            replica: replica(values)?,
            groups: GroupsConfig::from_values(values)?,
            api: ApiConfig {
                auto_create_topics: values.flag("auto.create.topics.enable"),
                delete_topics: values.flag("delete.topic.enable"),
                partitions_default: narrow("num.partitions", count(values, "num.partitions"))?,
                replication_factor: replication_factor.transpose()?.or(embedded.then_some(1)),
                fetch_bytes_max: values.count("fetch.max.bytes"),
                fetch_sessions_max: values.count("max.incremental.fetch.session.cache.slots"),
                offsets_topic: groups::OffsetsTopic::from_values(values, embedded)?,
                values: values.clone(),
            },
        })
    }
}

fn partitions(values: &Values) -> PartitionsConfig {
    let data = PathBuf::from(values.text("data.dir"));
    let mut log_dirs: Vec<PathBuf> = values.list("log.dirs").iter().map(PathBuf::from).collect();
    if log_dirs.is_empty() {
        log_dirs.push(data.join("logs"));
    }
    PartitionsConfig {
        log_dirs,
        recovery_threads: values.count("num.recovery.threads.per.data.dir"),
        retention_check_interval: duration(values, "log.retention.check.interval.ms"),
        cleaner_backoff: values
            .flag("log.cleaner.enable")
            .then(|| duration(values, "log.cleaner.backoff.ms")),
        cleaner_keys_max: values.count("log.cleaner.dedupe.buffer.size") / KEY_ENTRY_BYTES,
        producer_id_expiration_ms: count(values, "producer.id.expiration.ms"),
        replica_lag_time_max: duration(values, "replica.lag.time.max.ms"),
        defaults: values.clone(),
    }
}

fn cluster(
    values: &Values,
    coordinator: Option<CoordinatorAddress>,
) -> Result<ClusterConfig, SettingError> {
    Ok(ClusterConfig {
        coordinator_tls: tls::coordinator_tls(values, coordinator.is_some())?,
        coordinator,
        embedded_dir: PathBuf::from(values.text("data.dir")).join("coordinator"),
        session_timeout: duration(values, "zookeeper.session.timeout.ms"),
        request_timeout: duration(values, "replica.socket.timeout.ms"),
        controlled_shutdown: values.flag("controlled.shutdown.enable"),
        controlled_shutdown_retries_max: values.count("controlled.shutdown.max.retries"),
        controlled_shutdown_backoff: duration(values, "controlled.shutdown.retry.backoff.ms"),
        balance: values.flag("auto.leader.rebalance.enable").then(|| Balance {
            interval_ms: u64::try_from(count(values, "leader.imbalance.check.interval.seconds"))
                .unwrap_or(u64::MAX)
                .saturating_mul(1000),
            percentage: u32::try_from(count(values, "leader.imbalance.per.broker.percentage"))
                .unwrap_or(u32::MAX),
        }),
        unclean: values.flag("unclean.leader.election.enable"),
        defaults: values.clone(),
    })
}

fn replica(values: &Values) -> Result<ReplicaConfig, SettingError> {
    let int = |name| narrow(name, count(values, name));
    Ok(ReplicaConfig {
        fetch_bytes_max: int("replica.fetch.max.bytes")?,
        response_bytes_max: int("replica.fetch.response.max.bytes")?,
        fetch_bytes_min: int("replica.fetch.min.bytes")?,
        fetch_wait_max: duration(values, "replica.fetch.wait.max.ms"),
        backoff: duration(values, "replica.fetch.backoff.ms"),
        socket_timeout: duration(values, "replica.socket.timeout.ms"),
    })
}

fn listeners(values: &Values) -> Result<ListenersConfig, SettingError> {
    let bound = values.list("listeners");
    let Some(public) = find_listener("listeners", &bound, PUBLIC_LISTENER)? else {
        return Err(SettingError::invalid("listeners", "PLAINTEXT://host:port is missing"));
    };
    let internal = find_listener("listeners", &bound, INTERNAL_LISTENER)?
        .unwrap_or_else(|| Endpoint { host: public.host.clone(), port: 0 });
    let advertised = values.list("advertised.listeners");
    let http = match values.text("http.address") {
        "" => None,
        address => Some(resolve("http.address", &parse_endpoint("http.address", address)?)?),
    };
    let listeners = ListenersConfig {
        public: resolve("listeners", &public)?,
        internal: resolve("listeners", &internal)?,
        advertised_public: find_listener("advertised.listeners", &advertised, PUBLIC_LISTENER)?,
        advertised_internal: find_listener("advertised.listeners", &advertised, INTERNAL_LISTENER)?,
        http,
        limits: Limits {
            request_bytes_max: values.count("socket.request.max.bytes"),
            idle_max: duration(values, "connections.max.idle.ms"),
            connections_max: values.count("max.connections"),
            in_flight_bytes_max: values.count("queued.max.request.bytes"),
        },
        threads: values.count("num.network.threads"),
    };
    check_reach(values, &listeners)?;
    Ok(listeners)
}

/// Closed by default: other machines reach us only where somebody said that this may be.
fn check_reach(values: &Values, listeners: &ListenersConfig) -> Result<(), SettingError> {
    let bound = [Some(listeners.public), Some(listeners.internal), listeners.http];
    let open = bound.into_iter().flatten().find(|address| !address.ip().is_loopback());
    match open {
        Some(address) if !values.flag("insecure") => Err(SettingError::invalid(
            "listeners",
            format!(
                "{address} can be reached from other machines, without encryption or authentication; \
                 set insecure = true if that is meant"
            ),
        )),
        Some(address) if address.ip().is_unspecified() && listeners.advertised_public.is_none() => {
            Err(SettingError::invalid(
                "advertised.listeners",
                format!("must say what clients connect to, as {address} is no address for them"),
            ))
        }
        _ => Ok(()),
    }
}

fn find_listener(
    setting: &str,
    items: &[&str],
    wanted: &str,
) -> Result<Option<Endpoint>, SettingError> {
    let mut found = None;
    for item in items {
        let Some((name, address)) = item.split_once("://") else {
            let why = format!("\"{item}\" is not NAME://host:port");
            return Err(SettingError::invalid(setting, why));
        };
        match name {
            PUBLIC_LISTENER | INTERNAL_LISTENER if name == wanted => {
                found = Some(parse_endpoint(setting, address)?);
            }
            PUBLIC_LISTENER | INTERNAL_LISTENER => {}
            _ => {
                let why = format!("{name} is neither {PUBLIC_LISTENER} nor {INTERNAL_LISTENER}");
                return Err(SettingError::invalid(setting, why));
            }
        }
    }
    Ok(found)
}

fn parse_endpoint(setting: &str, text: &str) -> Result<Endpoint, SettingError> {
    let wrong = || SettingError::invalid(setting, format!("\"{text}\" is not host:port"));
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // Kafka reads an empty host as every address of the machine.
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    Ok(Endpoint { host: host.to_owned(), port: port.parse().map_err(|_| wrong())? })
}

fn resolve(setting: &str, endpoint: &Endpoint) -> Result<SocketAddr, SettingError> {
    if let Ok(ip) = endpoint.host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, endpoint.port));
    }
    let unknown = |why: String| {
        SettingError::invalid(setting, format!("{} has no address: {why}", endpoint.host))
    };
    let mut addresses = (endpoint.host.as_str(), endpoint.port)
        .to_socket_addrs()
        .map_err(|error| unknown(error.to_string()))?;
    // A name with both kinds of address: clients that know only the older one must get in.
    let first = addresses.next();
    addresses
        .find(SocketAddr::is_ipv4)
        .filter(|_| first.is_some_and(|a| a.is_ipv6()))
        .or(first)
        .ok_or_else(|| unknown("no address".to_owned()))
}

fn coordinator_address(text: &str) -> Result<Option<CoordinatorAddress>, SettingError> {
    if text.is_empty() {
        return Ok(None);
    }
    let (servers, chroot) = match text.find('/') {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let servers: Vec<String> = servers
        .split(',')
        .map(|server| server.trim().to_owned())
        .filter(|s| !s.is_empty())
        .collect();
    for server in &servers {
        parse_endpoint("zookeeper.connect", server)?;
    }
    if servers.is_empty() {
        return Err(SettingError::invalid("zookeeper.connect", "names no server"));
    }
    Ok(Some(CoordinatorAddress { servers, chroot: chroot.trim_end_matches('/').to_owned() }))
}

fn duration(values: &Values, name: &str) -> Duration {
    Duration::from_millis(values.count(name) as u64)
}

fn count(values: &Values, name: &str) -> i64 {
    values.number(name).expect("has a default")
}

fn narrow<T: TryFrom<i64>>(name: &str, number: i64) -> Result<T, SettingError> {
    T::try_from(number).map_err(|_| too_large(name))
}

fn too_large(name: &str) -> SettingError {
    SettingError::invalid(name, "is too large")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(toml: &str) -> Result<Config, SettingError> {
        Config::from_values(&Values::from_toml(toml)?)
    }

    #[test]
    fn defaults_make_a_closed_embedded_broker() {
        let config = config("").expect("defaults are consistent");
        assert!(config.listeners.public.ip().is_loopback());
        assert_eq!(config.cluster.coordinator, None);
        assert_eq!(config.api.replication_factor, Some(1));
        assert_eq!(config.partitions.log_dirs, [PathBuf::from("tidegate-data/logs")]);
    }

    #[test]
    fn open_listener_needs_the_word_insecure_and_an_address_for_clients() {
        let open = "listeners = \"PLAINTEXT://0.0.0.0:9092\"\n";
        assert!(config(open).expect_err("closed by default").to_string().contains("insecure"));
        let allowed = format!("{open}insecure = true\n");
        let error = config(&allowed).expect_err("nobody can connect to 0.0.0.0");
        assert!(error.to_string().starts_with("advertised.listeners"));
        let advertised = format!("{allowed}advertised.listeners = \"PLAINTEXT://10.0.0.1:9092\"\n");
        assert!(config(&advertised).is_ok());
    }

    #[test]
    fn coordinator_address_has_servers_and_a_chroot() {
        let address = coordinator_address("a:1, b:2/kafka/").expect("valid").expect("given");
        assert_eq!(address.servers, ["a:1", "b:2"]);
        assert_eq!(address.chroot, "/kafka");
        assert!(coordinator_address("a").is_err());
        assert_eq!(
            config("zookeeper.connect = \"a:1\"").expect("valid").api.replication_factor,
            None
        );
    }

    #[test]
    fn listener_of_another_name_is_refused() {
        assert!(config("listeners = \"SSL://127.0.0.1:1\"").is_err());
        assert!(config("listeners = \"127.0.0.1:1\"").is_err());
        assert!(config("listeners = \"INTERNAL://127.0.0.1:1\"").is_err());
    }
}
