//! A tiny HTTP/1.1 server for probes: `/live`, `/ready`, `/metrics`; and for operators on this machine: `/commands`, POST
//! `/snapshot`.
//!
//! Called by: `server`. Calls: the core's status, `metrics`, `admin`.
//! Invariant: one request per connection, bounded in bytes, time and number. Who has asked for nothing yet makes room for
//! who comes next.
//! What does more than tell, or tells who is connected, is only for clients on the same machine that are no web pages.
//! Does not know: HTTP beyond that.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use coordinator_core::ServerId;
use coordinator_core::server::{Lack, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::admin::{self, Answer, COMMANDS_PATH, Desk, Question, mode_name, status};
use crate::asked_snapshots::SnapshotTaken;
use crate::audit::AuditCounts;
use crate::core_loop::{INPUTS_MAX, Input};
use crate::metrics::{self, Reading};
use crate::net::{Limits, Places, Seldom, Ticket, TooLarge};
use crate::standing::{linked, named};
use crate::storage::{Beginnings, SnapshotTimes};
use crate::tls::RenewalCounts;

/// A request's head may be no longer.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// From the first byte to the last.
const EXCHANGE_MAX: Duration = Duration::from_secs(5);
/// The same where a snapshot is waited for: gigabytes take their time.
const SNAPSHOT_MAX: Duration = Duration::from_secs(600);
/// To others, and to pages.
const NOT_FROM_HERE: &str =
    "only for commands on this machine that name it by an address or localhost\n";
/// Of who takes this for another port.
const NO_HTTP: &str = "a client that speaks no HTTP came to httpPort: those of ZooKeeper connect to clientPort, those of Kafka to a broker";
/// Exchanges at once, with those who have asked for nothing yet.
const EXCHANGES_MAX: usize = 256;

/// What probes are answered from.
#[derive(Clone)]
pub struct Probed {
    /// The way to the core, and what commands are told.
    pub desk: Arc<Desk>,
    /// Of snapshots.
    pub snapshot_times: Arc<SnapshotTimes>,
    /// Of the audit log, if there is one.
    pub audit_counts: Option<Arc<AuditCounts>>,
    /// Who began with another state.
    pub beginnings: Arc<Beginnings>,
    /// Of requests that were too large.
    pub too_large: Arc<TooLarge>,
    /// Of files for TLS, where some are followed.
    pub tls_renewals: Option<Arc<RenewalCounts>>,
}

/// Answers probes until the task is dropped.
pub async fn run(listener: TcpListener, probed: Probed) {
    let mut exchanges = JoinSet::new();
    let strangers = Arc::new(Seldom::default());
    let places = Places::new(Limits { clients_max: EXCHANGES_MAX, per_address_max: None });
    loop {
        while exchanges.try_join_next().is_some() {}
        let Ok((stream, address)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok((place, ticket)) = places.take(address.ip()).await else {
            debug!(%address, "too many requests at once: hung up");
            continue;
        };
        let (probed, strangers) = (probed.clone(), Arc::clone(&strangers));
        exchanges.spawn(async move {
            let _place = place;
            match exchange(stream, ticket, &probed).await {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    if let Some(clients) = strangers.count() {
                        warn!(from = %address, clients, "{error}; one of so many since the last such line");
                    }
                }
                Err(error) => debug!(%error, "a probe went away"),
                Ok(()) => {}
            }
        });
    }
}

async fn exchange(mut stream: TcpStream, ticket: Ticket, probed: &Probed) -> io::Result<()> {
    let head = tokio::select! {
        // Whichever it is, the other is of no more use.
        head = timeout(EXCHANGE_MAX, head(&mut stream)) => head??,
        () = ticket.sent_away() => return Ok(()),
    };
    let Some(head) = head.filter(|_| ticket.admit()) else { return Ok(()) };
    let (method, path) = asked(&head);
    if path == COMMANDS_PATH || path.starts_with("/commands/") {
        return command(stream, (method, path), &head, probed).await;
    }
    let (status, body) = match (method, path) {
        ("GET" | "HEAD", path) => timeout(EXCHANGE_MAX, answer(path, probed)).await?,
        ("POST", "/snapshot") if !is_from_here(&stream, &head) => {
            ("403 Forbidden", NOT_FROM_HERE.to_owned())
        }
        ("POST", "/snapshot") => timeout(SNAPSHOT_MAX, take_snapshot(probed)).await?,
        _ => ("405 Method Not Allowed", String::new()),
    };
    let body = if method == "HEAD" { String::new() } else { body };
    timeout(EXCHANGE_MAX, respond(&mut stream, &plain(status, body))).await?
}

/// What ZooKeeper's AdminServer does.
async fn command(
    mut stream: TcpStream,
    (method, path): (&str, &str),
    head: &str,
    probed: &Probed,
) -> io::Result<()> {
    let question = Question::new(path, method == "POST");
    let question = match question {
        _ if !is_from_here(&stream, head) => {
            let refusal = NOT_FROM_HERE.to_owned();
            let answer = plain("403 Forbidden", refusal);
            return timeout(EXCHANGE_MAX, respond(&mut stream, &answer)).await?;
        }
        _ if !matches!(method, "GET" | "HEAD" | "POST") => {
            let answer = plain("405 Method Not Allowed", String::new());
            return timeout(EXCHANGE_MAX, respond(&mut stream, &answer)).await?;
        }
        None => return timeout(EXCHANGE_MAX, respond(&mut stream, &admin::list())).await?,
        Some(question) => question,
    };
    let limit = if question.is_slow() { SNAPSHOT_MAX } else { EXCHANGE_MAX };
    let place = match question.is_list() {
        true => probed.desk.list_place().await,
        false => None,
    };
    let mut answer = match question.is_list() && place.is_none() {
        true => question.put_off(),
        false => timeout(limit, admin::answer(&question, &probed.desk)).await?,
    };
    if method == "HEAD" {
        answer.body.clear();
    }
    let sent = timeout(EXCHANGE_MAX, respond(&mut stream, &answer)).await;
    // Until then the list takes memory.
    drop(place);
    sent?
}

fn plain(status: &'static str, body: String) -> Answer {
    let content_type = "text/plain; charset=utf-8";
    Answer { status, content_type, headers: String::new(), body }
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
        // The length of a frame, where HTTP has a letter: who waits for an answer is not to wait for long.
        if head.first() == Some(&0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, NO_HTTP));
        }
        if head.len() > HEAD_BYTES_MAX {
            let answer = plain("431 Request Header Fields Too Large", String::new());
            respond(stream, &answer).await?;
            return Ok(None);
        }
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}

