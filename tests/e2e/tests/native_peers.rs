//! The native client and the command against Apache Kafka: what they know of the protocol is Kafka's, not only ours.
//!
//! Three brokers each of Kafka 3.9 with ZooKeeper and of Kafka 4; one that leads is killed under load. Skipped with a
//! reason where Java or the jars are missing.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use client::protocol::records::Compression;
use e2e::clients::{run, skip};
use e2e::load::read_all;
use e2e::native::{Native, Plan};
use e2e::peers::{Product, System};
use e2e::running::tidegate;
use serde_json::Value;
use tests::cluster::HANG_GUARD;

const TOPIC: &str = "native";
const PARTITIONS: i32 = 3;

#[test]
fn native_client_works_with_kafka_39_and_outlives_a_leader() -> Result<()> {
    against(Product::Kafka39)
}

#[test]
fn native_client_works_with_kafka_4_and_outlives_a_leader() -> Result<()> {
    against(Product::Kafka4)
}

fn against(product: Product) -> Result<()> {
    if let Some(reason) = product.missing() {
        skip(&format!("the native client against {}", product.name()), &reason);
        return Ok(());
    }
    let system = System::start(product, 3, &std::env::temp_dir())?;
    the_command_works(&system)?;
    a_killed_leader_costs_nothing(&system)
}

fn ask(system: &System, arguments: &[&str], input: &str) -> Result<String> {
    let mut command: Command = tidegate(&system.bootstrap, "")?;
    command.args(arguments);
    run(command, input)
}

fn ask_json(system: &System, arguments: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&ask(system, &[arguments, &["-o", "json"]].concat(), "")?)?)
}

/// Makes a topic, and waits until every broker has heard of it and of its replicas.
fn create_topic(system: &System, name: &str, partitions: usize) -> Result<()> {
    let count = partitions.to_string();
    let rest = ["--partitions", &count, "--replication-factor", "3"];
    ask(system, &[&["topic", "create", name][..], &rest].concat(), "")?;
    for address in system.bootstrap.split(',') {
        let began = Instant::now();
        loop {
            let describe = ["topic", "describe", name, "--bootstrap", address, "-o", "json"];
            let asked = ask(system, &describe, "");
            let described = asked.and_then(|text| Ok(serde_json::from_str::<Value>(&text)?));
            let is_whole = |described: &Value| {
                let known = described["partitions"].as_array();
                let is_led = |one: &Value| one["isr"].as_array().is_some_and(|isr| isr.len() == 3);
                known.is_some_and(|all| all.len() == partitions && all.iter().all(is_led))
            };
            if described.as_ref().is_ok_and(is_whole) {
                break;
            }
            ensure!(began.elapsed() < HANG_GUARD, "{address} does not know {name}: {described:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// Each codec, keys, headers, a group, its offsets: the daily work.
fn the_command_works(system: &System) -> Result<()> {
    create_topic(system, "tour", 2)?;
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for codec in codecs {
        let lines: String = (0..100).map(|n| format!("{codec}-{n}:value {n}\n")).collect();
        let produce = ["produce", "tour", "--key-separator", ":", "--header", "by=tour"];
        ask(system, &[&produce[..], &["--compression", codec]].concat(), &lines)?;
    }
    let read = ask(system, &["consume", "tour", "--from-beginning", "-e", "-o", "json"], "")?;
    let records: Vec<Value> = read.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(records.len() == 500, "{} records of 500", records.len());
    for codec in codecs {
        let of = |record: &&Value| record["key"].as_str().is_some_and(|key| key.starts_with(codec));
        ensure!(records.iter().filter(of).count() == 100, "records packed by {codec} are missing");
    }
    ensure!(records.iter().all(|record| record["headers"][0]["value"] == "tour"), "{}", records[0]);
    let consume = ["consume", "tour", "--group", "tourists", "--from-beginning", "-e"];
    ensure!(ask(system, &consume, "")?.lines().count() == 500, "the group did not read everything");
    ensure!(ask(system, &consume, "")?.is_empty(), "the group began anew");
    let described = ask_json(system, &["group", "describe", "tourists"])?;
    let offsets = described["offsets"].as_array().context("no offsets")?;
    let committed: i64 = offsets.iter().filter_map(|offset| offset["committed"].as_i64()).sum();
    ensure!(committed == 500, "{described}");
    ask(system, &["group", "reset-offsets", "tourists", "--to-earliest", "--execute"], "")?;
    ensure!(ask(system, &consume, "")?.lines().count() == 500, "the reset did not take");
    ensure!(ask(system, &["group", "list"], "")?.contains("tourists"));
    ask(system, &["group", "delete", "tourists"], "")?;
    ensure!(!ask(system, &["group", "list"], "")?.contains("tourists"));
    ask(system, &["topic", "delete", "tour"], "")?;
    println!(
        "{}: the command writes with five codecs, reads, and its groups commit",
        system.name()
    );
    Ok(())
}

fn a_killed_leader_costs_nothing(system: &System) -> Result<()> {
    create_topic(system, TOPIC, usize::try_from(PARTITIONS)?)?;
    let native = Native::start(Plan {
        bootstrap: &system.bootstrap,
        coordinators: "",
        topic: TOPIC,
        partitions: PARTITIONS,
        group: "readers",
        per_s: 1_000,
        compression: Compression::Lz4,
    })?;
    native.wait_consumed(2_000)?;
    let described = ask_json(system, &["topic", "describe", TOPIC])?;
    let leader = described["partitions"][0]["leader"].as_u64().context("no leader")?;
    let process = system.brokers.get(usize::try_from(leader)? - 1).context("no such broker")?;
    let killed = Instant::now();
    System::kill(*process)?;
    let again = native.wait_again(killed)?;
    println!(
        "{}: leader killed, every partition acknowledges again after {:.1} s, and was read after {:.1} s",
        system.name(),
        again.acknowledged.as_secs_f64(),
        again.consumed.as_secs_f64()
    );
    native.wait_consumed(2_000)?;
    let book = native.finish()?;
    let read_again = book.judge(&read_all(&system.bootstrap, TOPIC, PARTITIONS)?)?;
    ensure!(book.errors.is_empty(), "{} records failed: {}", book.errors.len(), book.errors[0]);
    println!(
        "{}: {} records acknowledged, in order, once, and read, {read_again} of them again",
        system.name(),
        book.acknowledged()
    );
    Ok(())
}
