//! Where the cluster is: flags, environment, configuration file, defaults, in this order.
//!
//! *Called by* `main` once. *Calls* nothing of ours.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use client::{ClientOptions, Cluster, CoordinatorTls, CoordinatorTlsFiles};
use serde::Deserialize;

use crate::args::ConnectionArguments;

/// How long a command tries what may succeed later: somebody waits at the terminal.
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);
const BOOTSTRAP_DEFAULT: &str = "127.0.0.1:9092";
const COORDINATOR_DEFAULT: &str = "127.0.0.1:2181";

/// What the configuration file may say; unknown keys are errors, because they are mostly typing mistakes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    bootstrap: Option<String>,
    coordinator: Option<String>,
    #[serde(rename = "tls-ca")]
    tls_ca: Option<PathBuf>,
    #[serde(rename = "tls-cert")]
    tls_cert: Option<PathBuf>,
    #[serde(rename = "tls-key")]
    tls_key: Option<PathBuf>,
}

/// Where the cluster is.
#[derive(Debug)]
pub struct Settings {
    /// Brokers to ask first.
    pub bootstrap: Vec<String>,
    /// Coordinators.
    pub coordinators: Vec<String>,
    /// The folder in the coordinator below which the cluster lives: empty, or `/path`.
    pub root: String,
    /// How they are spoken to encrypted, where they are.
    pub tls: Option<CoordinatorTls>,
    /// Somebody said where the coordinators are.
    pub is_coordinator_named: bool,
}

impl Settings {
    /// Takes the strongest source for each.
    pub fn resolve(arguments: &ConnectionArguments) -> anyhow::Result<Self> {
        let file = match (&arguments.config, default_file()) {
            // A file that was asked for must be there; the default one need not.
            (Some(path), _) => read(path)?,
            (None, Some(path)) if path.exists() => read(&path)?,
            (None, _) => ConfigFile::default(),
        };
        let bootstrap = arguments.bootstrap.clone().or(file.bootstrap);
        let coordinator = arguments.coordinator.clone().or(file.coordinator);
        let settings = Self::parse(
            bootstrap.as_deref().unwrap_or(BOOTSTRAP_DEFAULT),
            coordinator.as_deref().unwrap_or(COORDINATOR_DEFAULT),
        )?;
        let tls = tls(
            arguments.tls_ca.clone().or(file.tls_ca),
            arguments.tls_cert.clone().or(file.tls_cert),
            arguments.tls_key.clone().or(file.tls_key),
        )?;
        Ok(Self { is_coordinator_named: coordinator.is_some(), tls, ..settings })
    }

    fn parse(bootstrap: &str, coordinator: &str) -> anyhow::Result<Self> {
        let (coordinators, root) = match coordinator.split_once('/') {
            Some((addresses, root)) => (addresses, format!("/{}", root.trim_end_matches('/'))),
            None => (coordinator, String::new()),
        };
        let root = if root == "/" { String::new() } else { root };
        Ok(Self {
            bootstrap: addresses(bootstrap).context("bootstrap")?,
            coordinators: addresses(coordinators).context("coordinator")?,
            root,
            tls: None,
            is_coordinator_named: false,
        })
    }

    /// Connects to the brokers.
    pub async fn cluster(&self) -> anyhow::Result<Cluster> {
        Ok(Cluster::connect(&self.bootstrap, self.client()).await?)
    }

    /// How a session with `coordinators` is opened.
    pub fn session(&self, coordinators: Vec<String>) -> coordinator_client::Config {
        let mut config = coordinator_client::Config::new(coordinators);
        config.tls.clone_from(&self.tls);
        // Somebody waits, and no wait mends a file.
        config.ends_on_tls_failure = true;
        config
    }

    /// How a producer or consumer finds the cluster. It follows the coordinators only where somebody named them: another
    /// make of cluster has none, or none that tell.
    pub fn client(&self) -> ClientOptions {
        ClientOptions {
            client_id: "tidegate-cli".to_owned(),
            coordinators: if self.is_coordinator_named {
                self.coordinators.clone()
            } else {
                Vec::new()
            },
            coordinator_root: self.root.clone(),
            coordinator_tls: self.tls.clone(),
            retry_timeout: RETRY_TIMEOUT,
            ..ClientOptions::default()
        }
    }
}

fn tls(
    authorities: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> anyhow::Result<Option<CoordinatorTls>> {
    let Some(authorities) = authorities else {
        anyhow::ensure!(
            certificate.is_none() && key.is_none(),
            "--tls-cert and --tls-key are shown over encrypted connections only: --tls-ca says whom to trust there"
        );
        return Ok(None);
    };
    let files = CoordinatorTlsFiles { authorities, certificate, key };
    Ok(Some(CoordinatorTls::read(&files).context("TLS")?))
}

fn addresses(text: &str) -> anyhow::Result<Vec<String>> {
    let addresses: Vec<_> =
        text.split(',').map(str::trim).filter(|address| !address.is_empty()).collect();
    anyhow::ensure!(!addresses.is_empty(), "no address in {text:?}");
    for address in &addresses {
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        anyhow::ensure!(port.is_some(), "expected HOST:PORT instead of {address:?}");
    }
    Ok(addresses.into_iter().map(str::to_owned).collect())
}

fn default_file() -> Option<PathBuf> {
    let folder = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder =
        folder.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?;
    Some(folder.join("tidegate.toml"))
}

fn read(path: &Path) -> anyhow::Result<ConfigFile> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration file {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("in the configuration file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_root_are_taken_apart() {
        let settings = Settings::parse("a:1, b:2,", "c:3,d:4/kafka/").unwrap();
        assert_eq!(settings.bootstrap, ["a:1", "b:2"]);
        assert_eq!(settings.coordinators, ["c:3", "d:4"]);
        assert_eq!(settings.root, "/kafka");
        assert_eq!(Settings::parse("a:1", "c:3/").unwrap().root, "");
        for bad in ["", ",", "a", "a:", "a:99999"] {
            assert!(Settings::parse(bad, "c:3").is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_shown_needs_to_know_to_whom() {
        assert!(tls(None, None, None).unwrap().is_none());
        let alone = tls(None, Some("own.pem".into()), None).unwrap_err();
        assert!(alone.to_string().contains("--tls-ca"), "{alone}");
        let missing = tls(Some("/nowhere/ca.pem".into()), None, None).unwrap_err();
        assert!(format!("{missing:#}").contains("/nowhere/ca.pem"), "{missing:#}");
        let file: ConfigFile = toml::from_str("tls-ca = \"ca.pem\"").unwrap();
        assert_eq!(file.tls_ca.as_deref(), Some(Path::new("ca.pem")));
    }

    #[test]
    fn unknown_keys_of_the_file_are_errors() {
        let file: ConfigFile = toml::from_str("bootstrap = \"a:1\"").unwrap();
        assert_eq!(file.bootstrap.as_deref(), Some("a:1"));
        assert!(toml::from_str::<ConfigFile>("bootstrp = \"a:1\"").is_err());
    }
}
