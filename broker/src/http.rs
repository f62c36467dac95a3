//! `/live`, `/ready` and `/metrics`, for whoever watches the process.
//!
//! Called by: the server's start. Invariant: a request costs one small buffer and a bounded time;
//! at most [`CONNECTIONS_MAX`] at once, and who has asked for nothing yet makes room for who comes next.
//! Does not know why the broker is ready, nor what is measured.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coordinator::{Limits, Places, Ticket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use crate::api::shared::Later;

/// Largest request that is read.
const REQUEST_BYTES_MAX: usize = 4 << 10;
/// Longest time for one request, and for its answer.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
/// Requests at once, with connections that have asked for nothing yet.
const CONNECTIONS_MAX: usize = 256;
/// Until it is tried again where the system has no more files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const TEXT_PLAIN: &str = "text/plain";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the answers are made of.
pub struct Probes {
    /// What `/ready` asks.
    pub ready: Box<dyn Fn() -> bool + Send + Sync>,
    /// What `/metrics` answers, in OpenMetrics' text form.
    pub metrics: Box<dyn Fn() -> Later<String> + Send + Sync>,
}

/// The bound socket.
pub struct Http {
    socket: TcpListener,
}

impl Http {
    /// Binds `address`.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { socket: TcpListener::bind(address).await? })
    }

    /// The address that was bound.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `stop` turns true.
    pub async fn run(self, probes: Probes, mut stop: watch::Receiver<bool>) {
        let probes = Arc::new(probes);
        let places = Places::new(Limits { clients_max: CONNECTIONS_MAX, per_address_max: None });
        let mut requests = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                // Each arm is cancel-safe: what is not taken stays where it is.
                accepted = self.socket.accept() => accepted,
                Some(_) = requests.join_next() => continue,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let Ok((stream, address)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok((place, ticket)) = places.take(address.ip()).await else {
                debug!(%address, "http: too many requests at once");
                continue;
            };
            let probes = Arc::clone(&probes);
            requests.spawn(async move {
                let _place = place;
                if let Err(error) = exchange(stream, ticket, &probes).await {
                    debug!("http: {error}");
                }
            });
        }
        requests.shutdown().await;
    }
}

async fn exchange(mut stream: TcpStream, ticket: Ticket, probes: &Probes) -> io::Result<()> {
    let request = tokio::select! {
        // Whichever it is, the other is of no more use.
        request = timeout(REQUEST_TIME_MAX, request(&mut stream)) => request??,
        () = ticket.sent_away() => return Ok(()),
    };
    if !ticket.admit() {
        return Ok(());
    }
    timeout(REQUEST_TIME_MAX, async {
        stream.write_all(respond(&request, probes).await.as_bytes()).await?;
        stream.shutdown().await
    })
    .await?
}

/// The head of the request, or as much of it as there is room for.
async fn request(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut request = Vec::with_capacity(REQUEST_BYTES_MAX);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if request.len() >= REQUEST_BYTES_MAX || stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    Ok(request)
}

async fn respond(request: &[u8], probes: &Probes) -> String {
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, path) = (words.next(), words.next());
    let plain = |body: &str| (TEXT_PLAIN, body.to_owned());
    let (status, (kind, body)) = match (method, path) {
        (Some(b"GET"), Some(b"/live")) => ("200 OK", plain("live\n")),
        (Some(b"GET"), Some(b"/ready")) if (probes.ready)() => ("200 OK", plain("ready\n")),
        (Some(b"GET"), Some(b"/ready")) => ("503 Service Unavailable", plain("not ready\n")),
        (Some(b"GET"), Some(b"/metrics")) => ("200 OK", (OPEN_METRICS, (probes.metrics)().await)),
        (Some(b"GET"), Some(_)) => ("404 Not Found", plain("try /live, /ready or /metrics\n")),
        _ => ("400 Bad Request", plain("GET /live, /ready or /metrics\n")),
    };
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn probes_are_answered_beside_connections_that_ask_for_nothing() {
        let http = Http::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = http.local_address().unwrap();
        let (stop, stopped) = watch::channel(false);
        let metrics = || -> Later<String> { Box::pin(std::future::ready(String::new())) };
        let probes = Probes { ready: Box::new(|| true), metrics: Box::new(metrics) };
        let served = tokio::spawn(http.run(probes, stopped));
        let begun = std::time::Instant::now();
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX + 10 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut probe = TcpStream::connect(address).await.unwrap();
        probe.write_all(b"GET /live HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        probe.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("live\n"), "{answer}");
        // It does not wait until one of them has had its time.
        assert!(begun.elapsed() < REQUEST_TIME_MAX, "{:?}", begun.elapsed());
        drop(silent);
        stop.send(true).unwrap();
        served.await.unwrap();
    }

    #[tokio::test]
    async fn readiness_is_a_status_code() {
        for (request, ready, status) in [
            (&b"GET /live HTTP/1.1\r\n\r\n"[..], false, "HTTP/1.1 200"),
            (b"GET /ready HTTP/1.1\r\n\r\n", false, "HTTP/1.1 503"),
            (b"GET /ready HTTP/1.1\r\n\r\n", true, "HTTP/1.1 200"),
            (b"GET /metrics HTTP/1.1\r\n\r\n", false, "HTTP/1.1 200"),
            (b"GET /other HTTP/1.1\r\n\r\n", true, "HTTP/1.1 404"),
            (b"POST /ready HTTP/1.1\r\n\r\n", true, "HTTP/1.1 400"),
            (b"", true, "HTTP/1.1 400"),
            (b"\xff\xfe", true, "HTTP/1.1 400"),
        ] {
            let metrics = || -> Later<String> { Box::pin(std::future::ready(String::new())) };
            let probes = Probes { ready: Box::new(move || ready), metrics: Box::new(metrics) };
            assert!(respond(request, &probes).await.starts_with(status), "{request:?}");
        }
    }
}
