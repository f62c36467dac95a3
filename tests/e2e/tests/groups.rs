//! Consumer groups with other people's clients: they share, commit, move, restart; and their offsets
//! outlive the broker that keeps them.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use broker_core::group::{OFFSETS_TOPIC, partition_of};
use e2e::clients::{self, run, skip};
use e2e::load::Load;
use e2e::running::Running;
use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;
use rustix::process::Signal;

/// Longest wait for anything.
const HANG: Duration = Duration::from_secs(120);

/// Runs a script of `clients/` with whatever runs it.
fn script(running: &Running, found: Option<Command>, package: &str, script: &str) -> Result<()> {
    let Some(mut command) = found else {
        skip(&format!("{package} groups"), "not installed");
        return Ok(());
    };
    command.arg(format!("{}/clients/{script}", env!("CARGO_MANIFEST_DIR")));
    command.arg(running.bootstrap());
    println!("{}", run(command, "")?.trim_end());
    Ok(())
}

#[test]
fn members_share_and_others_go_on_where_they_were() -> Result<()> {
    let running = Running::start(1, 3, &[])?;
    let python = |package, name| script(&running, clients::python(package), package, name);
    python("confluent_kafka", "confluent_groups.py")?;
    python("kafka", "kafka_python_groups.py")?;
    python("aiokafka", "aiokafka_groups.py")?;
    script(&running, clients::node("kafkajs"), "kafkajs", "kafkajs_groups.js")?;
    kcat(&running)
}

fn kcat(running: &Running) -> Result<()> {
    if clients::kcat().is_none() {
        skip("kcat groups", "not installed");
        return Ok(());
    }
    let start = |arguments: &[&str]| {
        let mut command = clients::kcat().context("kcat went away")?;
        command.args(["-b", &running.bootstrap()]).args(arguments);
        anyhow::Ok(command)
    };
    let read = || {
        let from = ["-X", "auto.offset.reset=earliest"];
        run(start(&[&["-q", "-e", "-G", "kcat"][..], &from, &["kcat-groups"]].concat())?, "")
    };
    run(start(&["-P", "-t", "kcat-groups", "-X", "acks=all"])?, "one\ntwo\nthree\n")?;
    ensure!(read()? == "one\ntwo\nthree\n");
    run(start(&["-P", "-t", "kcat-groups", "-X", "acks=all"])?, "four\n")?;
    ensure!(read()? == "four\n", "kcat does not go on where it was");
    println!("kcat: a group read, and went on where it was");
    Ok(())
}

#[test]
fn java_consumes_with_a_group_and_its_tool_describes_and_resets() -> Result<()> {
    let tool = |name: &str| clients::kafka_tool(name).context("Java went away");
    if clients::kafka_tool("consumer-groups").is_none() {
        skip("Java groups", "no Java, or Maven could not fetch Kafka's jars");
        return Ok(());
    }
    let running = Running::start(1, 3, &[])?;
    let bootstrap = running.bootstrap();
    running.create_topic("java-groups", 2)?;
    // With keys, so that both partitions have some: without, a producer may put all of them into one, and a reader
    // that has them all commits nothing of a partition that it never heard of.
    let sent: Vec<String> = (0..100).map(|number| format!("line {number}")).collect();
    let keyed: String = sent.iter().map(|line| format!("key of {line}:{line}\n")).collect();
    let mut produce = tool("console-producer")?;
    produce.args(["--bootstrap-server", &bootstrap, "--topic", "java-groups"]);
    produce.args(["--property", "parse.key=true", "--property", "key.separator=:"]);
    run(produce, &keyed)?;
    let consume = |count: &str| {
        let mut consume = tool("console-consumer")?;
        consume.args(["--bootstrap-server", &bootstrap, "--topic", "java-groups"]);
        consume.args(["--group", "java", "--from-beginning", "--max-messages", count]);
        run(consume, "")
    };
    let mut read: Vec<String> = consume("100")?.lines().map(str::to_owned).collect();
    read.sort_unstable();
    let mut sent = sent;
    sent.sort_unstable();
    ensure!(read == sent, "{} lines read of {}", read.len(), sent.len());
    let groups = |arguments: &[&str]| {
        let mut command = tool("consumer-groups")?;
        command.args(["--bootstrap-server", &bootstrap]).args(arguments);
        run(command, "")
    };
    let described = groups(&["--describe", "--group", "java"])?;
    let lag: Vec<&str> = described.lines().filter_map(|line| line.strip_prefix("java ")).collect();
    ensure!(lag.len() == 2, "not two partitions:\n{described}");
    for line in lag {
        let columns: Vec<&str> = line.split_whitespace().collect();
        ensure!(columns.get(2) == columns.get(3) && columns.get(4) == Some(&"0"), "{described}");
    }
    ensure!(groups(&["--list"])?.lines().any(|line| line == "java"));
    let state = groups(&["--describe", "--group", "java", "--state"])?;
    ensure!(state.contains("Empty"), "{state}");
    let reset = ["--reset-offsets", "--to-earliest", "--topic", "java-groups", "--execute"];
    groups(&[&["--group", "java"][..], &reset].concat())?;
    ensure!(consume("100")?.lines().count() == 100, "the reset did not take");
    groups(&["--delete-offsets", "--group", "java", "--topic", "java-groups:1"])?;
    ensure!(groups(&["--describe", "--group", "java"])?.contains(" 0 "));
    groups(&["--delete", "--group", "java"])?;
    ensure!(!groups(&["--list"])?.contains("java"));
    println!(
        "Java: console consumer with a group; consumer-groups lists, describes, resets, deletes"
    );
    Ok(())
}

