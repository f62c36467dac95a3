//! From a set to the watch event of everyone who watches: one watcher, and a thousand.
//!
//! Called by: `plan`. Calls: `session`. A round begins when every watcher's getData was answered and ends when every
//! one has its event; then all watch again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, ensure};
use bytes::Bytes;
use coordinator_protocol::{CreateMode, EventType, PathWatch, Request, SetDataRequest};
use e2e::peers::System;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::report::{Better, Table, quantile};
use crate::session::{SESSION_TIMEOUT_MS, Session, create};

/// How many watch at once, and how many rounds of a hundred there are for each unit of work.
const CROWDS: [(usize, usize); 2] = [(1, 5), (1_000, 1)];
/// Rounds that do not count.
const WARM_UP_ROUNDS: usize = 20;
/// Sessions that are opened at once: one by one, the first would end before the last is there where disks are slow.
const OPENING_MAX: usize = 16;
const DATA_BYTES: usize = 100;
/// A hang guard for all watchers together.
const ROUND_LIMIT: Duration = Duration::from_secs(120);

/// The empty table.
pub fn table(nodes: u32, effort: usize) -> Table {
    let rounds = CROWDS.map(|(_, rounds)| (rounds * 100 * effort).to_string()).join(" and ");
    let note = format!(
        "From the moment a set of 100 B is sent to the watch event. Each watcher has a session and a connection of its \
         own, spread over the servers, and watches anew by getData before each round; the set comes when all have been \
         answered. {rounds} rounds for one watcher and for a thousand, after {WARM_UP_ROUNDS} that do not count. One \
         thread reads all the events of either system, so that its own time is in the last of a thousand."
    );
    Table::new(&format!("Watch latency, {nodes} nodes"), &note)
}

/// Adds one system's times.
///
/// # Errors
/// When a server refuses, hangs, or tells something else.
pub fn measure(table: &mut Table, system: &System, effort: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for (watchers, rounds) in CROWDS {
        let rounds = rounds * 100 * effort;
        let times = runtime.block_on(run(system, watchers, rounds))?;
        let to_whom = match watchers {
            1 => "set to its event at the only watcher".to_string(),
            count => format!("set to the last of {count} watchers"),
        };
        for (what, share) in [("p50", 0.5), ("p99", 0.99)] {
            let measure = format!("{to_whom}: {what} ms");
            table.put(&measure, Better::Lower, system.name(), quantile(&times, share));
        }
    }
    Ok(())
}

/// What a watcher says of itself.
enum Told {
    Watches,
    Heard(Instant),
    Failed(Error),
}

/// Milliseconds of each round, sorted.
async fn run(system: &System, watchers: usize, rounds: usize) -> Result<Vec<f64>> {
    let addresses = &system.ensemble_addresses;
    let mut setter = Session::open(&addresses[0], SESSION_TIMEOUT_MS).await?;
    let path = format!("/watched-by-{watchers}");
    let data = Bytes::from(vec![b'x'; DATA_BYTES]);
    setter.ask(&create(path.clone(), &data, CreateMode::Persistent)).await?;
    let (tell, mut told) = mpsc::channel(watchers);
    let opening = Arc::new(Semaphore::new(OPENING_MAX));
    // They end with this.
    let mut tasks = JoinSet::new();
    for number in 0..watchers {
        // The first is on another server than who sets, where there is another.
        let address = addresses[(number + 1) % addresses.len()].clone();
        let (path, tell, opening) = (path.clone(), tell.clone(), Arc::clone(&opening));
        tasks.spawn(async move {
            let opened = {
                let _turn = opening.acquire().await;
                Session::open(&address, SESSION_TIMEOUT_MS).await
            };
            match opened {
                Ok(session) => watch(session, path, tell).await,
                // Who would hear of it has gone only when all is over.
                Err(error) => drop(tell.send(Told::Failed(error)).await),
            }
        });
    }
    let set = Request::SetData(SetDataRequest { path, data: Some(data), version: -1 });
    let mut times = Vec::with_capacity(rounds);
    for round in 0..WARM_UP_ROUNDS + rounds {
        hear(&mut told, watchers).await?;
        let sent = Instant::now();
        setter.ask(&set).await?;
        let last = hear(&mut told, watchers).await?.context("nobody heard of it")?;
        if round >= WARM_UP_ROUNDS {
            times.push((last - sent).as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// Takes one word of each, and gives the latest time at which an event was heard, if these were events.
async fn hear(told: &mut mpsc::Receiver<Told>, count: usize) -> Result<Option<Instant>> {
    let mut last = None;
    for _ in 0..count {
        let word = tokio::time::timeout(ROUND_LIMIT, told.recv()).await;
        match word.context("not every watcher heard of a set")?.context("all watchers are gone")? {
            Told::Watches => {}
            Told::Heard(at) => last = last.max(Some(at)),
            Told::Failed(error) => return Err(error.context("a watcher")),
        }
    }
    Ok(last)
}

async fn watch(mut session: Session, path: String, tell: mpsc::Sender<Told>) {
    let get = Request::GetData(PathWatch { path, watch: true });
    loop {
        let told = match session.ask(&get).await {
            Ok(_) => Told::Watches,
            Err(error) => Told::Failed(error),
        };
        let heard =
            if tell.send(told).await.is_ok() { changed(&mut session).await } else { return };
        // Nobody listens any more when the last round is over.
        if tell.send(heard.map_or_else(Told::Failed, Told::Heard)).await.is_err() {
            return;
        }
    }
}

async fn changed(session: &mut Session) -> Result<Instant> {
    let event = session.event().await?;
    let at = Instant::now();
    ensure!(event.event == EventType::NodeDataChanged, "an event of another kind: {event:?}");
    Ok(at)
}
