//! From a client's end to the removal of its ephemeral znode, as somebody sees it who watches it: sessions that
//! are closed, clients that are killed, and those that chose to die fast.
//!
//! Called by: `plan`. Calls: `session`. The owner and its watcher are on different servers where there are several.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use coordinator_protocol::{CreateMode, EventType, PathWatch, Request, SessionOptionsRequest};
use e2e::peers::{Product, System};
use tokio::task::JoinSet;

use crate::report::{Better, Table, quantile};
use crate::session::{SESSION_TIMEOUT_MS, Session, create};

/// The least that both servers grant by default.
const TIMEOUT_MS: i32 = 4_000;
/// What our brokers choose.
const GRACE_MS: i32 = 200;
/// Owners that are killed in one round of work; each dies at another moment, since expiries come in steps.
const KILLED: usize = 16;
const STAGGER: Duration = Duration::from_millis(250);
const CLOSED: usize = 100;
/// Closed sessions that do not count.
const WARM_UP: usize = 20;

/// How an owner ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It closes its session.
    Closes,
    /// Its socket is closed, its session is not: what the kernel does for a process that is killed.
    IsKilled,
    /// The same, and the session had chosen to end soon after that.
    IsKilledFast,
}

/// The empty table.
pub fn table(nodes: u32, effort: usize) -> Table {
    let note = format!(
        "To the NodeDeleted event at another connection, on another server where there are several: from sending \
         closeSession ({} times), or from closing the socket without it ({} owners, {} ms apart) with a session time-out \
         of {TIMEOUT_MS} ms. Fast death is a private option of ours: the session ends {GRACE_MS} ms after a lost socket.",
        CLOSED * effort,
        KILLED * effort,
        STAGGER.as_millis()
    );
    Table::new(&format!("Removal of ephemerals, {nodes} nodes"), &note)
}

/// Adds one system's times.
///
/// # Errors
/// When a server refuses, hangs, or tells something else.
pub fn measure(table: &mut Table, system: &System, effort: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for (end, what) in [
        (End::Closes, "session closed".to_string()),
        (End::IsKilled, format!("client killed, time-out {TIMEOUT_MS} ms")),
        (End::IsKilledFast, format!("client killed, fast death after {GRACE_MS} ms")),
    ] {
        let labels = [("p50", 0.5), ("longest", 1.0)]
            .map(|(name, share)| (format!("{what}: {name} ms"), share));
        if end == End::IsKilledFast && system.product != Product::Coordinator {
            for (label, _) in labels {
                table.miss(&label, Better::Lower, system.name(), "has no such option");
            }
            continue;
        }
        let times = runtime.block_on(async {
            match end {
                End::Closes => in_turn(system, CLOSED * effort).await,
                End::IsKilled | End::IsKilledFast => together(system, end, KILLED * effort).await,
            }
        })?;
        for (label, share) in labels {
            table.put(&label, Better::Lower, system.name(), quantile(&times, share));
        }
    }
    Ok(())
}

/// Milliseconds, sorted, one owner after the other.
async fn in_turn(system: &System, count: usize) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(count);
    for number in 0..WARM_UP + count {
        let time = run(&system.ensemble_addresses, number, End::Closes).await?;
        if number >= WARM_UP {
            times.push(time);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// Milliseconds, sorted, of owners that live at the same time.
async fn together(system: &System, end: End, count: usize) -> Result<Vec<f64>> {
    let mut owners = JoinSet::new();
    for number in 0..count {
        let addresses = system.ensemble_addresses.clone();
        owners.spawn(async move {
            tokio::time::sleep(STAGGER * u32::try_from(number)?).await;
            run(&addresses, number, end).await
        });
    }
    let mut times = Vec::with_capacity(count);
    while let Some(time) = owners.join_next().await {
        times.push(time??);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

async fn run(addresses: &[String], number: usize, end: End) -> Result<f64> {
    let mut owner = Session::open(&addresses[number % addresses.len()], TIMEOUT_MS).await?;
    let other = &addresses[(number + 1) % addresses.len()];
    let mut watcher = Session::open(other, SESSION_TIMEOUT_MS).await?;
    if end == End::IsKilledFast {
        let options = SessionOptionsRequest { fast_death_grace_ms: GRACE_MS };
        owner.ask(&Request::SessionOptions(options)).await?;
    }
    let path = format!("/ephemeral-{end:?}-{number}");
    let data = Bytes::from_static(b"x");
    owner.ask(&create(path.clone(), &data, CreateMode::Ephemeral)).await?;
    // The other server may be behind.
    watcher.ask(&Request::Sync(path.clone())).await?;
    watcher.ask(&Request::GetData(PathWatch { path, watch: true })).await?;
    let ended = Instant::now();
    match end {
        End::Closes => owner.send(&Request::CloseSession).await?,
        End::IsKilled | End::IsKilledFast => drop(owner),
    }
    let event = watcher.event().await?;
    let time = ended.elapsed().as_secs_f64() * 1e3;
    ensure!(event.event == EventType::NodeDeleted, "an event of another kind: {event:?}");
    watcher.ask(&Request::CloseSession).await?;
    Ok(time)
}
