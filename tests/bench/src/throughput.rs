//! Records a second, servers' CPU and memory, produced and then read from the beginning.
//!
//! Called by: `plan`. Calls: librdkafka's load tool. Rounds go round the systems, so that whatever the
//! machine does in between meets all of them; the median counts. A system that fails has no figure, but the reason.

use std::time::Duration;

use anyhow::Result;
use e2e::peers::{Folder, OURS, Product, System};

use crate::report::{Better, Table, median, shown};
use crate::tool;
use crate::topic::Topic;

/// What is produced and read.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Bytes of a record's value.
    pub size: u32,
    /// Records of a round.
    pub count: u64,
    /// Replicas of the topic.
    pub replicas: i32,
    /// `1` or `-1` (all).
    pub acks: &'static str,
}

/// A hang guard for one run of the load tool.
const RUN_LIMIT: Duration = Duration::from_secs(240);
const MEASURES: [(&str, Better, Figure); 5] = [
    ("produce, records/s", Better::Higher, |round| round.produced_per_s),
    ("produce, CPU s per million", Better::Lower, |round| round.produce_cpu_s),
    ("consume, records/s", Better::Higher, |round| round.consumed_per_s),
    ("consume, CPU s per million", Better::Lower, |round| round.consume_cpu_s),
    ("memory of all servers after it, MB", Better::Lower, |round| round.resident_mb),
];

/// A system under one topic setting.
struct Contender<'a> {
    system: &'a System,
    name: String,
    config: &'static [(&'static str, &'static str)],
    rounds: Vec<Round>,
    failed: Option<String>,
}

#[derive(Clone, Copy)]
struct Round {
    produced_per_s: f64,
    produce_cpu_s: f64,
    consumed_per_s: f64,
    consume_cpu_s: f64,
    resident_mb: f64,
}

/// What one round tells of one measure.
type Figure = fn(&Round) -> f64;

/// Produces `records` of 100 B into a system and removes them: a JVM that has seen fewer is measured while it still
/// compiles.
///
/// # Errors
/// When a server or the load tool fails.
pub fn warm_up(system: &System, replicas: i32, records: u64) -> Result<()> {
    let acks = if replicas == 1 { "1" } else { "-1" };
    let work = Work { size: 100, count: records, replicas, acks };
    let round = run_round(system, &[], &work, "warm-up")?;
    println!(
        "    {:<14} warm-up: {records} records, {}/s",
        system.name(),
        shown(round.produced_per_s)
    );
    Ok(())
}

/// Runs the rounds and gives the medians. After a failure a system is left alone.
pub fn measure(systems: &[System], work: &Work, rounds: usize) -> Table {
    let mut contenders: Vec<Contender> = systems.iter().flat_map(contenders).collect();
    for number in 0..rounds {
        for contender in contenders.iter_mut().filter(|contender| contender.failed.is_none()) {
            let topic = format!("bench-{}-{}-{number}", work.size, contender.config.len());
            match run_round(contender.system, contender.config, work, &topic) {
                Ok(round) => contender.rounds.push(round),
                Err(error) => contender.failed = Some(format!("round {number}: {error:#}")),
            }
        }
    }
    let acks = if work.acks == "-1" { "all" } else { work.acks };
    let title = format!("{} B records, {} replicas, acks={acks}", work.size, work.replicas);
    let note = format!(
        "{} records a round to one partition, medians of {rounds} rounds that go round the systems, after a warm-up of \
         ten million records each. Kafka does not sync what it acknowledges; {OURS} does where acks=all, except where \
         the column says memory. CPU: seconds of all server processes per million records. Before each round dirty \
         pages of the former ones are written out, uncounted.",
        work.count
    );
    let mut table = Table::new(&title, &note);
    for (measure, better, figure) in MEASURES {
        for contender in &contenders {
            let name = &contender.name;
            match (&contender.failed, median(contender.rounds.iter().map(figure).collect())) {
                (None, Some(figure)) => table.put(measure, better, name, figure),
                (Some(reason), _) => table.miss(measure, better, name, reason),
                (None, None) => table.miss(measure, better, name, "no round"),
            }
        }
    }
    table
}

fn contenders(system: &System) -> Vec<Contender<'_>> {
    let with = |name: &str, config| Contender {
        system,
        name: name.to_string(),
        config,
        rounds: Vec::new(),
        failed: None,
    };
    match system.product {
        Product::Tidegate => {
            vec![with(OURS, &[]), with(&format!("{OURS} memory"), &[("durability", "memory")])]
        }
        Product::Kafka39 | Product::Kafka4 | Product::ZooKeeper | Product::Coordinator => {
            vec![with(system.name(), &[])]
        }
    }
}

fn run_round(system: &System, config: &[(&str, &str)], work: &Work, topic: &str) -> Result<Round> {
    let topic = Topic::create(&system.bootstrap, topic, (1, work.replicas), config)?;
    let folder = Folder::new(&std::env::temp_dir(), "throughput")?;
    // What an earlier round left dirty is that round's.
    rustix::fs::sync();
    let count = work.count.to_string();
    let (size, name) = (work.size.to_string(), topic.name.clone());
    let common = |mode: &str, rest: &[&str]| {
        let mut all = vec![mode, "-t", &name, "-b", &system.bootstrap, "-c", &count, "-q"];
        all.extend(rest);
        all.into_iter().map(str::to_string).collect::<Vec<_>>()
    };
    let before = system.usage();
    let produced_per_s =
        tool::rate(&common("-P", &["-s", &size, "-a", work.acks]), &folder.0, RUN_LIMIT)?;
    let between = system.usage();
    let consumed_per_s =
        tool::rate(&common("-C", &["-p", "0", "-o", "beginning"]), &folder.0, RUN_LIMIT)?;
    let after = system.usage();
    topic.remove()?;
    let per_million = |seconds: f64| seconds * 1e6 / work.count as f64;
    Ok(Round {
        produced_per_s,
        produce_cpu_s: per_million(between.cpu_s - before.cpu_s),
        consumed_per_s,
        consume_cpu_s: per_million(after.cpu_s - between.cpu_s),
        resident_mb: after.resident_mb,
    })
}
