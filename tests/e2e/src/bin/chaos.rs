//! Three coordinators and three brokers under faults from a seed, round after round: each round is healed, and then
//! everything has to work again.
//!
//! Called by: `scripts/chaos`, which gives every node a network and a disk of its own. Calls: the plan, the machine, the
//! load, the verdict. Invariant: nothing is judged before everything was healed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Parser;
use e2e::chaos::load::{Finished, Load, client, lock};
use e2e::chaos::machine::{Machine, Prepared};
use e2e::chaos::plan::{self, Fault, NODES, Plan, Strike};
use e2e::chaos::report::Report;
use e2e::chaos::{LIVENESS_BOUND, PARTITIONS, RESIDENT_KIB_MAX, TOPIC, verdict};
use rdkafka::consumer::{BaseConsumer, Consumer};
use tests::cluster::Kind;
use tests::history::Key;

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Parser)]
struct Arguments {
    /// Rounds begin for this long
    minutes: f64,
    /// Draws the faults; by default a new one, which is printed
    #[arg(long)]
    seed: Option<u64>,
    /// Only these kinds of faults; may be repeated
    #[arg(long, value_name = "KIND")]
    only: Vec<String>,
    /// A setting of the topic under load; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// How to print
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    output: String,
    /// What is called for networks and disks
    #[arg(long, hide = true)]
    script: PathBuf,
    /// Folder of the cluster
    #[arg(long, hide = true)]
    dir: PathBuf,
    /// Address of each node
    #[arg(long, hide = true)]
    host: Vec<Ipv4Addr>,
    /// Gives a process another wall clock
    #[arg(long, hide = true)]
    clock_library: Option<PathBuf>,
}

/// A run in progress.
struct Run {
    machine: Machine,
    load: Load,
    plan: Plan,
    report: Report,
    /// Parts of nodes' logs that were written from when their disk was struck to when the round was healed.
    disks_struck: BTreeMap<usize, Vec<Range<usize>>>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let prepared = Prepared {
        script: arguments.script.clone(),
        dir: arguments.dir.clone(),
        hosts: arguments.host.clone(),
        clock_library: arguments.clock_library.clone(),
    };
    let seed = arguments.seed.unwrap_or_else(new_seed);
    eprintln!("chaos: seed {seed}");
    let machine = Machine::start(prepared)?;
    create_topic(&machine, &arguments.settings)?;
    let wanted = wanted(&arguments.only)?;
    let (can, cannot): (BTreeSet<Fault>, BTreeSet<Fault>) =
        wanted.into_iter().partition(|fault| machine.can(*fault));
    for fault in &cannot {
        eprintln!("SKIP chaos {}: no tool for it on this machine", fault.name());
    }
    let load = Load::start(&machine.running.bootstrap(), &arguments.dir)?;
    let report = Report { seed, skipped: cannot.into_iter().collect(), ..Report::default() };
    let plan = Plan::new(seed, &can);
    let mut run = Run { machine, load, plan, report, disks_struck: BTreeMap::new() };
    let ended = run.rounds(Duration::from_secs_f64(arguments.minutes * 60.0));
    let report = run.judge(ended)?;
    if arguments.output == "json" {
        println!("{}", report.json());
    } else {
        print!("{report}");
    }
    ensure!(report.findings.is_empty(), "{} anomalies", report.findings.len());
    Ok(())
}

fn create_topic(machine: &Machine, settings: &[String]) -> Result<()> {
    let partitions = PARTITIONS.to_string();
    let mut line = vec!["topic", "create", TOPIC, "--partitions", &partitions];
    line.extend(["--replication-factor", "3"]);
    line.extend(settings.iter().flat_map(|pair| ["--set", pair]));
    machine.running.tidegate(&line).map(|_| ())
}

fn new_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| u64::from(since.subsec_nanos()) ^ since.as_secs())
}

fn wanted(names: &[String]) -> Result<BTreeSet<Fault>> {
    let named = |name: &String| {
        let found = Fault::ALL.into_iter().find(|fault| fault.name() == name);
        found.ok_or_else(|| {
            anyhow!("no fault {name}; there are: {}", Fault::ALL.map(Fault::name).join(" "))
        })
    };
    if names.is_empty() { Ok(Fault::ALL.into()) } else { names.iter().map(named).collect() }
}