/// Method, path and whether a page may ask, of a request's head. All that tests of another crate need to know of it.
#[must_use]
pub fn http_request(head: &[u8]) -> (String, String, bool) {
    let head = String::from_utf8_lossy(head);
    let (method, path) = asked(&head);
    (method.to_owned(), path.to_owned(), is_of_page(&head))
}

/// The method, and the path without what follows a question mark; empty where there is none.
fn asked(head: &str) -> (&str, &str) {
    let mut words = head.split_ascii_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    (method, target.split('?').next().unwrap_or_default())
}

/// Whether a command on this machine asks. A page in a browser here could ask too, but says where it is from, or names
/// this machine by a name of its own, which is what a rebound one does.
fn is_from_here(stream: &TcpStream, head: &str) -> bool {
    let (Ok(from), Ok(to)) = (stream.peer_addr(), stream.local_addr()) else { return false };
    let is_near = from.ip().to_canonical().is_loopback() || from.ip() == to.ip();
    is_near && !is_of_page(head)
}

fn is_of_page(head: &str) -> bool {
    head.lines().skip(1).filter_map(|line| line.split_once(':')).any(|(name, value)| {
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "origin" | "referer" => true,
            "sec-fetch-site" => value != "none",
            "host" => !is_literal(value),
            _ => false,
        }
    })
}

/// Whether a host is written as an address, or as the one name that no name service is asked for.
fn is_literal(host: &str) -> bool {
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        _ => host,
    };
    let bare = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(bare);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

async fn take_snapshot(probed: &Probed) -> (&'static str, String) {
    match probed.desk.take_snapshot().await {
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
        return ("404 Not Found", "try /live, /ready, /metrics or /commands\n".to_owned());
    }
    const STOPPING: (&str, &str) = ("503 Service Unavailable", "stopping\n");
    if path == "/metrics" {
        return match metrics_text(probed).await {
            Some(text) => ("200 OK", text),
            None => (STOPPING.0, STOPPING.1.to_owned()),
        };
    }
    let Some(status) = status(&probed.desk.inputs).await else {
        return (STOPPING.0, STOPPING.1.to_owned());
    };
    with_odd_ones(readiness(&status), &probed.beginnings.odd_ones())
}

/// What a server says to who asks whether clients should come to it, and whether the next may be stopped.
fn readiness(status: &Status) -> (&'static str, String) {
    match mode_name(status.mode).filter(|_| status.confirmed) {
        Some(mode) if status.lack.is_some() => {
            ("503 Service Unavailable", format!("{mode}, {}\n", lacking(status)))
        }
        Some(mode) if status.disk.refuses_writes => {
            ("200 OK", format!("ready, {mode}, for reads only: little room on the disk\n"))
        }
        Some(mode) => ("200 OK", format!("ready, {mode}\n")),
        None if !status.member => {
            ("503 Service Unavailable", "no member of the ensemble\n".to_owned())
        }
        None if status.read_only => {
            ("503 Service Unavailable", format!("not in a quorum, read-only: {}\n", why(status)))
        }
        None => ("503 Service Unavailable", format!("not in a quorum: {}\n", why(status))),
    }
}

