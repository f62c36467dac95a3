//! What many small znodes cost: resident memory of a server, and the time of a snapshot.
//!
//! Called by: `plan`. Calls: `session`, `snapshots`. Memory and snapshots are measured on systems of their own: what makes
//! ZooKeeper take a snapshot also makes its heap grow.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use coordinator_protocol::{CreateMode, MultiOp};
use e2e::peers::{System, zookeeper_heap};

use crate::plot::Line;
use crate::report::{Better, Table};
use crate::session::{MULTI_MAX, SESSION_TIMEOUT_MS, Session};
use crate::{snapshots, start};

/// Numbers of znodes, of which a run measures the first few.
const COUNTS: [usize; 4] = [10_000, 100_000, 300_000, 1_000_000];
/// Each has as many children as the others; its own name and theirs have three digits.
const PARENTS: usize = 1_000;
const DATA_BYTES: usize = 100;
/// Between the last create and the look at the memory.
const SETTLE: Duration = Duration::from_secs(3);
/// A hang guard for all creates of one size.
const FILL_LIMIT: Duration = Duration::from_secs(600);
const MB: f64 = 1_048_576.0;

/// The numbers of znodes up to `limit`.
pub fn counts(limit: usize) -> Vec<usize> {
    COUNTS.into_iter().filter(|count| *count <= limit).collect()
}

/// The empty table.
pub fn table(nodes: u32, counts: &[usize]) -> Table {
    let most = counts.last().copied().unwrap_or_default();
    let up_to = if Some(&most) == COUNTS.last() {
        String::new()
    } else {
        format!("This run goes up to {most} znodes. ")
    };
    let note = format!(
        "{up_to}{PARENTS} parents /m/NNN with equally many children /m/NNN/NNN, {DATA_BYTES} B in each, parents counted in; \
         made by multis of {MULTI_MAX} creates. Memory is resident, of one server, the mean where there are several, {} s after \
         the last create, and fresh {} s after the start. Bytes each: what came on top of fresh, by znode. ZooKeeper has {}. \
         Snapshots were taken on systems of their own, while nothing was written, the mean of all servers: ours from asking for \
         one (POST /snapshot) until it is on the disk, synced, at the 32 MiB/s that it is written at (snapshotBytesPerSecond); ZooKeeper's by its own snapshottime, which ends without a sync, \
         of the one that it takes after some 50,000 to 100,000 more writes, its AdminServer being off.",
        SETTLE.as_secs(),
        start::SETTLE.as_secs(),
        zookeeper_heap()
    );
    Table::new(&format!("Many znodes, {nodes} nodes"), &note)
}

/// Adds one fresh system's memory at each number of znodes, and gives it as a line of points, in MB.
pub fn measure_memory(table: &mut Table, system: &System, counts: &[usize]) -> Line {
    std::thread::sleep(start::SETTLE);
    let mean = || system.usage().resident_mb / system.ensemble.len().max(1) as f64;
    let fresh_mb = mean();
    table.put("fresh: MB a server", Better::Lower, system.name(), fresh_mb);
    let mut points = vec![(0.0, fresh_mb)];
    let filled = each_count(system, counts, |count| {
        std::thread::sleep(SETTLE);
        let now_mb = mean();
        let bytes = (now_mb - fresh_mb) * MB / count as f64;
        let [held, each] = memory_labels(count);
        table.put(&held, Better::Lower, system.name(), now_mb);
        table.put(&each, Better::Lower, system.name(), bytes);
        points.push((count as f64, now_mb));
        Ok(())
    });
    for (count, reason) in filled {
        for label in memory_labels(count) {
            table.miss(&label, Better::Lower, system.name(), &reason);
        }
    }
    Line { points, ..Line::default() }
}

fn memory_labels(count: usize) -> [String; 2] {
    [format!("{count} znodes: MB a server"), format!("{count} znodes: bytes each over fresh")]
}

/// Adds one fresh system's time for a snapshot at each number of znodes.
pub fn measure_snapshots(table: &mut Table, system: &System, counts: &[usize]) {
    let label = |count| format!("{count} znodes: snapshot ms");
    let taken = each_count(system, counts, |count| {
        let ms = snapshots::time_ms(system)?;
        table.put(&label(count), Better::Lower, system.name(), ms);
        Ok(())
    });
    for (count, reason) in taken {
        table.miss(&label(count), Better::Lower, system.name(), &reason);
    }
}

/// Fills the system up to each number and does something there; gives those that were not come to, and why.
fn each_count(
    system: &System,
    counts: &[usize],
    mut measure: impl FnMut(usize) -> Result<()>,
) -> Vec<(usize, String)> {
    let mut before = 0;
    let mut step = |count: usize| {
        fill(system, before, count)?;
        before = count;
        measure(count)
    };
    let failed = counts.iter().enumerate().find_map(|(at, count)| Some((at, step(*count).err()?)));
    let Some((at, error)) = failed else { return Vec::new() };
    let missed = counts.get(at..).unwrap_or_default().iter();
    missed.map(|count| (*count, format!("{error:#}"))).collect()
}

fn fill(system: &System, from: usize, to: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let filled = tokio::time::timeout(FILL_LIMIT, create_all(system, from, to)).await;
        filled.with_context(|| format!("not filled in {} s", FILL_LIMIT.as_secs()))?
    })
}

async fn create_all(system: &System, from: usize, to: usize) -> Result<()> {
    let address = system.ensemble_addresses.first().context("the system has no ensemble")?;
    let mut session = Session::open(address, SESSION_TIMEOUT_MS).await?;
    let data = Bytes::from(vec![b'x'; DATA_BYTES]);
    let make = |path: String| MultiOp::create(path, Some(data.clone()), CreateMode::Persistent);
    if from == 0 {
        session.carry_out(std::iter::once(make("/m".to_string()))).await?;
    }
    session.carry_out((from..to).map(|number| make(path(number)))).await
}

/// The first are the parents; the others go to one parent after the other.
fn path(number: usize) -> String {
    let parent = number % PARENTS;
    match number / PARENTS {
        0 => format!("/m/{parent:03}"),
        child => format!("/m/{parent:03}/{child:03}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first_and_have_equally_many_children() {
        let shown = [0, 999, 1_000, 1_999, 999_999].map(path);
        assert_eq!(shown, ["/m/000", "/m/999", "/m/000/001", "/m/999/001", "/m/999/999"]);
        assert!(COUNTS.iter().all(|count| count % PARENTS == 0));
    }
}
