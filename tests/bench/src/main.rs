//! `scripts/bench`: the real peers and ours in turn, on the same work, in one run.
//!
//! ```text
//! machine     what the figures were taken on          report      rows, ratios, Markdown, JSON
//! tool        librdkafka's own load tool              topic       a fresh topic on any server
//! start       time to serving, idle memory            throughput  records a second, CPU, memory
//! latency     end to end at a fixed rate              paced       the load for it
//! failover    a killed leader                         floor       a bare loop on the same bytes
//! ensemble    coordinator and ZooKeeper: rates         session     one client of theirs
//! watchers    from a set to its watchers               deaths      from a client's end to its ephemerals'
//! leader_loss the leader of three servers is killed    writer      a session that writes on
//! znodes      memory with many znodes                  snapshots   how long one takes
//! plot        lines as SVG
//! ```
//!
//! The servers are those of the end-to-end tests (`e2e::peers`).
//!
//! Invariant: no row holds a figure that this run did not measure; what could not be measured is said.

mod deaths;
mod ensemble;
mod failover;
mod floor;
mod latency;
mod leader_loss;
mod machine;
mod paced;
mod plan;
mod plot;
mod report;
mod session;
mod snapshots;
mod start;
mod throughput;
mod tool;
mod topic;
mod watchers;
mod writer;
mod znodes;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use plan::{Part, Size};

/// Runs Kafka and ZooKeeper beside ours, in turn, on the same work, and prints what each did.
///
/// Every row names the same work for every system. CPU is user and system time of all server
/// processes together (ZooKeeper and the coordinators counted in); the client's is not in it.
#[derive(Parser)]
#[command(
    name = "bench",
    after_help = "Examples:\n  scripts/bench smoke                       everything, short (at most 25 minutes)\n  scripts/bench smoke --only coordinator    one part of it (at most 8 minutes)\n  scripts/bench full --without kafka4       longer, without one peer\n\nQuiet the machine first: two busy cores make every figure a figure of something else."
)]
struct Arguments {
    /// How much work
    #[arg(value_enum, default_value_t = Size::Smoke)]
    size: Size,
    /// Only these parts; may be repeated
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Leave a system out; may be repeated
    #[arg(long, value_name = "SYSTEM")]
    without: Vec<String>,
    /// Of the coordinator's part only the rates whose rows contain this, as "Set 1024 B"
    #[arg(long, value_name = "TEXT", default_value = "")]
    rows: String,
    /// Where the result is written: NAME.md, NAME.json, and NAME-znodes.svg where that part ran
    #[arg(long, value_name = "NAME")]
    save: Option<PathBuf>,
    /// Folder for the servers' data; decides which disk is measured
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

fn main() -> Result<()> {
    let Arguments { size, only, without, rows, save, data } = Arguments::parse();
    raise_file_limit();
    let data = data.unwrap_or_else(std::env::temp_dir);
    let run = plan::Run::new(size, only, without, rows, data)?;
    let report = run.measure()?;
    println!("\n{}", report.markdown());
    if let Some(name) = save {
        report.save(&name)?;
    }
    Ok(())
}

/// A thousand watchers have a socket each. The servers that are started inherit the limit.
fn raise_file_limit() {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        eprintln!("files that may be open at once stay {:?}: {error}", limits.current);
    }
}