/// Who is not ready may lack those whom it cannot be linked to, whatever it waits for.
fn with_odd_ones(
    (code, said): (&'static str, String),
    odd_ones: &[ServerId],
) -> (&'static str, String) {
    if code == "200 OK" || odd_ones.is_empty() {
        return (code, said);
    }
    let said = said.trim_end();
    (code, format!("{said}; began with another state (see the log): {}\n", named(odd_ones)))
}

/// How far a server is that comes up.
fn lacking(status: &Status) -> String {
    let Some(Lack { applied, committed }) = status.lack else { return String::new() };
    match committed {
        Some(committed) => format!("catching up: {applied} of {committed}"),
        None => format!("catching up: {applied}, and the leader has not said of how many"),
    }
}

/// Why there is no quorum, as far as this server sees.
fn why(status: &Status) -> String {
    let leader = match status.leader {
        Some(leader) if leader == status.id => "too few others answer this leader".to_owned(),
        Some(leader) => format!("{leader} leads and is not heard of"),
        None => "no leader is known".to_owned(),
    };
    format!("{leader}; {}", linked(&status.links))
}

/// `None` while the server stops.
async fn metrics_text(probed: &Probed) -> Option<String> {
    let inputs_waiting = INPUTS_MAX.saturating_sub(probed.desk.inputs.capacity());
    let (answer, measured) = oneshot::channel();
    probed.desk.inputs.send(Input::Measures(answer)).await.ok()?;
    let (status, measures) = measured.await.ok()?;
    let (status, measures, syncs) = (&status, &measures, &*probed.desk.sync_times);
    let audit = probed.audit_counts.as_ref().map(|counts| counts.read());
    let snapshots = probed.snapshot_times.read();
    let too_large = probed.too_large.count();
    let tls_renewals = probed.tls_renewals.as_ref().map(|counts| counts.read());
    Some(metrics::text(&Reading {
        status,
        measures,
        syncs,
        snapshots,
        inputs_waiting,
        audit,
        too_large,
        tls_renewals,
    }))
}

async fn respond(stream: &mut TcpStream, answer: &Answer) -> io::Result<()> {
    let Answer { status, content_type, headers, body } = answer;
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{headers}Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::status as status_of;
    use coordinator_core::server::Mode;

    #[test]
    fn follower_without_what_the_others_have_is_not_ready_and_says_how_far_it_is() {
        let check = |lack: Option<Lack>, expected: (&str, &str)| {
            let status = Status { lack, ..status_of(Mode::Follower) };
            let (code, body) = readiness(&status);
            assert_eq!((code, body.as_str()), expected);
        };
        const WAIT: &str = "503 Service Unavailable";
        let lack = |applied, committed| Some(Lack { applied, committed });
        check(lack(120, Some(3041)), (WAIT, "follower, catching up: 120 of 3041\n"));
        let unknown = "follower, catching up: 0, and the leader has not said of how many\n";
        check(lack(0, None), (WAIT, unknown));
        check(None, ("200 OK", "ready, follower\n"));
    }

    #[test]
    fn server_that_is_not_ready_says_who_began_with_another_state() {
        let odd_ones = [2, 3].map(|id| ServerId::new(id).unwrap());
        let check = |status: &Status, expected: &str| {
            assert_eq!(with_odd_ones(readiness(status), &odd_ones).1, expected);
        };
        check(&status_of(Mode::Follower), "ready, follower\n");
        let lack = Some(Lack { applied: 1, committed: Some(9) });
        let expected =
            "follower, catching up: 1 of 9; began with another state (see the log): 2, 3\n";
        check(&Status { lack, ..status_of(Mode::Follower) }, expected);
    }

    #[test]
    fn commands_are_told_from_pages() {
        let of_page = |lines: &str| is_of_page(&format!("GET /commands HTTP/1.1\r\n{lines}\r\n"));
        for lines in [
            "",
            "Host: 127.0.0.1:8080\r\n",
            "Host: localhost\r\n",
            "host: [::1]:8080\r\n",
            "Host: 10.0.0.7\r\nUser-Agent: curl/8\r\n",
            "Host: 127.0.0.1\r\nSec-Fetch-Site: none\r\n",
        ] {
            assert!(!of_page(lines), "{lines}");
        }
        for lines in [
            "Host: 127.0.0.1\r\nOrigin: http://example.org\r\n",
            "Host: 127.0.0.1\r\nreferer: http://example.org/\r\n",
            "Host: 127.0.0.1\r\nSec-Fetch-Site: cross-site\r\n",
            "Host: example.org\r\n",
            "Host: example.org:8080\r\n",
            "Host: localhost.example.org\r\n",
        ] {
            assert!(of_page(lines), "{lines}");
        }
    }
}
