//! Coordinator and ZooKeeper under the same clients: creates, sets and gets.
//!
//! Called by: `plan`. Calls: `session`. Each connection has a session of its own on one of the servers and keeps
//! `depth` requests in flight.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use coordinator_protocol::{CreateMode, MultiOp, PathWatch, Request, SetDataRequest};
use tokio::task::JoinSet;

use crate::report::{Better, Table, quantile};
use crate::session::{SESSION_TIMEOUT_MS, Session, check, create};
use e2e::peers::System;

/// A load creates no more than that: it ends early, and its rate is that of the time it took. More of 1 KiB
/// each would measure how a server's heap overflows.
const CREATED_MAX: usize = 300_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Create,
    Set,
    Get,
}

const OPERATIONS: [Operation; 3] = [Operation::Create, Operation::Set, Operation::Get];
const SIZES: [usize; 2] = [100, 1024];
const CONNECTIONS: [usize; 2] = [1, 64];
const DEPTHS: [usize; 3] = [1, 16, 64];

/// What each connection does, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    operation: Operation,
    size: usize,
    connections: usize,
    depth: usize,
}

const fn work(operation: Operation, size: usize, connections: usize, depth: usize) -> Work {
    Work { operation, size, connections, depth }
}

/// A choice of them all, and what has always been measured.
const CHOICE: [Work; 12] = [
    work(Operation::Create, 100, 1, 1),
    work(Operation::Set, 100, 1, 1),
    work(Operation::Get, 100, 1, 1),
    work(Operation::Create, 100, 64, 1),
    work(Operation::Create, 1024, 64, 1),
    work(Operation::Set, 100, 64, 1),
    work(Operation::Set, 1024, 64, 1),
    work(Operation::Get, 100, 64, 1),
    work(Operation::Set, 100, 1, 16),
    work(Operation::Set, 100, 64, 16),
    work(Operation::Set, 100, 16, 64),
    work(Operation::Get, 100, 16, 64),
];

/// The choice, or every operation of every size on every number of connections at every depth.
pub fn works(is_whole: bool) -> Vec<Work> {
    let mut works = CHOICE.to_vec();
    if !is_whole {
        return works;
    }
    for operation in OPERATIONS {
        for size in SIZES {
            for connections in CONNECTIONS {
                works.extend(DEPTHS.map(|depth| work(operation, size, connections, depth)));
            }
        }
    }
    let kind = |work: &Work| OPERATIONS.iter().position(|operation| *operation == work.operation);
    works.sort_by_key(|work| (work.connections, work.depth, work.size, kind(work)));
    works.dedup();
    works
}

impl Work {
    /// What its rows begin with.
    pub fn label(&self) -> String {
        let Work { operation, connections, depth, size } = self;
        format!("{operation:?} {size} B, {connections} connections, {depth} in flight")
    }
}

/// What one load did.
struct Done {
    /// In milliseconds, sorted.
    latencies: Vec<f64>,
    /// To the last answer that counts.
    taken: Duration,
    /// Parents, and how many children they were given.
    made: Vec<(String, usize)>,
}

/// Runs every work on every system in turn.
///
/// # Errors
/// When a server refuses a request or hangs.
pub fn measure(systems: &[System], nodes: u32, time: Duration, works: &[Work]) -> Result<Table> {
    let title = format!("Coordinator and ZooKeeper, {nodes} nodes");
    let note = format!(
        "Both sync every write. {} s each after half as long a warm-up (creates: at most {CREATED_MAX} znodes, and \
         removed behind each load); clients are spread over the servers. CPU: seconds of all servers per million \
         requests.",
        time.as_secs()
    );
    let mut table = Table::new(&title, &note);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for (number, work) in works.iter().enumerate() {
        for system in systems {
            let warm = runtime.block_on(run(system, work, &format!("/w{number}"), time / 2))?;
            runtime.block_on(remove(system, &warm.made))?;
            let before = system.usage();
            let done = runtime.block_on(run(system, work, &format!("/m{number}"), time))?;
            let cpu_s = system.usage().cpu_s - before.cpu_s;
            runtime.block_on(remove(system, &done.made))?;
            record(&mut table, system.name(), work, (&done, cpu_s));
        }
    }
    for system in systems {
        let each = system.usage().resident_mb / system.ensemble.len().max(1) as f64;
        table.put("memory after it, a server, MB", Better::Lower, system.name(), each);
    }
    Ok(table)
}

