//! The command line: what can be said, and the help that teaches it.
//!
//! *Called by* `main`. Decides nothing.

mod certs;
mod coordinator;
mod group;
mod records;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use certs::CertsCommand;
pub use coordinator::{CoordinatorArguments, CoordinatorCommand, ServerCommand, server_commands};
pub use group::{GroupCommand, ResetArguments, ResetTo};
pub use records::{
    AcksArgument, BenchCommand, ConsumeArguments, FromArgument, ProduceArguments, ProducerArguments,
};

/// Work with a Tidegate cluster: topics, records, and the state of brokers and coordinators.
///
/// Also works with any other broker that speaks Kafka's protocol.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    after_help = "\
Examples:
  tidegate topic create orders --partitions 6 --replication-factor 3
  echo 'hello' | tidegate produce orders
  tidegate consume orders --from-beginning --exit-at-end
  tidegate consume orders --group billing
  tidegate group describe billing
  tidegate cluster status
  tidegate coordinator list

Where the cluster is, strongest first: --bootstrap and --coordinator, the environment
(TIDEGATE_BOOTSTRAP, TIDEGATE_COORDINATOR), the configuration file, 127.0.0.1:9092 and
127.0.0.1:2181. The configuration file is TOML with the keys `bootstrap` and `coordinator`, and `tls-ca`,
`tls-cert` and `tls-key` where coordinators take encrypted connections only."
)]
pub struct Arguments {
    /// Where the cluster is.
    #[command(flatten)]
    pub connection: ConnectionArguments,

    /// Tables for people, or JSON for programs.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that say where the cluster is.
#[derive(Args, Debug)]
pub struct ConnectionArguments {
    /// Brokers to ask first, as HOST:PORT, separated by commas.
    #[arg(short, long, global = true, env = "TIDEGATE_BOOTSTRAP", value_name = "HOST:PORT,...")]
    pub bootstrap: Option<String>,

    /// Coordinators, as HOST:PORT separated by commas, with an optional /root at the end.
    #[arg(long, global = true, env = "TIDEGATE_COORDINATOR", value_name = "HOST:PORT,...[/ROOT]")]
    pub coordinator: Option<String>,

    /// Speak to coordinators encrypted, and only to those whose certificate an authority in this PEM file has signed (ca.pem
    /// of `tidegate certs init`). Brokers are spoken to unencrypted.
    #[arg(long, global = true, env = "TIDEGATE_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,

    /// The certificate to show coordinators, PEM (`tidegate certs sign NAME --client`).
    #[arg(long, global = true, env = "TIDEGATE_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// Its key, PEM [default: in the same file].
    #[arg(long, global = true, env = "TIDEGATE_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// The configuration file [default: tidegate.toml in $XDG_CONFIG_HOME or ~/.config].
    #[arg(long, global = true, env = "TIDEGATE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs: one document, or one object a line where results arrive one by one.
    Json,
}

impl Command {
    /// Whether, asked for JSON, it also tells as JSON why something was not done. Of those that move records standard output
    /// has records and counts alone.
    pub fn tells_errors_as_json(&self) -> bool {
        match self {
            Command::Certs { .. }
            | Command::Coordinator(_)
            | Command::Topic { .. }
            | Command::Group { .. }
            | Command::Cluster { .. } => true,
            Command::Produce(_) | Command::Consume(_) | Command::Bench { .. } => false,
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create, list, describe and delete topics.
    Topic {
        /// What to do with them.
        #[command(subcommand)]
        command: TopicCommand,
    },
    /// Write records: each line of standard input or a file becomes one.
    Produce(ProduceArguments),
    /// Read records and print them as they arrive.
    Consume(ConsumeArguments),
    /// List, describe and delete groups, and set how far they are.
    Group {
        /// What to do with them.
        #[command(subcommand)]
        command: GroupCommand,
    },
    /// Measure how fast records are written or read.
    Bench {
        /// What to measure.
        #[command(subcommand)]
        command: BenchCommand,
    },
    /// Look at the cluster as a whole.
    Cluster {
        /// What to look at.
        #[command(subcommand)]
        command: ClusterCommand,
    },
    /// Look at the coordinators, add and remove some, move leadership among them, and take care of their folders.
    Coordinator(CoordinatorArguments),
    /// Make a private authority and certificates, for TLS.
    Certs {
        /// What to make.
        #[command(subcommand)]
        command: CertsCommand,
    },
}

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create a topic.
    #[command(after_help = "\
Examples:
  tidegate topic create orders
  tidegate topic create orders -p 6 -r 3 --set retention.ms=86400000 --set cleanup.policy=compact")]
    Create {
        /// Its name: up to 249 letters, digits, dots, underscores and hyphens.
        name: String,
        /// How many partitions [default: the broker's num.partitions].
        #[arg(short, long, value_parser = clap::value_parser!(i32).range(1..))]
        partitions: Option<i32>,
        /// How many replicas of each partition [default: the broker's default.replication.factor].
        #[arg(short, long, value_parser = clap::value_parser!(i16).range(1..))]
        replication_factor: Option<i16>,
        /// A setting of the topic; may be repeated.
        #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_and_value)]
        settings: Vec<(String, String)>,
        /// Only say whether it would work.
        #[arg(long)]
        validate_only: bool,
        /// Do nothing when the topic exists.
        #[arg(long)]
        if_not_exists: bool,
    },
    /// List the topics.
    List {
        /// The cluster's own topics, too.
        #[arg(long)]
        internal: bool,
    },
    /// Show a topic's partitions, leaders, replicas and settings.
    Describe {
        /// Its name.
        name: String,
        /// All settings, those with default values too.
        #[arg(long)]
        all_settings: bool,
    },
    /// Delete a topic and all its records.
    Delete {
        /// Its name.
        name: String,
        /// Do nothing when there is no such topic.
        #[arg(long)]
        if_exists: bool,
    },
}

/// What to look at.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Brokers, controller, leaders, under-replicated partitions, and the roles of the coordinators.
    Status,
    /// Print each broker that comes or goes, and each leader that changes, as the notification arrives.
    Watch(WatchArguments),
}

/// How long to watch.
#[derive(Args, Debug)]
pub struct WatchArguments {
    /// Stop after this many notifications.
    #[arg(short = 'n', long)]
    pub count: Option<u64>,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
