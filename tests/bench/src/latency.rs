//! From the produce call to the consumer, at a fixed rate, acks=all, three replicas.
//!
//! Called by: `plan`. Calls: librdkafka's load tool, once as consumer and once as producer: the producer
//! writes the time into each record.

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::peers::System;
use crate::report::{Better, Table};
use crate::tool;
use crate::topic::Topic;

/// A hang guard for the consumer, beyond the time that the records take by their rate.
const CONSUMER_LIMIT: Duration = Duration::from_secs(120);

/// The empty table.
pub fn table() -> Table {
    Table::new(
        "End-to-end latency, ms",
        "100 B records to one partition with three replicas, acks=all, linger 1 ms, from the produce call \
         to the consumer. Kafka acknowledges without a sync, tidegate after it.",
    )
}

/// Adds one system's percentiles at one rate.
///
/// # Errors
/// When a server or the load tool fails, or records did not arrive.
pub fn measure(
    table: &mut Table,
    system: &System,
    when: &str,
    rate: u64,
    seconds: u64,
) -> Result<()> {
    let name = format!("latency-{rate}-{}", when.len());
    let topic = Topic::create(&system.bootstrap, &name, (1, 3), &[])?;
    let folder = crate::peers::Folder::new(&std::env::temp_dir(), "latency")?;
    let file = folder.0.join("end-to-end");
    let (count, rate_text) = ((rate * seconds).to_string(), rate.to_string());
    let file_text = file.display().to_string();
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let to = ["-t", &topic.name, "-p", "0", "-b", &system.bootstrap, "-c", &count, "-l", "-q"];
    let consume = words(&[&["-C", "-o", "beginning", "-A", &file_text], &to[..]].concat());
    let mut consumer = tool::spawn(&consume, &folder.0.join("consumer.log"))?;
    let produce = ["-P", "-s", "100", "-a", "-1", "-r", &rate_text, "-X", "linger.ms=1"];
    let produced = tool::rate(&words(&[&produce[..], &to[..]].concat()));
    let consumed = wait(&mut consumer, CONSUMER_LIMIT);
    produced?;
    consumed?;
    let mut taken = read_micros(&file)?;
    let wanted = usize::try_from(rate * seconds)?;
    ensure!(taken.len() * 100 >= wanted * 99, "{} of {wanted} records arrived", taken.len());
    taken.sort_by(f64::total_cmp);
    for (label, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        let at = ((taken.len() - 1) as f64 * share) as usize;
        let measure = format!("{rate}/s, {when}, {label}");
        table.put(&measure, Better::Lower, system.name(), taken[at] / 1e3);
    }
    topic.remove()
}

fn wait(child: &mut Child, limit: Duration) -> Result<()> {
    let began = Instant::now();
    while child.try_wait()?.is_none() {
        if began.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("the consumer did not see all records within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
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