fn record(table: &mut Table, system: &str, work: &Work, (done, cpu_s): (&Done, f64)) {
    let label = work.label();
    let count = done.latencies.len() as f64;
    let mut put = |what: &str, better, figure| {
        table.put(&format!("{label}: {what}"), better, system, figure);
    };
    put("per s", Better::Higher, count / done.taken.as_secs_f64());
    for (what, share) in [("p50 ms", 0.5), ("p99 ms", 0.99)] {
        put(what, Better::Lower, quantile(&done.latencies, share));
    }
    put("CPU s per million", Better::Lower, cpu_s * 1e6 / count.max(1.0));
}

/// What was answered within `time`, below a new znode `root`.
async fn run(system: &System, work: &Work, root: &str, time: Duration) -> Result<Done> {
    let addresses = &system.ensemble_addresses;
    let first = addresses.first().context("the system has no ensemble")?;
    let mut setup = Session::open(first, SESSION_TIMEOUT_MS).await?;
    let data = Bytes::from(vec![b'x'; work.size]);
    setup.ask(&create(root.to_string(), &data, CreateMode::Persistent)).await?;
    let mut clients = JoinSet::new();
    for number in 0..work.connections {
        let path = format!("{root}/{number}");
        setup.ask(&create(path.clone(), &data, CreateMode::Persistent)).await?;
        let address = addresses[number % addresses.len()].clone();
        let load = Load { work: *work, path, data: data.clone(), time };
        clients.spawn(
            async move { load.run(Session::open(&address, SESSION_TIMEOUT_MS).await?).await },
        );
    }
    let mut all = Done { latencies: Vec::new(), taken: Duration::ZERO, made: Vec::new() };
    while let Some(done) = clients.join_next().await {
        let Done { latencies, taken, made } = done??;
        all.latencies.extend(latencies);
        all.taken = all.taken.max(taken);
        all.made.extend(made);
    }
    all.latencies.sort_by(f64::total_cmp);
    Ok(all)
}

/// Removes what a load created, so that the next begins with as little.
async fn remove(system: &System, made: &[(String, usize)]) -> Result<()> {
    let first = system.ensemble_addresses.first().context("the system has no ensemble")?;
    let mut session = Session::open(first, SESSION_TIMEOUT_MS).await?;
    let children = made.iter().flat_map(|(path, count)| {
        (1..=*count).map(move |child| MultiOp::delete(format!("{path}/{child}"), None))
    });
    session.carry_out(children).await
}

/// What one connection does.
struct Load {
    work: Work,
    path: String,
    data: Bytes,
    time: Duration,
}

impl Load {
    /// Keeps `depth` requests in flight for `time`, then waits for the last.
    async fn run(self, mut session: Session) -> Result<Done> {
        let is_create = self.work.operation == Operation::Create;
        let limit = if is_create { CREATED_MAX / self.work.connections } else { usize::MAX };
        let (mut in_flight, mut count) = (VecDeque::new(), 0);
        let (mut latencies, mut taken) = (Vec::new(), Duration::ZERO);
        let began = Instant::now();
        loop {
            while count < limit && in_flight.len() < self.work.depth && began.elapsed() < self.time
            {
                count += 1;
                session.send(&self.request(count)).await?;
                in_flight.push_back(Instant::now());
            }
            let Some(sent) = in_flight.pop_front() else { break };
            check(&session.frame().await?)?;
            if began.elapsed() < self.time {
                latencies.push(sent.elapsed().as_secs_f64() * 1e3);
                taken = began.elapsed();
            }
        }
        let made = if is_create { vec![(self.path, count)] } else { Vec::new() };
        Ok(Done { latencies, taken, made })
    }

    fn request(&self, number: usize) -> Request {
        let (path, data) = (self.path.clone(), self.data.clone());
        match self.work.operation {
            Operation::Create => create(format!("{path}/{number}"), &data, CreateMode::Persistent),
            Operation::Set => {
                Request::SetData(SetDataRequest { path, data: Some(data), version: -1 })
            }
            Operation::Get => Request::GetData(PathWatch { path, watch: false }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_work_has_every_combination_once_and_the_choice() {
        let whole = works(true);
        for operation in OPERATIONS {
            for (size, connections) in [(100, 1), (100, 64), (1024, 1), (1024, 64)] {
                for depth in DEPTHS {
                    let wanted = work(operation, size, connections, depth);
                    assert_eq!(whole.iter().filter(|work| **work == wanted).count(), 1);
                }
            }
        }
        assert!(works(false).iter().all(|chosen| whole.contains(chosen)));
        assert_eq!(whole.len(), 36 + 2);
    }
}
