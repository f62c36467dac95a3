//! What can be said of writing and reading records.
//!
//! *Called by* `args`. Decides nothing.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use client::protocol::records::Compression;

use super::key_and_value;

/// How to write records.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate produce orders < lines.txt
  tidegate produce orders lines.txt --acks 1 --compression lz4
  echo 'key:value' | tidegate produce orders --key-separator :
  echo '{\"key\":\"k\",\"value\":\"v\",\"headers\":{\"h\":\"1\"}}' | tidegate produce orders --json
  tidegate consume orders -f beginning -e -o json | tidegate produce copy --json")]
pub struct ProduceArguments {
    /// The topic.
    pub topic: String,
    /// The file [default: standard input].
    pub file: Option<PathBuf>,
    /// What stands between key and value in a line [default: lines have no key].
    #[arg(short, long, value_name = "TEXT", conflicts_with = "json")]
    pub key_separator: Option<String>,
    /// Each line is an object: `value`, and if it likes `key`, `headers`, `timestamp`, `partition`, as consume -o json
    /// prints them.
    #[arg(long)]
    pub json: bool,
    /// A header of every record; may be repeated, also with the same key.
    #[arg(short = 'H', long = "header", value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub headers: Vec<(String, String)>,
    /// The partition for all records [default: by key, or any].
    #[arg(short, long)]
    pub partition: Option<i32>,
    /// The timestamp of all records, in milliseconds since 1970 [default: now].
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(i64).range(1..))]
    pub timestamp: Option<i64>,
    /// How the producer works.
    #[command(flatten)]
    pub producer: ProducerArguments,
}

/// How a producer works.
#[derive(Args, Clone, Debug)]
pub struct ProducerArguments {
    /// When a record counts as written: `all` in-sync replicas have it, the leader has it (1), never mind (0).
    #[arg(long, value_enum, default_value_t = AcksArgument::All)]
    pub acks: AcksArgument,
    /// How batches are packed.
    #[arg(long, value_enum, default_value_t = CompressionArgument::None)]
    pub compression: CompressionArgument,
    /// How long a batch that is not full waits for more records, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5)]
    pub linger_ms: u64,
    /// The largest batch, in bytes before packing.
    #[arg(long, value_name = "BYTES", default_value_t = 512 << 10)]
    pub batch_bytes: usize,
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

/// How batches are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompressionArgument {
    /// Not at all.
    None,
    /// gzip: small, slow.
    Gzip,
    /// Snappy: fast.
    Snappy,
    /// LZ4: fastest.
    Lz4,
    /// Zstandard: small.
    Zstd,
}

impl From<CompressionArgument> for Compression {
    fn from(argument: CompressionArgument) -> Self {
        match argument {
            CompressionArgument::None => Self::None,
            CompressionArgument::Gzip => Self::Gzip,
            CompressionArgument::Snappy => Self::Snappy,
            CompressionArgument::Lz4 => Self::Lz4,
            CompressionArgument::Zstd => Self::Zstd,
        }
    }
}

/// How to read records.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate consume orders                          new records, for ever
  tidegate consume orders --from-beginning -e      all there are
  tidegate consume orders --offset 1000 -p 0 -n 10 ten records of partition 0
  tidegate consume orders -f @1700000000000        from a time on (milliseconds since 1970)
  tidegate consume orders --group billing          a share of the topic, from where the group is
  tidegate consume orders --format '%p/%o %T %k=%v\\n'
  tidegate consume orders -o json                  with key, headers, timestamp and offset

A format has %t topic, %p partition, %o offset, %T timestamp, %k key, %v value, %h headers, %% percent,
\\n newline, \\t tab.")]
pub struct ConsumeArguments {
    /// The topic.
    pub topic: String,
    /// Where to begin: `beginning`, `end`, an offset, or @ and a time in milliseconds since 1970. In a group, where to
    /// begin what it has not read before.
    #[arg(short, long, default_value = "end", value_parser = from_argument)]
    pub from: FromArgument,
    /// Begin at the first record there is: --from beginning.
    #[arg(long, conflicts_with_all = ["from", "offset"])]
    pub from_beginning: bool,
    /// Begin at this offset: --from OFFSET.
    #[arg(long, conflicts_with = "from", value_parser = clap::value_parser!(i64).range(0..))]
    pub offset: Option<i64>,
    /// Only this partition.
    #[arg(short, long, conflicts_with = "group")]
    pub partition: Option<i32>,
    /// Join this group: read a share of the topic, and have the group remember how far.
    #[arg(short, long)]
    pub group: Option<String>,
    /// Be a static member: one that restarts under this name within the session time-out gets its share back, and the
    /// others notice nothing.
    #[arg(long, requires = "group", value_name = "ID")]
    pub instance_id: Option<String>,
    /// How long the group waits for this member when it is silent, before its share goes to others.
    #[arg(long, requires = "group", value_name = "MS", default_value_t = 45_000, value_parser = clap::value_parser!(u32).range(1..=1_800_000))]
    pub session_timeout_ms: u32,
    /// Say on standard error which partitions the group gives and takes.
    #[arg(short, long, requires = "group")]
    pub verbose: bool,
    /// Stop at what is the end of the topic when the command starts.
    #[arg(short, long)]
    pub exit_at_end: bool,
    /// Stop after this many records.
    #[arg(short = 'n', long)]
    pub count: Option<u64>,
    /// Print the key and this text before each value.
    #[arg(short, long, value_name = "TEXT", conflicts_with = "format")]
    pub key_separator: Option<String>,
    /// How to print a record.
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Leave out records of open and aborted transactions.
    #[arg(long)]
    pub committed_only: bool,
}

impl ConsumeArguments {
    /// Where to begin, however it was said.
    pub fn begin(&self) -> FromArgument {
        match self.offset {
            Some(offset) => FromArgument::Offset(offset),
            None if self.from_beginning => FromArgument::Beginning,
            None => self.from,
        }
    }
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

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Write records as fast as they are taken, or at a rate.
    #[command(after_help = "\
Examples:
  tidegate bench produce load --records 1000000 --size 100
  tidegate bench produce load --records 100000 --size 1024 --rate 5000 --linger-ms 1")]
    Produce {
        /// The topic, which must exist.
        topic: String,
        /// How many records.
        #[arg(short = 'n', long, default_value_t = 1_000_000)]
        records: u64,
        /// The value of each, in bytes.
        #[arg(short, long, default_value_t = 100)]
        size: usize,
        /// Records a second [default: as many as are taken].
        #[arg(long)]
        rate: Option<u64>,
        /// How the producer works.
        #[command(flatten)]
        producer: ProducerArguments,
    },
    /// Read records from the beginning.
    Consume {
        /// The topic.
        topic: String,
        /// How many records.
        #[arg(short = 'n', long, default_value_t = 1_000_000)]
        records: u64,
    },
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
