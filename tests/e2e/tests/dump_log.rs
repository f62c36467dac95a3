//! Kafka's own dump-log reads what the broker writes: a segment, its indexes with the sanity check,
//! and its producer snapshot.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use e2e::clients::{self, run, skip};
use e2e::load::Load;
use e2e::running::Running;
use rustix::process::Signal;

const TOPIC: &str = "ledger";

#[test]
fn dump_log_accepts_segment_indexes_and_producer_snapshot() -> Result<()> {
    if clients::kafka_tool("dump-log").is_none() {
        skip("dump-log", "no Java, or Maven could not fetch its jars");
        return Ok(());
    }
    let running = Running::start(1, 1, &[("log.segment.bytes", "1048576")])?;
    running.create_topic(TOPIC, 1)?;
    let load = Load::start(&running.bootstrap(), TOPIC, 1, 20_000)?;
    load.wait_acknowledged(200_000)?;
    load.finish()?;
    // A clean stop, so that the last segment's indexes are trimmed and a snapshot is written.
    running.signal("broker-1", Signal::TERM)?;
    for extension in ["log", "index", "timeindex", "snapshot"] {
        let files = files_of(&running, extension)?;
        ensure!(!files.is_empty(), "no .{extension} file");
        for file in files {
            let mut command = clients::kafka_tool("dump-log").context("dump-log went away")?;
            command.arg("--files").arg(&file);
            if extension == "index" {
                command.arg("--index-sanity-check");
            }
            let printed = run(command, "")?;
            ensure!(printed.contains("Dumping"), "{}:\n{printed}", file.display());
            for complaint in
                ["Mismatch", "corrupt", "not consecutive", "Exception", "isvalid: false"]
            {
                ensure!(!printed.contains(complaint), "{}:\n{printed:.2000}", file.display());
            }
        }
    }
    println!("dump-log accepts .log, .index with sanity check, .timeindex and .snapshot");
    Ok(())
}

fn files_of(running: &Running, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![running.dir().join("broker-1")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension)
                && path.display().to_string().contains(&format!("{TOPIC}-0"))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
