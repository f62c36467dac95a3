//! Coordinator and ZooKeeper under the same clients: creates, sets and gets.
//!
//! Called by: `plan`. Each connection has a session of its own on one of the servers and keeps `depth`
//! requests in flight.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use coordinator_protocol::{
    Acl, ConnectRequest, CreateMode, CreateRequest, FRAME_BYTES_MAX, PathWatch, Request, SessionId,
    SessionPassword, SetDataRequest, Xid, Zxid, decode_frame, encode_request,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::report::{Better, Table};
use e2e::peers::System;

const SESSION_TIMEOUT_MS: i32 = 30_000;
/// A hang guard for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Create,
    Set,
    Get,
}

#[derive(Clone, Copy, Debug)]
struct Work {
    operation: Operation,
    connections: usize,
    depth: usize,
    size: usize,
}

const WORKS: [Work; 9] = [
    Work { operation: Operation::Create, connections: 1, depth: 1, size: 100 },
    Work { operation: Operation::Set, connections: 1, depth: 1, size: 100 },
    Work { operation: Operation::Get, connections: 1, depth: 1, size: 100 },
    Work { operation: Operation::Create, connections: 64, depth: 1, size: 100 },
    Work { operation: Operation::Set, connections: 64, depth: 1, size: 100 },
    Work { operation: Operation::Set, connections: 64, depth: 1, size: 1024 },
    Work { operation: Operation::Get, connections: 64, depth: 1, size: 100 },
    Work { operation: Operation::Set, connections: 16, depth: 64, size: 100 },
    Work { operation: Operation::Get, connections: 16, depth: 64, size: 100 },
];

impl Work {
    /// What its rows begin with.
    fn label(&self) -> String {
        let Work { operation, connections, depth, size } = self;
        format!("{operation:?} {size} B, {connections} connections, {depth} in flight")
    }
}

/// Whether any work's label contains `text`.
pub fn has_rows(text: &str) -> bool {
    WORKS.iter().any(|work| work.label().contains(text))
}

/// Runs every work whose label contains `rows` on every system in turn.
///
/// # Errors
/// When a server refuses a request or hangs.
pub fn measure(systems: &[System], nodes: u32, time: Duration, rows: &str) -> Result<Table> {
    let title = format!("Coordinator and ZooKeeper, {nodes} nodes");
    let note = format!(
        "Both sync every write. {} s each after as long a warm-up; clients are spread over the servers. \
         CPU: seconds of all servers per million requests.",
        time.as_secs()
    );
    let mut table = Table::new(&title, &note);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let wanted = WORKS.iter().enumerate().filter(|(_, work)| work.label().contains(rows));
    for (number, work) in wanted {
        for system in systems {
            let warm_up = format!("/w{number}");
            runtime.block_on(run(system, work, &warm_up, time / 2))?;
            let before = system.usage();
            let done = runtime.block_on(run(system, work, &format!("/m{number}"), time))?;
            let cpu_s = system.usage().cpu_s - before.cpu_s;
            record(&mut table, system.name(), work, (&done, cpu_s, time));
        }
    }
    for system in systems {
        let each = system.usage().resident_mb / system.ensemble.len().max(1) as f64;
        table.put("memory after it, a server, MB", Better::Lower, system.name(), each);
    }
    Ok(table)
}

fn record(
    table: &mut Table,
    system: &str,
    work: &Work,
    (latencies, cpu_s, time): (&[f64], f64, Duration),
) {
    let label = work.label();
    let count = latencies.len() as f64;
    let mut put = |what: &str, better, figure| {
        table.put(&format!("{label}: {what}"), better, system, figure);
    };
    put("per s", Better::Higher, count / time.as_secs_f64());
    let at = |share: f64| latencies.get(((count - 1.0) * share) as usize).copied();
    for (what, share) in [("p50 ms", 0.5), ("p99 ms", 0.99)] {
        put(what, Better::Lower, at(share).unwrap_or(f64::NAN));
    }
    put("CPU s per million", Better::Lower, cpu_s * 1e6 / count.max(1.0));
}