fn note_load(report: &mut Report, finished: &Finished) {
    report.sent = finished.sends.len();
    report.acknowledged = finished.acknowledged();
    report.read_alone = finished.readings.alone.values().sum();
    report.read_by_group = finished.readings.given.values().map(BTreeSet::len).sum();
    report.rebalances = finished.readings.rebalances;
    report.longest_stall = finished.longest_stall;
    for error in finished.errors.iter().take(3) {
        eprintln!("a producer was told: {error}");
    }
}

impl Run {
    fn rounds(&mut self, length: Duration) -> Result<()> {
        let began = Instant::now();
        // A round is worth nothing before the load runs.
        self.wait_live(0)?;
        while began.elapsed() < length {
            self.round()?;
            self.report.lasted = began.elapsed();
        }
        Ok(())
    }

    fn round(&mut self) -> Result<()> {
        self.report.rounds += 1;
        let strikes = self.plan.round();
        for strike in &strikes {
            eprintln!("round {}: {strike}", self.report.rounds);
        }
        self.carry_out(&strikes)?;
        self.restart_ended()?;
        let healed_us = self.load.now_us();
        self.wait_live(healed_us)?;
        self.note_healed()?;
        self.look_at_memory();
        eprintln!(
            "round {}: healed after {:.1} s; {} acknowledged",
            self.report.rounds,
            Duration::from_micros(self.load.now_us() - healed_us).as_secs_f64(),
            self.load.acknowledged()
        );
        Ok(())
    }

    /// Begins and ends every fault at its time.
    fn carry_out(&mut self, strikes: &[Strike]) -> Result<()> {
        let mut steps: Vec<(u64, bool, &Strike)> = Vec::new();
        for strike in strikes {
            steps.push((strike.begins_ms, true, strike));
            steps.push((strike.ends_ms(), false, strike));
            *self.report.faults.entry(strike.fault).or_default() += 1;
        }
        steps.sort_by_key(|(at_ms, begins, _)| (*at_ms, *begins));
        let began = Instant::now();
        for (at_ms, begins, strike) in steps {
            std::thread::sleep(Duration::from_millis(at_ms).saturating_sub(began.elapsed()));
            if begins && strike.fault.is_of_disk() {
                self.note_struck(&strike.struck)?;
            }
            let done = if begins { self.machine.strike(strike) } else { self.machine.heal(strike) };
            done.with_context(|| format!("{strike}, {}", if begins { "begin" } else { "end" }))?;
        }
        Ok(())
    }

    /// What these nodes say from now on may be of their disks.
    fn note_struck(&mut self, nodes: &[usize]) -> Result<()> {
        for &node in nodes {
            let length = self.log(node)?.len();
            self.disks_struck.entry(node).or_default().push(length..usize::MAX);
        }
        Ok(())
    }

    /// All is well again: what is said from now on is not explained by what was.
    fn note_healed(&mut self) -> Result<()> {
        for node in 0..NODES {
            let length = self.log(node)?.len();
            for part in self.disks_struck.entry(node).or_default() {
                part.end = part.end.min(length);
            }
        }
        Ok(())
    }

    /// What a node has said.
    fn log(&self, node: usize) -> Result<Vec<u8>> {
        let path = self.machine.running.cluster.dir.join(plan::name(node)).join("out.log");
        std::fs::read(&path).with_context(|| format!("no {}", path.display()))
    }

    fn restart_ended(&mut self) -> Result<()> {
        for name in self.machine.start_dead()? {
            eprintln!("{name} had ended and is started again");
            self.report.restarted += 1;
        }
        Ok(())
    }

    /// Everything works again within the bound: acknowledged, ready, in sync.
    fn wait_live(&mut self, since_us: u64) -> Result<()> {
        let began = Instant::now();
        loop {
            let silent = self.load.silent_since(since_us);
            if silent.is_empty() {
                break;
            }
            self.restart_ended()?;
            ensure!(
                began.elapsed() < LIVENESS_BOUND,
                "liveness: partitions {silent:?} acknowledge nothing for {LIVENESS_BOUND:?}"
            );
            std::thread::sleep(LOOK);
        }
        let acknowledged = began.elapsed();
        self.wait_whole(began)?;
        let report = &mut self.report;
        report.slowest_acknowledged = report.slowest_acknowledged.max(acknowledged);
        report.slowest_in_sync = report.slowest_in_sync.max(began.elapsed());
        Ok(())
    }

