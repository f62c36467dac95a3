//! Compaction with real processes: a group's offsets take no more room than there are, a restart finds
//! them, and Kafka's own dump-log decodes what is left.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use e2e::clients::{self, run, skip};
use e2e::running::Running;
use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::Offset;
use rdkafka::util::Timeout;
use rustix::process::Signal;

const TOPIC: &str = "read";
const GROUP: &str = "often-committing";
/// Commits; each is a record of some 100 bytes.
const COMMITS: i64 = 400;
/// Bytes that they would take without compaction, at least.
const UNCOMPACTED_BYTES: u64 = 40_000;

fn consumer(running: &Running) -> Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", running.bootstrap()).set("group.id", GROUP);
    Ok(config.create()?)
}

fn offset_list(offset: Offset) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(TOPIC, 0, offset)?;
    Ok(list)
}

#[test]
fn offsets_of_a_group_that_commits_often_stay_small_and_readable() -> Result<()> {
    let settings = [
        ("log.cleaner.backoff.ms", "100"),
        ("offsets.topic.num.partitions", "1"),
        ("offsets.topic.replication.factor", "1"),
        ("offsets.topic.segment.bytes", "8192"),
    ];
    let mut running = Running::start(1, 1, &settings)?;
    running.create_topic(TOPIC, 1)?;
    let client = consumer(&running)?;
    for offset in 1..=COMMITS {
        client.commit(&offset_list(Offset::Offset(offset))?, CommitMode::Sync)?;
    }
    let bytes = running.wait_for("compaction", || {
        let files = files_of(running.dir(), "log")?;
        let sizes = files.iter().map(|file| Ok(std::fs::metadata(file)?.len()));
        let bytes: u64 = sizes.sum::<Result<u64>>()?;
        Ok((bytes < UNCOMPACTED_BYTES / 2).then_some(bytes))
    })?;
    println!("{COMMITS} commits take {bytes} bytes of __consumer_offsets");
    running.signal("broker-1", Signal::KILL)?;
    running.cluster.start("broker-1")?;
    let timeout = Timeout::After(std::time::Duration::from_secs(60));
    let committed =
        consumer(&running)?.committed_offsets(offset_list(Offset::Invalid)?, timeout)?;
    let found = committed.elements_for_topic(TOPIC).first().map(|one| one.offset());
    ensure!(found == Some(Offset::Offset(COMMITS)), "{found:?} is committed");
    running.signal("broker-1", Signal::TERM)?;
    dump(&running)
}

/// Kafka's tool decodes every segment, and finds nothing to complain about.
fn dump(running: &Running) -> Result<()> {
    if clients::kafka_tool("dump-log").is_none() {
        skip("dump-log", "no Java, or Maven could not fetch its jars");
        return Ok(());
    }
    let mut decoded = 0;
    for extension in ["log", "index", "timeindex"] {
        for file in files_of(running.dir(), extension)? {
            let mut command = clients::kafka_tool("dump-log").context("dump-log went away")?;
            command.arg("--files").arg(&file);
            match extension {
                "log" => command.arg("--offsets-decoder"),
                "index" => command.arg("--index-sanity-check"),
                _ => &mut command,
            };
            let printed = run(command, "")?;
            for complaint in
                ["Mismatch", "corrupt", "Exception", "isvalid: false", "Found timestamp mismatch"]
            {
                ensure!(!printed.contains(complaint), "{}:\n{printed:.2000}", file.display());
            }
            decoded += printed.matches(GROUP).count();
        }
    }
    ensure!(decoded > 0, "dump-log names no commit of the group");
    println!("dump-log decodes what is left: the group is named {decoded} times");
    Ok(())
}

fn files_of(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.join("broker-1")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension)
                && path.display().to_string().contains("__consumer_offsets-0")
            {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