/// Latencies in milliseconds, sorted, of what was answered within `time`.
async fn run(system: &System, work: &Work, root: &str, time: Duration) -> Result<Vec<f64>> {
    let addresses = &system.ensemble_addresses;
    let first = addresses.first().context("the system has no ensemble")?;
    let mut setup = Connection::open(first).await?;
    let data = Bytes::from(vec![b'x'; work.size]);
    setup.create(root, &data).await?;
    let mut clients = JoinSet::new();
    for number in 0..work.connections {
        let path = format!("{root}/{number}");
        setup.create(&path, &data).await?;
        let address = addresses[number % addresses.len()].clone();
        let (work, data) = (*work, data.clone());
        clients.spawn(async move {
            let connection = Connection::open(&address).await?;
            connection.load(&work, &path, &data, time).await
        });
    }
    let mut all = Vec::new();
    while let Some(latencies) = clients.join_next().await {
        all.extend(latencies??);
    }
    all.sort_by(f64::total_cmp);
    Ok(all)
}

struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
    next_xid: i32,
}

impl Connection {
    async fn open(address: &str) -> Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut connection = Connection { stream, buffer: BytesMut::new(), next_xid: 1 };
        let hello = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid::new(0),
            timeout_ms: SESSION_TIMEOUT_MS,
            session: SessionId::NONE,
            password: SessionPassword::zeros(),
            read_only: Some(false),
        };
        connection.stream.write_all(&hello.encode_frame()).await?;
        connection.answer().await?;
        Ok(connection)
    }

    async fn answer(&mut self) -> Result<Bytes> {
        loop {
            if let Some(frame) = decode_frame(&mut self.buffer, FRAME_BYTES_MAX)? {
                return Ok(frame);
            }
            let read = tokio::time::timeout(ANSWER_LIMIT, self.stream.read_buf(&mut self.buffer));
            if read.await.context("a server hangs")?? == 0 {
                bail!("a server closed the connection");
            }
        }
    }

    async fn create(&mut self, path: &str, data: &Bytes) -> Result<()> {
        let request = request(Operation::Create, path, data);
        self.stream.write_all(&encode_request(Xid::new(0), &request)).await?;
        check(&self.answer().await?)
    }

    /// Keeps `depth` requests in flight for `time`, then waits for the last.
    async fn load(
        mut self,
        work: &Work,
        path: &str,
        data: &Bytes,
        time: Duration,
    ) -> Result<Vec<f64>> {
        let began = Instant::now();
        let mut sent = std::collections::VecDeque::new();
        let mut latencies = Vec::new();
        for _ in 0..work.depth {
            self.send(work.operation, path, data).await?;
            sent.push_back(Instant::now());
        }
        while let Some(at) = sent.pop_front() {
            check(&self.answer().await?)?;
            if began.elapsed() < time {
                latencies.push(at.elapsed().as_secs_f64() * 1e3);
                self.send(work.operation, path, data).await?;
                sent.push_back(Instant::now());
            }
        }
        Ok(latencies)
    }

    async fn send(&mut self, operation: Operation, path: &str, data: &Bytes) -> Result<()> {
        let xid = self.next_xid;
        self.next_xid += 1;
        let path = match operation {
            Operation::Create => format!("{path}/{xid}"),
            Operation::Set | Operation::Get => path.to_string(),
        };
        let frame = encode_request(Xid::new(xid), &request(operation, &path, data));
        Ok(self.stream.write_all(&frame).await?)
    }
}

fn request(operation: Operation, path: &str, data: &Bytes) -> Request {
    let path = path.to_string();
    match operation {
        Operation::Create => Request::Create(CreateRequest {
            path,
            data: Some(data.clone()),
            acl: Acl::open(),
            flags: CreateMode::Persistent as i32,
        }),
        Operation::Set => {
            Request::SetData(SetDataRequest { path, data: Some(data.clone()), version: -1 })
        }
        Operation::Get => Request::GetData(PathWatch { path, watch: false }),
    }
}

/// A reply's header is xid, zxid and the error, which has to be none.
fn check(frame: &[u8]) -> Result<()> {
    let error = frame.get(12..16).context("a reply without a header")?;
    ensure!(error == [0; 4], "a server refused a request: {error:?}");
    Ok(())
}
