//! Answers to the words that operators and clients send in place of a handshake.
//!
//! Called by: connections. Calls: the core's status.
//! Invariant: field names and forms are ZooKeeper's, because programs read them.
//! Does not know: the core.

use std::fmt::Write;

use coordinator_core::server::{Mode, Status};
use coordinator_protocol::FourLetterWord;
use tokio::sync::oneshot;

use crate::core_loop::{Input, Inputs};

/// The ZooKeeper release whose wire format and answers these are; clients choose what they send by it.
const ZOOKEEPER_VERSION: &str = "3.9.5";

/// The whole answer, without a trailing close.
pub async fn answer(word: FourLetterWord, inputs: &Inputs) -> String {
    match word {
        FourLetterWord::Ruok => "imok".to_owned(),
        FourLetterWord::Envi => environment(),
        FourLetterWord::Srvr
        | FourLetterWord::Stat
        | FourLetterWord::Mntr
        | FourLetterWord::Isro => match status(inputs).await {
            Some(status) => of_status(word, &status),
            None => NOT_SERVING.to_owned(),
        },
        FourLetterWord::Conf
        | FourLetterWord::Cons
        | FourLetterWord::Crst
        | FourLetterWord::Dirs
        | FourLetterWord::Dump
        | FourLetterWord::Gtmk
        | FourLetterWord::Hash
        | FourLetterWord::Srst
        | FourLetterWord::Stmk
        | FourLetterWord::Wchc
        | FourLetterWord::Wchp
        | FourLetterWord::Wchs => {
            format!("{} is not executed because it is not in the whitelist.\n", word.name())
        }
    }
}

const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests\n";

/// Asks the core's task; `None` while the server stops.
pub async fn status(inputs: &Inputs) -> Option<Status> {
    let (answer, status) = oneshot::channel();
    inputs.send(Input::Status(answer)).await.ok()?;
    status.await.ok()
}

/// ZooKeeper's word for the part in the ensemble; `None` while there is no part.
pub fn mode_name(mode: Mode) -> Option<&'static str> {
    match mode {
        Mode::Standalone => Some("standalone"),
        Mode::Leader => Some("leader"),
        Mode::Follower => Some("follower"),
        Mode::Observer => Some("observer"),
        Mode::Looking | Mode::Halted => None,
    }
}

fn of_status(word: FourLetterWord, status: &Status) -> String {
    // As ZooKeeper: a server that cannot serve says so, whatever it is asked.
    let confirmed = mode_name(status.mode).filter(|_| status.confirmed);
    let Some(mode) = confirmed.or(status.read_only.then_some("read-only")) else {
        return if word == FourLetterWord::Isro {
            "null".to_owned()
        } else {
            NOT_SERVING.to_owned()
        };
    };
    match word {
        FourLetterWord::Isro if status.read_only => "ro".to_owned(),
        FourLetterWord::Isro => "rw".to_owned(),
        FourLetterWord::Mntr => measures(status, mode),
        FourLetterWord::Stat => server(status, mode, "Clients:\n\n"),
        _ => server(status, mode, ""),
    }
}

fn server(status: &Status, mode: &str, clients: &str) -> String {
    let average = average(status);
    let Status { received, sent, connections, outstanding, nodes, zxid, .. } = status;
    let (min, max) = (status.latency_ms_min, status.latency_ms_max);
    format!(
        "Zookeeper version: {ZOOKEEPER_VERSION}-tidegate, built on {}\n{clients}\
         Latency min/avg/max: {min}/{average:.4}/{max}\n\
         Received: {received}\nSent: {sent}\nConnections: {connections}\nOutstanding: {outstanding}\n\
         Zxid: 0x{:x}\nMode: {mode}\nNode count: {nodes}\n",
        env!("CARGO_PKG_VERSION"),
        zxid.get(),
    )
}

fn measures(status: &Status, mode: &str) -> String {
    let mut text = format!(
        "zk_version\t{ZOOKEEPER_VERSION}-tidegate, built on {}\n",
        env!("CARGO_PKG_VERSION")
    );
    let _ = writeln!(text, "zk_server_state\t{mode}");
    for (name, value) in gauges(status) {
        let _ = writeln!(text, "zk_{name}\t{value}");
    }
    let _ = writeln!(text, "zk_avg_latency\t{:.4}", average(status));
    text
}

/// Every measure by its name in `mntr`, without the prefix.
pub fn gauges(status: &Status) -> [(&'static str, u64); 27] {
    [
        ("server_id", status.id.get()),
        ("leader_id", status.leader.map_or(0, u64::from)),
        ("quorum_confirmed", u64::from(status.confirmed)),
        ("peers_up", status.peers_up as u64),
        ("term", status.term),
        ("log_last_index", status.last_index),
        ("log_commit_index", status.commit_index),
        ("log_applied_index", status.applied_index),
        ("log_unsynced_bytes", status.unsynced_bytes),
        ("snapshot_index", status.snapshot_index),
        ("disk_free_bytes", status.disk.free_bytes.unwrap_or(0)),
        ("disk_free_bytes_wanted", status.disk.low_mark_bytes),
        ("disk_low", u64::from(status.disk.is_low)),
        ("writes_refused", u64::from(status.disk.refuses_writes)),
        ("znode_count", status.nodes as u64),
        ("ephemerals_count", status.ephemerals as u64),
        ("approximate_data_size", status.data_bytes),
        ("watch_count", status.watches as u64),
        ("subscription_count", status.subscriptions as u64),
        ("num_alive_connections", status.connections as u64),
        ("global_sessions", status.sessions as u64),
        ("outstanding_requests", status.outstanding as u64),
        ("packets_received", status.received),
        ("packets_sent", status.sent),
        ("min_latency", status.latency_ms_min),
        ("max_latency", status.latency_ms_max),
        ("latency_count", status.latency_count),
    ]
}

/// Mean time from request to reply, ms.
pub fn average(status: &Status) -> f64 {
    if status.latency_count == 0 {
        return 0.0;
    }
    status.latency_ms_sum as f64 / status.latency_count as f64
}

/// What clients ask for the version, in the form of ZooKeeper's Java properties.
fn environment() -> String {
    format!(
        "Environment:\nzookeeper.version={ZOOKEEPER_VERSION}-tidegate, built on {}\nos.name={}\nos.arch={}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
    )
}
