//! From the produce call to the consumer, at a fixed rate, acks=all, three replicas.
//!
//! Called by: `plan`. Calls: librdkafka's load tool, once as consumer and once as producer: the producer
//! writes the time into each record.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::peers::{Folder, System};

use crate::report::{Better, Table};
use crate::tool;
use crate::topic::Topic;

/// A hang guard, beyond the time that the records take by their rate.
const GRACE: Duration = Duration::from_secs(120);
const SHARES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// The empty table.
pub fn table() -> Table {
    Table::new(
        "End-to-end latency, ms",
        "100 B records to one partition with three replicas, acks=all, linger 1 ms, from the produce call \
         to the consumer. Kafka acknowledges without a sync, tidegate after it, except where the column says memory. \
         Cold rows begin with a fresh cluster's readiness; warm rows come after all the load above, one system after \
         the other, ours first, while those whose turn comes later idle beside it.",
    )
}

/// What is sent, and when.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// What the rows say of the time.
    pub when: &'static str,
    /// Records a second.
    pub rate: u64,
    /// For how long.
    pub seconds: u64,
    /// The topic's settings, and what they add to the system's name.
    pub config: (&'static str, &'static [(&'static str, &'static str)]),
}

/// Adds one system's percentiles, or why there are none.
pub fn measure(table: &mut Table, system: &System, work: Work) {
    let name = format!("{}{}", system.name(), work.config.0);
    let label = |share: &str| format!("{}/s, {}, {share}", work.rate, work.when);
    match run(system, work) {
        Ok(taken) => {
            for (text, share) in SHARES {
                let at = ((taken.len() - 1) as f64 * share) as usize;
                table.put(&label(text), Better::Lower, &name, taken[at] / 1e3);
            }
        }
        Err(error) => {
            for (text, _) in SHARES {
                table.miss(&label(text), Better::Lower, &name, &format!("{error:#}"));
            }
        }
    }
}

/// How long each record took, in microseconds, sorted; of 99 in a hundred at least.
fn run(system: &System, work: Work) -> Result<Vec<f64>> {
    let name = format!("latency-{}-{}-{}", work.rate, work.when.len(), work.config.1.len());
    let topic = Topic::create(&system.bootstrap, &name, (1, 3), work.config.1)?;
    let folder = Folder::new(&std::env::temp_dir(), "latency")?;
    let file = folder.0.join("end-to-end");
    let wanted = work.rate * work.seconds;
    let (count, rate) = (wanted.to_string(), work.rate.to_string());
    let file_text = file.display().to_string();
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let to = ["-t", &topic.name, "-p", "0", "-b", &system.bootstrap, "-c", &count, "-l", "-q"];
    let consume = words(&[&["-C", "-o", "beginning", "-A", &file_text], &to[..]].concat());
    let mut consumer = tool::spawn(&consume, &folder.0.join("consumer.log"))?;
    let produce = ["-P", "-s", "100", "-a", "-1", "-r", &rate, "-X", "linger.ms=1"];
    let limit = Duration::from_secs(work.seconds) + GRACE;
    let produced = tool::rate(&words(&[&produce[..], &to[..]].concat()), &folder.0, limit);
    let consumed = tool::wait(&mut consumer, GRACE).context("the consumer did not see all records");
    produced?;
    ensure!(consumed?, "the consumer failed");
    let mut taken = read_micros(&file)?;
    let wanted = usize::try_from(wanted)?;
    ensure!(taken.len() * 100 >= wanted * 99, "{} of {wanted} records arrived", taken.len());
    taken.sort_by(f64::total_cmp);
    topic.remove()?;
    Ok(taken)
}

/// The first number of each line: microseconds.
fn read_micros(path: &Path) -> Result<Vec<f64>> {
    let text = std::fs::read_to_string(path).context("the consumer wrote no latencies")?;
    let number = |line: &str| {
        let digits = line.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse::<f64>().ok()
    };
    Ok(text.lines().filter_map(number).collect())
}
