//! From the produce call to the consumer, at a fixed rate, acks=all, three replicas.
//!
//! Called by: `plan`. Calls: `paced`.

use anyhow::Result;
use e2e::peers::System;

use crate::paced::{self, Way};
use crate::report::{Better, Table};
use crate::topic::Topic;

const SHARES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// The empty table.
pub fn table() -> Table {
    Table::new(
        "End-to-end latency, ms",
        "100 B records to one partition with three replicas, acks=all, linger 1 ms, from the produce call \
         to the consumer. Kafka acknowledges without a sync, tidegate after it, except where the column says memory. \
         A load begins when a first record has been read. Cold rows come right after a fresh cluster's readiness; warm rows come after all the load above, one system after \
         the other, ours first, while those whose turn comes later idle beside it. Before each load dirty pages of the former ones are written out, uncounted.",
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
        Ok(ways) => {
            for (text, share) in SHARES {
                let at = ((ways.len() - 1) as f64 * share) as usize;
                table.put(&label(text), Better::Lower, &name, ways[at].taken_us as f64 / 1e3);
            }
            tell_slowest(&label(&name), &ways);
        }
        Err(error) => {
            for (text, _) in SHARES {
                table.miss(&label(text), Better::Lower, &name, &format!("{error:#}"));
            }
        }
    }
}

/// Says when the slowest records were sent: a load that stands still once looks like a slow one in its percentiles.
fn tell_slowest(label: &str, ways: &[Way]) {
    let slow = &ways[ways.len() - ways.len() / 1000..];
    let times = || slow.iter().map(|way| way.sent_us as f64 / 1e6);
    let (first, last) = (times().fold(f64::MAX, f64::min), times().fold(0.0, f64::max));
    if let Some(slowest) = slow.last() {
        println!(
            "    {label}: the slowest took {:.1} ms, sent at {:.2} s; the slowest in a thousand from {first:.2} s to \
             {last:.2} s",
            slowest.taken_us as f64 / 1e3,
            slowest.sent_us as f64 / 1e6
        );
    }
}

fn run(system: &System, work: Work) -> Result<Vec<Way>> {
    let name = format!("latency-{}-{}-{}", work.rate, work.when.len(), work.config.1.len());
    let topic = Topic::create(&system.bootstrap, &name, (1, 3), work.config.1)?;
    // What earlier loads left dirty is theirs.
    rustix::fs::sync();
    let taken = paced::latencies(&system.bootstrap, &topic.name, work.rate, work.seconds)?;
    topic.remove()?;
    Ok(taken)
}
