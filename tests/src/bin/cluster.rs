//! `scripts/cluster`: a cluster of real processes on loopback, in a folder.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use rustix::process::Signal;
use tests::cluster::{Cluster, Options, status};

/// Runs coordinators and brokers as separate processes on loopback.
///
/// Each cluster lives in a folder of its own; several run side by side. Ports are chosen by the
/// system. Logs are in DIR/NAME/out.log.
#[derive(Parser)]
#[command(
    name = "cluster",
    after_help = "Example:\n  scripts/cluster up\n  scripts/cluster kill broker-1\n  scripts/cluster status\n  scripts/cluster start broker-1\n  scripts/cluster down"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a new cluster and wait until every node is ready
    Up {
        /// Servers of the coordinator ensemble: 1 or 3
        #[arg(long, default_value_t = 3)]
        coordinators: u32,
        /// Brokers
        #[arg(long, default_value_t = 3)]
        brokers: u32,
        /// A setting for every broker, KEY=VALUE; may be repeated
        #[arg(long = "set", value_name = "KEY=VALUE")]
        settings: Vec<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Kill every process with -9 and remove the folder
    Down {
        #[command(flatten)]
        place: Place,
    },
    /// Show every node
    Status {
        #[command(flatten)]
        place: Place,
    },
    /// End one node: kill -9 unless another signal is named
    Kill {
        /// coordinator-1, broker-2, ...
        name: String,
        /// The signal
        #[arg(long, value_enum, default_value_t = SignalName::Kill)]
        signal: SignalName,
        #[command(flatten)]
        place: Place,
    },
    /// Start a node that was ended and wait until it is ready
    Start {
        /// coordinator-1, broker-2, ...
        name: String,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Args)]
struct Place {
    /// Folder of the cluster
    #[arg(long, default_value = ".cluster")]
    dir: PathBuf,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Clone, Copy, ValueEnum)]
enum SignalName {
    Kill,
    Term,
    Stop,
    Cont,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Up { coordinators, brokers, settings, place } => {
            let options = Options {
                dir: place.dir,
                programs: programs()?,
                coordinators,
                brokers,
                broker_settings: with_offsets(pairs(&settings)?, brokers),
                places: Vec::new(),
            };
            show(&Cluster::up(options)?, place.output)
        }
        Command::Down { place } => Cluster::load(&place.dir)?.down(),
        Command::Status { place } => show(&Cluster::load(&place.dir)?, place.output),
        Command::Kill { name, signal, place } => {
            let signal = match signal {
                SignalName::Kill => Signal::KILL,
                SignalName::Term => Signal::TERM,
                SignalName::Stop => Signal::STOP,
                SignalName::Cont => Signal::CONT,
            };
            Cluster::load(&place.dir)?.signal(&name, signal)
        }
        Command::Start { name, place } => {
            let mut cluster = Cluster::load(&place.dir)?;
            cluster.start(&name)?;
            cluster.wait_ready(&name)
        }
    }
}

fn programs() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().context("the program has no folder")?.to_path_buf())
}

/// Where fewer brokers run than `__consumer_offsets` is to have replicas by default there would be no groups.
fn with_offsets(mut settings: Vec<(String, String)>, brokers: u32) -> Vec<(String, String)> {
    let key = "offsets.topic.replication.factor";
    if brokers < 3 && settings.iter().all(|(set, _)| set != key) {
        settings.push((key.to_owned(), brokers.max(1).to_string()));
    }
    settings
}

fn pairs(settings: &[String]) -> Result<Vec<(String, String)>> {
    settings
        .iter()
        .map(|setting| {
            let (key, value) = setting
                .split_once('=')
                .with_context(|| format!("--set {setting}: write KEY=VALUE"))?;
            Ok((key.to_string(), value.to_string()))
        })
        .collect()
}

fn show(cluster: &Cluster, output: Output) -> Result<()> {
    let status = status::status(cluster);
    if output == Output::Json {
        println!("{}", serde_json::to_string(&status)?);
        return Ok(());
    }
    println!("{:<16}{:>8}  {:<22}STATE", "NAME", "PID", "ADDRESS");
    for node in &status.coordinators {
        println!("{:<16}{:>8}  {:<22}{}", node.name, node.pid, node.address, node.role);
    }
    for node in &status.brokers {
        println!("{:<16}{:>8}  {:<22}{}", node.name, node.pid, node.address, node.state);
    }
    println!("ready in {} ms; folder {}", status.ready_ms, status.dir);
    Ok(())
}

#[cfg(test)]
mod setting_tests {
    use super::*;

    #[test]
    fn few_brokers_keep_offsets_in_as_many_replicas_unless_told_otherwise() {
        let factor = |brokers: u32, set: &[&str]| {
            let set: Vec<String> = set.iter().map(ToString::to_string).collect();
            let settings = with_offsets(pairs(&set).expect("pairs"), brokers);
            let found: Vec<_> = settings
                .into_iter()
                .filter(|(key, _)| key == "offsets.topic.replication.factor")
                .map(|(_, value)| value)
                .collect();
            found.join(",")
        };
        assert_eq!(factor(1, &[]), "1");
        assert_eq!(factor(2, &["num.partitions=4"]), "2");
        assert_eq!(factor(2, &["offsets.topic.replication.factor=1"]), "1");
        assert_eq!(factor(3, &[]), "");
    }
}