    /// Every node is ready and every replica in sync within the bound from `began`.
    fn wait_whole(&mut self, began: Instant) -> Result<()> {
        while let Some(missing) = self.machine.running.missing(TOPIC, PARTITIONS as usize) {
            self.restart_ended()?;
            ensure!(
                began.elapsed() < LIVENESS_BOUND,
                "liveness: {missing} after {LIVENESS_BOUND:?}"
            );
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn look_at_memory(&mut self) {
        for (kind, kib) in self.machine.resident_kib() {
            let highest = match kind {
                Kind::Coordinator => &mut self.report.coordinator_kib,
                Kind::Broker => &mut self.report.broker_kib,
            };
            *highest = (*highest).max(kib);
            if kib > RESIDENT_KIB_MAX {
                let finding = format!("a {} holds {kib} KiB of memory", kind.program());
                self.report.findings.push(finding);
            }
        }
    }

    /// Stops the load and looks at everything. `ended` is what broke the rounds off.
    fn judge(mut self, ended: Result<()>) -> Result<Report> {
        let stopped = self.load.stop_producers();
        let settled = ended.and(stopped).and_then(|()| self.wait_whole(Instant::now()));
        let is_settled = settled.is_ok();
        self.report.findings.extend(settled.err().map(|error| format!("{error:#}")));
        let ends = self.ends().and_then(|ends| self.wait_read(&ends).map(|()| ends));
        let finished = self.load.finish();
        self.machine.kill_all()?;
        let brokers = self.machine.running.cluster.of_kind(Kind::Broker);
        let disks: Vec<PathBuf> = brokers.map(|node| self.machine.disk(&node.name)).collect();
        let mut report = self.report;
        match (finished, ends) {
            (Ok(finished), Ok(ends)) => {
                // Of replicas that are equal, which is looked at below, any tells it.
                let resent = if is_settled { verdict::resent(&disks[0])? } else { BTreeSet::new() };
                report.findings.extend(verdict::of_history(&finished, &ends, &resent));
                report.resent = resent.len();
                note_load(&mut report, &finished);
            }
            (finished, ends) => {
                let errors = [finished.err(), ends.err()];
                report.findings.extend(errors.iter().flatten().map(|error| format!("{error:#}")));
            }
        }
        for node in 0..NODES {
            let name = plan::name(node);
            let path = self.machine.running.cluster.dir.join(&name).join("out.log");
            let struck = self.disks_struck.get(&node).map_or(&[][..], Vec::as_slice);
            let found = verdict::of_log(&std::fs::read(path)?, struck);
            report.findings.extend(found.into_iter().map(|line| format!("{name}: {line}")));
        }
        if is_settled {
            report.findings.extend(verdict::of_replicas(&disks, TOPIC, PARTITIONS)?);
        }
        Ok(report)
    }

    fn ends(&self) -> Result<BTreeMap<Key, i64>> {
        let consumer: BaseConsumer = client(&self.machine.running.bootstrap()).create()?;
        let end = |key: Key| {
            let partition = i32::try_from(key)?;
            let (_, end) = self.machine.running.wait_for("an end offset", || {
                Ok(Some(consumer.fetch_watermarks(TOPIC, partition, Duration::from_secs(5))?))
            })?;
            Ok((key, end))
        };
        (0..PARTITIONS).map(end).collect()
    }

    /// Both the lone consumer and the group come to the end.
    fn wait_read(&self, ends: &BTreeMap<Key, i64>) -> Result<()> {
        let began = Instant::now();
        loop {
            let (alone, group) = {
                let readings = lock(&self.load.readings);
                (readings.alone.clone(), readings.group.clone())
            };
            if alone == *ends && group == *ends {
                return Ok(());
            }
            if began.elapsed() > LIVENESS_BOUND {
                bail!("liveness: ends are {ends:?}; read alone {alone:?}, by the group {group:?}");
            }
            std::thread::sleep(LOOK);
        }
    }
}
