//! How long a server takes for a snapshot of all it holds.
//!
//! Called by: `znodes`. Calls: our servers' HTTP, ZooKeeper's `mntr` and the names of its files. Invariant: while a snapshot is
//! written nothing else is.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use coordinator_protocol::{Request, SetDataRequest};
use e2e::peers::{Product, System};
use e2e::zookeeper::four_letters;

use crate::session::{SESSION_TIMEOUT_MS, Session, check};

/// A hang guard.
const LIMIT: Duration = Duration::from_secs(300);
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Writes between two looks at whether a snapshot has begun.
const SOME_WRITES: usize = 1_000;
const IN_FLIGHT: usize = 64;
/// ZooKeeper takes one after half of `snapCount`, 100,000, and up to as many more.
const WRITES_MAX: usize = 120_000;
/// What is written to, again and again: one of the znodes that are there, with as much as it has.
const PATH: &str = "/m/000";

/// Mean of all servers, in milliseconds.
///
/// # Errors
/// When a server refuses, hangs, or takes no snapshot.
pub fn time_ms(system: &System) -> Result<f64> {
    if system.product == Product::ZooKeeper { theirs_ms(system) } else { ours_ms(system) }
}

/// Asks one server after the other.
fn ours_ms(system: &System) -> Result<f64> {
    let addresses = system.http_addresses();
    ensure!(!addresses.is_empty(), "no server serves HTTP");
    let mut sum = Duration::ZERO;
    for address in &addresses {
        let asked = Instant::now();
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(
            b"POST /snapshot HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
        )?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
        sum += asked.elapsed();
        let status = answer.lines().next().unwrap_or_default();
        ensure!(status.contains(" 200 "), "asked for a snapshot, a server says: {answer}");
    }
    Ok(sum.as_secs_f64() * 1e3 / addresses.len() as f64)
}

/// What ZooKeeper's server says of its snapshots since its start.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Taken {
    count: f64,
    sum_ms: f64,
}

/// Writes until every server has begun one, and stops whenever one has.
fn theirs_ms(system: &System) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let servers = system.ensemble_addresses.len();
    let taken = || (0..servers).map(|at| taken(system, at)).collect::<Result<Vec<Taken>>>();
    let begun = || (0..servers).map(|at| files(system, at)).collect::<Result<Vec<usize>>>();
    let (taken_before, begun_before) = (taken()?, begun()?);
    let mut is_done = false;
    for _ in 0..WRITES_MAX / SOME_WRITES {
        runtime.block_on(write_some(system))?;
        let waited = Instant::now();
        loop {
            let now = begun()?;
            let began = now.iter().zip(&begun_before).map(|(now, before)| now > before);
            let ended = taken()?.into_iter().zip(&taken_before).map(|(n, b)| n.count > b.count);
            let both: Vec<(bool, bool)> = began.zip(ended).collect();
            is_done = both.iter().all(|(_, ended)| *ended);
            if both.iter().all(|(began, ended)| began == ended) {
                break;
            }
            ensure!(waited.elapsed() < LIMIT, "a snapshot takes too long");
            std::thread::sleep(Duration::from_millis(50));
        }
        if is_done {
            break;
        }
    }
    ensure!(is_done, "not every server took a snapshot within {WRITES_MAX} writes");
    let means = taken()?
        .into_iter()
        .zip(taken_before)
        .map(|(now, before)| (now.sum_ms - before.sum_ms) / (now.count - before.count).max(1.0));
    Ok(means.sum::<f64>() / servers as f64)
}

fn taken(system: &System, at: usize) -> Result<Taken> {
    let address = system.ensemble_addresses.get(at).context("no such server")?;
    let text = four_letters(address, "mntr", LIMIT).context("a server does not answer mntr")?;
    parse_taken(&text).context("mntr tells nothing of snapshottime")
}

fn parse_taken(text: &str) -> Option<Taken> {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line?.trim().parse::<f64>().ok()
    };
    let (count, sum_ms) = (value("zk_cnt_snapshottime\t")?, value("zk_sum_snapshottime\t")?);
    Some(Taken { count, sum_ms })
}

/// Its file is there when a snapshot begins.
fn files(system: &System, at: usize) -> Result<usize> {
    let data = system.zookeeper_data(at)?;
    count_snapshots(&data.join("version-2"))
}

fn count_snapshots(folder: &Path) -> Result<usize> {
    let mut count = 0;
    for file in std::fs::read_dir(folder)? {
        count += usize::from(file?.file_name().to_string_lossy().starts_with("snapshot."));
    }
    Ok(count)
}

/// In a session of its own, which need not outlive the wait for a snapshot.
async fn write_some(system: &System) -> Result<()> {
    let address = system.ensemble_addresses.first().context("the system has no ensemble")?;
    let mut session = Session::open(address, SESSION_TIMEOUT_MS).await?;
    let data = Some(Bytes::from_static(&[b'x'; 100]));
    let set = Request::SetData(SetDataRequest { path: PATH.to_string(), data, version: -1 });
    for number in 0..SOME_WRITES + IN_FLIGHT {
        if number < SOME_WRITES {
            session.send(&set).await?;
        }
        if number >= IN_FLIGHT {
            check(&session.frame().await?)?;
        }
    }
    session.ask(&Request::CloseSession).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_found_among_what_mntr_says() {
        let text = "zk_avg_snapshottime\t2.5\nzk_cnt_snapshottime\t2\nzk_sum_snapshottime\t5\n";
        assert_eq!(parse_taken(text), Some(Taken { count: 2.0, sum_ms: 5.0 }));
        assert_eq!(parse_taken("zk_version\t3.9\n"), None);
    }
}
