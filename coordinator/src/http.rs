//! A tiny HTTP/1.1 server for probes: `/live`, `/ready`, `/metrics`; and for operators on this machine: POST `/snapshot`.
//!
//! Called by: `server`. Calls: the core's status, `metrics`.
//! Invariant: one request per connection, bounded in bytes, time and number.
//! What does more than tell is done only for clients on the same machine that are no web pages.
//! Does not know: HTTP beyond that.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use crate::asked_snapshots::SnapshotTaken;
use crate::audit::AuditCounts;
use crate::core_loop::{INPUTS_MAX, Input, Inputs};
use crate::metrics::{self, Reading};
use crate::net::{mode_name, status};
use crate::storage::SyncTimes;

/// A request's head may be no longer.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// From the first byte to the last.
const EXCHANGE_MAX: Duration = Duration::from_secs(5);
/// The same where a snapshot is waited for: gigabytes take their time.
const SNAPSHOT_MAX: Duration = Duration::from_secs(600);
/// Exchanges at once.
const EXCHANGES_MAX: usize = 64;

/// What probes are answered from.
#[derive(Clone)]
pub struct Probed {
    /// The way to the core.
    pub inputs: Inputs,
    /// Of the log.
    pub sync_times: Arc<SyncTimes>,
    /// Of the audit log, if there is one.
    pub audit_counts: Option<Arc<AuditCounts>>,
}

/// Answers probes until the task is dropped.
pub async fn run(listener: TcpListener, probed: Probed) {
    let mut exchanges = JoinSet::new();
    loop {
        // The kernel's backlog holds what is more.
        while exchanges.try_join_next().is_some() {}
        if exchanges.len() == EXCHANGES_MAX {
            exchanges.join_next().await;
        }
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let probed = probed.clone();
        exchanges.spawn(async move {
            if let Err(error) = exchange(stream, &probed).await {
                debug!(%error, "a probe went away");
            }
        });
    }
}

async fn exchange(mut stream: TcpStream, probed: &Probed) -> io::Result<()> {
    let Some(head) = timeout(EXCHANGE_MAX, head(&mut stream)).await?? else { return Ok(()) };
    let mut words = head.split_ascii_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let (status, body) = match (method, path) {
        ("GET" | "HEAD", path) => timeout(EXCHANGE_MAX, answer(path, probed)).await?,
        ("POST", "/snapshot") if !is_from_here(&stream, &head) => {
            ("403 Forbidden", "only for commands on this machine\n".to_owned())
        }
        ("POST", "/snapshot") => timeout(SNAPSHOT_MAX, take_snapshot(probed)).await?,
        _ => ("405 Method Not Allowed", String::new()),
    };
    let body = if method == "HEAD" { "" } else { &body };
    timeout(EXCHANGE_MAX, respond(&mut stream, status, body)).await?
}

/// The request without its body; `None` when there is none.
async fn head(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    let mut chunk = [0; 512];
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let count = stream.read(&mut chunk).await?;
        if count == 0 {
            return Ok(None);
        }
        head.extend_from_slice(&chunk[..count]);
        if head.len() > HEAD_BYTES_MAX {
            respond(stream, "431 Request Header Fields Too Large", "").await?;
            return Ok(None);
        }
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}

/// Whether a command on this machine asks. A page in a browser here could ask too, but says where it is from.
fn is_from_here(stream: &TcpStream, head: &str) -> bool {
    let (Ok(from), Ok(to)) = (stream.peer_addr(), stream.local_addr()) else { return false };
    let is_near = from.ip().to_canonical().is_loopback() || from.ip() == to.ip();
    let is_page = head.lines().any(|line| line.to_ascii_lowercase().starts_with("origin:"));
    is_near && !is_page
}

async fn take_snapshot(probed: &Probed) -> (&'static str, String) {
    let (answer, taken) = oneshot::channel();
    let asked = probed.inputs.send(Input::Snapshot(answer)).await;
    let outcome = match (asked, taken.await) {
        (Ok(()), Ok(outcome)) => outcome,
        _ => Err("the server stops".to_owned()),
    };
    match outcome {
        Ok(SnapshotTaken { file, bytes, index, zxid }) => {
            let zxid = format!("{:#x}", zxid.get());
            let file = std::path::absolute(&file).unwrap_or(file);
            let body = serde_json::json!({
                "file": file.display().to_string(), "bytes": bytes, "log_index": index, "zxid": zxid,
            });
            ("200 OK", format!("{body}\n"))
        }
        Err(reason) => ("503 Service Unavailable", format!("{reason}\n")),
    }
}

async fn answer(path: &str, probed: &Probed) -> (&'static str, String) {
    if path == "/live" {
        return ("200 OK", "live\n".to_owned());
    }
    if !matches!(path, "/ready" | "/metrics") {
        return ("404 Not Found", "try /live, /ready or /metrics\n".to_owned());
    }
    const STOPPING: (&str, &str) = ("503 Service Unavailable", "stopping\n");
    if path == "/metrics" {
        return match metrics_text(probed).await {
            Some(text) => ("200 OK", text),
            None => (STOPPING.0, STOPPING.1.to_owned()),
        };
    }
    let Some(status) = status(&probed.inputs).await else {
        return (STOPPING.0, STOPPING.1.to_owned());
    };
    match mode_name(status.mode).filter(|_| status.confirmed) {
        Some(mode) if status.disk.refuses_writes => {
            ("200 OK", format!("ready, {mode}, for reads only: little room on the disk\n"))
        }
        Some(mode) => ("200 OK", format!("ready, {mode}\n")),
        None if !status.member => {
            ("503 Service Unavailable", "no member of the ensemble\n".to_owned())
        }
        None if status.read_only => {
            ("503 Service Unavailable", "not in a quorum, read-only\n".to_owned())
        }
        None => ("503 Service Unavailable", "not in a quorum\n".to_owned()),
    }
}

/// `None` while the server stops.
async fn metrics_text(probed: &Probed) -> Option<String> {
    let inputs_waiting = INPUTS_MAX.saturating_sub(probed.inputs.capacity());
    let (answer, measured) = oneshot::channel();
    probed.inputs.send(Input::Measures(answer)).await.ok()?;
    let (status, measures) = measured.await.ok()?;
    let (status, measures, syncs) = (&status, &measures, &*probed.sync_times);
    let audit = probed.audit_counts.as_ref().map(|counts| counts.read());
    Some(metrics::text(&Reading { status, measures, syncs, inputs_waiting, audit }))
}

async fn respond(stream: &mut TcpStream, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}
