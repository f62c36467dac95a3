//! Asks running nodes what they are: ready, leader, controller.
//!
//! Called by: `cluster`, the `cluster` command. Every question has a time limit of its own, so that
//! a paused process cannot hold the asker.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::Serialize;

use super::{Cluster, Kind, Node};

const ANSWER_LIMIT: Duration = Duration::from_secs(1);
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// A coordinator as `status` prints it.
#[derive(Clone, Debug, Serialize)]
pub struct CoordinatorStatus {
    /// `coordinator-1`.
    pub name: String,
    /// Process id, 0 when it never started.
    pub pid: i32,
    /// Address for clients.
    pub address: String,
    /// `leader`, `follower`, `standalone`, `down`, or `no quorum`.
    pub role: String,
}

/// A broker as `status` prints it.
#[derive(Clone, Debug, Serialize)]
pub struct BrokerStatus {
    /// `broker-1`.
    pub name: String,
    /// Broker id.
    pub id: u32,
    /// Process id, 0 when it never started.
    pub pid: i32,
    /// Address for clients.
    pub address: String,
    /// `ready`, `starting` or `down`.
    pub state: &'static str,
}

/// What `up` and `status` print.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterStatus {
    /// Folder of the cluster.
    pub dir: String,
    /// The ensemble.
    pub coordinators: Vec<CoordinatorStatus>,
    /// The brokers.
    pub brokers: Vec<BrokerStatus>,
    /// How long `up` took until every node was ready, in milliseconds.
    pub ready_ms: u64,
}

/// Asks every node of the cluster.
pub fn status(cluster: &Cluster) -> ClusterStatus {
    ClusterStatus {
        dir: cluster.dir.display().to_string(),
        coordinators: cluster.of_kind(Kind::Coordinator).map(coordinator_status).collect(),
        brokers: cluster.of_kind(Kind::Broker).map(broker_status).collect(),
        ready_ms: cluster.ready_ms,
    }
}

/// Whether the node's `/ready` answers 200: in a quorum, or registered.
pub fn is_ready(node: &Node) -> bool {
    http_status(node, "/ready") == Some(200)
}

/// The role a coordinator gives in its answer to `srvr`.
pub fn coordinator_role(node: &Node) -> String {
    if !node.is_alive() {
        return "down".to_string();
    }
    ask(node, node.port, b"srvr")
        .and_then(|text| {
            text.lines().find_map(|line| line.strip_prefix("Mode: ").map(str::to_string))
        })
        .unwrap_or_else(|| "no quorum".to_string())
}

fn coordinator_status(node: &Node) -> CoordinatorStatus {
    CoordinatorStatus {
        name: node.name.clone(),
        pid: node.process.map_or(0, |process| process.pid),
        address: node.address(),
        role: coordinator_role(node),
    }
}

fn broker_status(node: &Node) -> BrokerStatus {
    let state = match (node.is_alive(), is_ready(node)) {
        (false, _) => "down",
        (true, true) => "ready",
        (true, false) => "starting",
    };
    BrokerStatus {
        name: node.name.clone(),
        id: node.id,
        pid: node.process.map_or(0, |process| process.pid),
        address: node.address(),
        state,
    }
}

fn http_status(node: &Node, path: &str) -> Option<u16> {
    http_answer(node, path)?.split_whitespace().nth(1)?.parse().ok()
}

/// What a node answers to a GET over HTTP, with status line and headers, up to a megabyte; `None` when nothing came.
pub fn http_answer(node: &Node, path: &str) -> Option<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    ask(node, node.http_port, request.as_bytes())
}

fn ask(node: &Node, port: u16, question: &[u8]) -> Option<String> {
    let address = SocketAddr::from((node.place.host, port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT).ok()?;
    stream.set_read_timeout(Some(ANSWER_LIMIT)).ok()?;
    stream.write_all(question).ok()?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}
