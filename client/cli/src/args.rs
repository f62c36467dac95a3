//! The command line: what can be said, and the help that teaches it.
//!
//! *Called by* `main`. Decides nothing.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
  tidegate consume orders --from beginning --exit-at-end
  tidegate cluster status

Where the cluster is, strongest first: --bootstrap and --coordinator, the environment
(TIDEGATE_BOOTSTRAP, TIDEGATE_COORDINATOR), the configuration file, 127.0.0.1:9092 and
127.0.0.1:2181. The configuration file is TOML with the keys `bootstrap` and `coordinator`."
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
    /// Look at the cluster as a whole.
    Cluster {
        /// What to look at.
        #[command(subcommand)]
        command: ClusterCommand,
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

/// How to write records.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate produce orders < lines.txt
  tidegate produce orders lines.txt --acks 1
  echo 'key:value' | tidegate produce orders --key-separator :")]
pub struct ProduceArguments {
    /// The topic.
    pub topic: String,
    /// The file [default: standard input].
    pub file: Option<PathBuf>,
    /// What stands between key and value in a line [default: lines have no key].
    #[arg(short, long, value_name = "TEXT")]
    pub key_separator: Option<String>,
    /// A header of every record; may be repeated, also with the same key.
    #[arg(short = 'H', long = "header", value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub headers: Vec<(String, String)>,
    /// The partition for all records [default: by key, or in turn].
    #[arg(short, long)]
    pub partition: Option<i32>,
    /// When a record counts as written: `all` in-sync replicas have it, the leader has it (1), never mind (0).
    #[arg(long, value_enum, default_value_t = AcksArgument::All)]
    pub acks: AcksArgument,
}

/// When a record counts as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AcksArgument {
    /// All in-sync replicas have it.
    #[value(alias = "-1")]
    All,
    /// The leader has it.
    #[value(name = "1")]
    Leader,
    /// Never mind.
    #[value(name = "0")]
    None,
}

/// How to read records.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate consume orders                          new records, for ever
  tidegate consume orders -f beginning -e          all there are
  tidegate consume orders -f 1000 -p 0 -n 10       ten records of partition 0
  tidegate consume orders -f @1700000000000        from a time on (milliseconds since 1970)
  tidegate consume orders -o json                  with key, headers, timestamp and offset")]
pub struct ConsumeArguments {
    /// The topic.
    pub topic: String,
    /// Where to begin: `beginning`, `end`, an offset, or @ and a time in milliseconds since 1970.
    #[arg(short, long, default_value = "end", value_parser = from_argument)]
    pub from: FromArgument,
    /// Only this partition.
    #[arg(short, long)]
    pub partition: Option<i32>,
    /// Stop at what is the end of the topic when the command starts.
    #[arg(short, long)]
    pub exit_at_end: bool,
    /// Stop after this many records.
    #[arg(short = 'n', long)]
    pub count: Option<u64>,
    /// Print the key and this text before each value.
    #[arg(short, long, value_name = "TEXT")]
    pub key_separator: Option<String>,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromArgument {
    /// The first record there is.
    Beginning,
    /// After the last record there is.
    End,
    /// An offset.
    Offset(i64),
    /// Milliseconds since 1970.
    Time(i64),
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

fn from_argument(text: &str) -> Result<FromArgument, String> {
    let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= 0);
    match text {
        "beginning" | "earliest" => Ok(FromArgument::Beginning),
        "end" | "latest" => Ok(FromArgument::End),
        text => match text.strip_prefix('@') {
            Some(time) => number(time).map(FromArgument::Time),
            None => number(text).map(FromArgument::Offset),
        }
        .ok_or_else(|| "expected beginning, end, an offset, or @ and milliseconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn from_takes_places_offsets_and_times() {
        assert_eq!(from_argument("beginning"), Ok(FromArgument::Beginning));
        assert_eq!(from_argument("17"), Ok(FromArgument::Offset(17)));
        assert_eq!(from_argument("@17"), Ok(FromArgument::Time(17)));
        for bad in ["", "-1", "@", "@-1", "start"] {
            assert!(from_argument(bad).is_err(), "{bad}");
        }
    }
}
