//! Consumer groups with other people's clients: they share, commit, move, restart; and their offsets
//! outlive the broker that keeps them.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use broker_core::group::{OFFSETS_TOPIC, partition_of};
use e2e::clients::{self, run, skip};
use e2e::load::Load;
use e2e::members::{Joining, KINDS, Member};
use e2e::running::{Running, tidegate};
use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;
use rustix::process::Signal;
use serde_json::Value;
use tests::cluster::status::http_answer;

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
    let described = groups(&["--describe", "--group", "java"])?;
    let committed = |partition: &str| {
        let lines = described.lines().filter_map(|line| line.strip_prefix("java "));
        let mut columns = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
        columns.find(|columns| columns.get(1) == Some(&partition)).map(|columns| columns[2])
    };
    // A partition of which nothing is remembered is not shown, or with a dash.
    ensure!(matches!(committed("1"), None | Some("-")), "not forgotten:\n{described}");
    ensure!(committed("0").is_some_and(|offset| offset != "-"), "forgotten too:\n{described}");
    groups(&["--delete", "--group", "java"])?;
    ensure!(!groups(&["--list"])?.contains("java"));
    println!(
        "Java: console consumer with a group; consumer-groups lists, describes, resets, deletes"
    );
    Ok(())
}

/// Runs `tidegate group ...` that must be refused, and gives what it said.
fn refused(running: &Running, arguments: &[&str]) -> Result<String> {
    match running.tidegate(arguments) {
        Ok(said) => bail!("{arguments:?} was not refused: {said}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

fn group_json(running: &Running, arguments: &[&str]) -> Result<Value> {
    let all = [&["group"][..], arguments, &["-o", "json"]].concat();
    Ok(serde_json::from_str(&running.tidegate(&all)?)?)
}

/// What the group remembers, by partition.
fn remembered(running: &Running, group: &str) -> Result<Vec<Option<i64>>> {
    let described = group_json(running, &["describe", group])?;
    let mut lines = described["offsets"].as_array().cloned().unwrap_or_default();
    lines.sort_by_key(|line| line["partition"].as_i64());
    Ok(lines.iter().map(|line| line["committed"].as_i64()).collect())
}

#[test]
fn the_command_lists_describes_resets_and_deletes_groups() -> Result<()> {
    let (topic, group) = ("counted", "counters");
    let running = Running::start(1, 3, &[])?;
    running.create_topic(topic, 2)?;
    for partition in ["0", "1"] {
        let lines: String = (0..100).map(|number| format!("{number}\n")).collect();
        let mut produce = tidegate(&running.bootstrap(), &running.coordinators())?;
        produce.args(["produce", topic, "--partition", partition]);
        run(produce, &lines)?;
    }
    let read = || {
        let from = ["--group", group, "--from-beginning", "-e"];
        Ok::<_, anyhow::Error>(
            running.tidegate(&[&["consume", topic][..], &from].concat())?.lines().count(),
        )
    };
    ensure!(read()? == 200 && read()? == 0, "the group does not read everything once");
    ensure!(remembered(&running, group)? == [Some(100), Some(100)]);
    the_command_resets(&running, (topic, group))?;
    ensure!(read()? == 7, "the reset did not take");
    the_command_respects_members(&running, (topic, group))?;

    running.tidegate(&["group", "delete", group])?;
    let listed = group_json(&running, &["list"])?;
    ensure!(listed.as_array().is_some_and(Vec::is_empty), "{listed}");
    let said = refused(&running, &["group", "describe", group])?;
    ensure!(said.contains("group list"), "{said}");
    refused(&running, &["group", "delete", group])?;
    running.tidegate(&["group", "delete", group, "--if-exists"])?;
    ensure!(read()? == 200, "a deleted group is remembered");
    println!("tidegate group: lists, describes, resets, deletes, and lets members be");
    Ok(())
}

fn the_command_resets(running: &Running, (topic, group): (&str, &str)) -> Result<()> {
    let reset = |arguments: &[&str]| {
        group_json(running, &[&["reset-offsets", group][..], arguments].concat())
    };
    // Only shown until it is meant.
    let shown = reset(&["--to-earliest"])?;
    ensure!(shown["executed"] == false && shown["offsets"][1]["to"] == 0, "{shown}");
    ensure!(remembered(running, group)? == [Some(100), Some(100)], "a reset that was only shown");
    let done = reset(&["--to-earliest", "--execute"])?;
    ensure!(done["executed"] == true && done["offsets"][1]["from"] == 100, "{done}");
    ensure!(remembered(running, group)? == [Some(0), Some(0)]);
    reset(&["--topic", &format!("{topic}:1"), "--to-offset", "42", "--execute"])?;
    ensure!(remembered(running, group)? == [Some(0), Some(42)]);
    reset(&["--shift-by", "-10", "--execute"])?;
    ensure!(remembered(running, group)? == [Some(0), Some(32)]);
    reset(&["--to-time", "1", "--execute"])?;
    ensure!(remembered(running, group)? == [Some(0), Some(0)]);
    reset(&["--to-latest", "--execute"])?;
    ensure!(remembered(running, group)? == [Some(100), Some(100)]);
    reset(&["--topic", &format!("{topic}:0"), "--shift-by", "-7", "--execute"])?;
    ensure!(remembered(running, group)? == [Some(93), Some(100)]);
    Ok(())
}

/// The group's coordinator tells its lag, also of partitions of which it holds no copy.
#[test]
fn metrics_tell_the_lag_of_a_group_on_all_brokers() -> Result<()> {
    let (topic, group) = ("spread", "behind");
    let running = Running::start(1, 3, &[])?;
    let spread = ["--partitions", "3", "--replication-factor", "1"];
    running.tidegate(&[&["topic", "create", topic][..], &spread].concat())?;
    let leaders: Result<BTreeMap<i32, String>> =
        (0..3).map(|partition| Ok((partition, running.leader(topic, partition)?))).collect();
    let leaders = leaders?;
    let elsewhere = leaders.values().collect::<std::collections::BTreeSet<_>>();
    ensure!(elsewhere.len() == 3, "partitions are not spread: {leaders:?}");
    for partition in 0..3 {
        let mut produce = tidegate(&running.bootstrap(), &running.coordinators())?;
        produce.args(["produce", topic, "--partition", &partition.to_string()]);
        run(produce, &"x\n".repeat(100 + partition))?;
    }
    running.tidegate(&["consume", topic, "--group", group, "--from-beginning", "-e"])?;
    for partition in 0..3 {
        let to = (10 * partition + 5).to_string();
        let which = format!("{topic}:{partition}");
        let reset = ["group", "reset-offsets", group, "--topic", &which, "--to-offset", &to];
        running.tidegate(&[&reset[..], &["--execute"]].concat())?;
    }
    let coordinator = running.leader(OFFSETS_TOPIC, partition_of(group, 50).get())?;
    let node = running.cluster.node(&coordinator)?;
    let labels = format!("consumergroup=\"{group}\",topic=\"{topic}\"");
    let wanted: Vec<String> = (0..3)
        .map(|partition| {
            let lag = 100 + partition - (10 * partition + 5);
            format!("kafka_consumergroup_lag{{{labels},partition=\"{partition}\"}} {lag}")
        })
        .chain([format!("kafka_consumergroup_lag_sum{{{labels}}} {}", 303 - 45)])
        .collect();
    running.wait_for(&format!("{wanted:#?} of {coordinator}"), || {
        let told = http_answer(node, "/metrics").unwrap_or_default();
        let missing = wanted.iter().find(|line| !told.lines().any(|told| told == *line));
        Ok(missing.is_none().then_some(()))
    })?;
    println!("{coordinator} tells the lag of {group} in partitions that lie on three brokers");
    Ok(())
}

/// Of a group with a member: it is listed and described with its share, and neither reset nor deleted.
fn the_command_respects_members(running: &Running, (topic, group): (&str, &str)) -> Result<()> {
    let kind = KINDS.iter().find(|kind| kind.short == "native").context("no native client")?;
    let (bootstrap, coordinators) = (running.bootstrap(), running.coordinators());
    let joining = Joining {
        bootstrap: &bootstrap,
        coordinators: &coordinators,
        group,
        topic,
        session_ms: 240_000,
        instance: None,
        strategy: kind.strategy,
    };
    let member = Member::start(kind, &joining, ("member", running.dir()))?;
    let shared = running.wait_for("a member with a share", || {
        let described = group_json(running, &["describe", group])?;
        let share = described["members"][0]["assignment"].as_array().map(Vec::len);
        Ok((described["state"] == "Stable" && share == Some(2)).then_some(described))
    })?;
    let line = &shared["offsets"][1];
    ensure!(line["member"] == shared["members"][0]["member"] && line["lag"] == 0, "{shared}");
    let listed = group_json(running, &["list"])?;
    ensure!(listed[0]["group"] == group && listed[0]["state"] == "Stable", "{listed}");
    let reset = ["group", "reset-offsets", group, "--to-earliest", "--execute"];
    for refusal in [refused(running, &reset)?, refused(running, &["group", "delete", group])?] {
        ensure!(refusal.contains("stop"), "no hint what to do: {refusal}");
    }
    member.end(Signal::TERM)?;
    running.wait_for("an empty group", || {
        let described = group_json(running, &["describe", group])?;
        Ok((described["state"] == "Empty").then_some(()))
    })?;
    ensure!(remembered(running, group)? == [Some(100), Some(100)], "a refused reset took");
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