/// A member that commits every record by itself, and remembers what was acknowledged.
struct Reader {
    consumer: BaseConsumer,
    /// By partition: the next offset to read, as far as commits were acknowledged.
    acknowledged: BTreeMap<i32, i64>,
    furthest: BTreeMap<i32, i64>,
    count: u64,
}

impl Reader {
    fn join(bootstrap: &str, group: &str, topic: &str) -> Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", group)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "500")
            .create()?;
        consumer.subscribe(&[topic])?;
        let (acknowledged, furthest) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { consumer, acknowledged, furthest, count: 0 })
    }

    /// Reads one record if there is one, and commits it; an error is tried again with the next.
    fn step(&mut self) -> Result<()> {
        let Some(Ok(message)) = self.consumer.poll(Duration::from_millis(100)) else {
            return Ok(());
        };
        let (partition, offset) = (message.partition(), message.offset());
        let next = self.furthest.entry(partition).or_insert(0);
        ensure!(offset <= *next, "partition {partition}: {offset} after {next}: some are left out");
        let committed = self.acknowledged.get(&partition).copied().unwrap_or(0);
        ensure!(offset >= committed, "partition {partition}: {offset} again after {committed}");
        *next = offset.saturating_add(1).max(*next);
        if self.consumer.commit_message(&message, CommitMode::Sync).is_ok() {
            self.acknowledged.insert(partition, offset + 1);
            self.count += 1;
        }
        Ok(())
    }

    fn commits(&mut self, count: u64) -> Result<Duration> {
        let (began, until) = (Instant::now(), self.count + count);
        while self.count < until {
            ensure!(began.elapsed() < HANG, "{} of {count} commits to go", until - self.count);
            self.step()?;
        }
        Ok(began.elapsed())
    }
}

#[test]
fn offsets_outlive_the_broker_that_keeps_them() -> Result<()> {
    let (group, topic) = ("survivors", "ledger");
    let mut running = Running::start(3, 3, &[])?;
    running.create_topic(topic, 3)?;
    let load = Load::start(&running.bootstrap(), topic, 3, 200)?;
    let mut reader = Reader::join(&running.bootstrap(), group, topic)?;
    reader.commits(50)?;
    for round in 1..=2 {
        let coordinator = running.leader(OFFSETS_TOPIC, partition_of(group, 50).get())?;
        running.signal(&coordinator, Signal::KILL)?;
        let again = reader.commits(1)?;
        println!("kill -9 of {coordinator}: next commit after {} ms", again.as_millis());
        reader.commits(50)?;
        running.cluster.start(&coordinator)?;
        running.cluster.wait_ready(&coordinator)?;
        running.wait_for(&format!("replicas after round {round}"), || {
            let partition = partition_of(group, 50).get();
            Ok((running.in_sync(OFFSETS_TOPIC, partition)?.len() == 3).then_some(()))
        })?;
    }
    load.finish()?;
    let mut asked = TopicPartitionList::new();
    reader.acknowledged.keys().for_each(|partition| {
        asked.add_partition(topic, *partition);
    });
    let held = reader.consumer.committed_offsets(asked, HANG)?;
    for (partition, acknowledged) in &reader.acknowledged {
        let held = match held.find_partition(topic, *partition).map(|found| found.offset()) {
            Some(Offset::Offset(held)) => held,
            other => bail!("partition {partition}: {other:?} held, {acknowledged} acknowledged"),
        };
        // One whose answer was lost may be held as well.
        let furthest = reader.furthest[partition];
        ensure!(
            (*acknowledged..=furthest).contains(&held),
            "partition {partition}: {held} held, {acknowledged} acknowledged, {furthest} read"
        );
    }
    println!("{} commits acknowledged, every one held after two kills", reader.count);
    Ok(())
}
