//! One session that writes, whatever becomes of its connection, and keeps a book of it.
//!
//! Called by: `leader_loss`. Calls: `session`. Invariant: one write is in flight at a time; each carries the next number;
//! one whose answer was lost is never repeated.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use coordinator_protocol::{CreateMode, PathWatch, Request, SetDataRequest, Zxid};
use tokio::time::timeout;

use crate::session::{Session, check, create, zxid};

const DATA_BYTES: usize = 100;
const TIMEOUT_MS: i32 = 10_000;
/// Usual clients try the next of three servers after a third of the session's time-out,
const ATTACH_LIMIT: Duration = Duration::from_millis(3_300);
/// and give a silent connection up after two thirds.
const WRITE_LIMIT: Duration = Duration::from_millis(6_600);
/// Between two servers that refuse.
const PAUSE: Duration = Duration::from_millis(5);
/// A hang guard: with nobody to attach to for so long there is nothing to measure.
const AWAY_LIMIT: Duration = Duration::from_secs(90);

/// What writers and who watches them share.
pub struct Shared {
    is_over: AtomicBool,
    /// Writes acknowledged so far, by writer.
    pub acknowledged: Vec<AtomicUsize>,
}

impl Shared {
    /// For so many writers.
    pub fn new(writers: usize) -> Shared {
        let acknowledged = (0..writers).map(|_| AtomicUsize::new(0)).collect();
        Shared { is_over: AtomicBool::new(false), acknowledged }
    }

    /// Each writer ends with its next write.
    pub fn stop(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// What one writer has seen.
pub struct Book {
    /// Where it wrote.
    pub path: String,
    /// When its writes were acknowledged, and in which leader's epoch.
    pub at: Vec<(Instant, u32)>,
    /// Number of the last write that was acknowledged.
    pub last_acknowledged: u64,
    /// Number of the last write that was sent.
    pub last_sent: u64,
    /// Connections that ended under it, or were silent for too long.
    pub dropped: usize,
    /// Writes that were sent and never answered.
    pub lost: usize,
    /// Writes that were answered with an error.
    pub refused: usize,
    /// Sessions that were over when it came back.
    pub expired: usize,
}

/// One session and where it can go.
pub struct Writer {
    addresses: Vec<String>,
    server: usize,
    number: usize,
    session: Session,
    seen: Zxid,
    shared: Arc<Shared>,
    book: Book,
}

impl Writer {
    /// Opens a session on the first of the servers and creates the znode.
    ///
    /// # Errors
    /// When the server refuses or hangs.
    pub async fn new(
        addresses: Vec<String>,
        path: String,
        number: usize,
        shared: Arc<Shared>,
    ) -> Result<Writer> {
        let mut session =
            Session::open(addresses.first().context("no server")?, TIMEOUT_MS).await?;
        let made = session.ask(&create(path.clone(), &data(0), CreateMode::Persistent)).await?;
        let book = Book {
            path,
            at: Vec::new(),
            last_acknowledged: 0,
            last_sent: 0,
            dropped: 0,
            lost: 0,
            refused: 0,
            expired: 0,
        };
        Ok(Writer { addresses, server: 0, number, session, seen: zxid(&made)?, shared, book })
    }

    /// Writes until it is told to stop.
    ///
    /// # Errors
    /// When no server takes it for a long time.
    pub async fn run(mut self) -> Result<Book> {
        while !self.shared.is_over.load(Ordering::Relaxed) {
            self.book.last_sent += 1;
            let number = self.book.last_sent;
            let Ok(Ok(frame)) = timeout(WRITE_LIMIT, self.write(number)).await else {
                self.book.lost += 1;
                self.book.dropped += 1;
                self.come_back().await?;
                continue;
            };
            if check(&frame).is_err() {
                self.book.refused += 1;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            self.seen = zxid(&frame)?;
            self.book.last_acknowledged = number;
            self.book.at.push((Instant::now(), self.seen.epoch()));
            if let Some(count) = self.shared.acknowledged.get(self.number) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.session.send(&Request::CloseSession).await?;
        Ok(self.book)
    }

    async fn write(&mut self, number: u64) -> Result<Bytes> {
        let (path, data) = (self.book.path.clone(), Some(data(number)));
        self.session.send(&Request::SetData(SetDataRequest { path, data, version: -1 })).await?;
        self.session.frame().await
    }

    /// Attaches the session at the next server that takes it, or opens another where it is over.
    async fn come_back(&mut self) -> Result<()> {
        let away = Instant::now();
        loop {
            ensure!(away.elapsed() < AWAY_LIMIT, "no server takes a session");
            self.server = (self.server + 1) % self.addresses.len();
            let address = &self.addresses[self.server];
            let attach = Session::attach(address, self.session.identity.clone(), self.seen);
            match timeout(ATTACH_LIMIT, attach).await {
                Ok(Ok(Some(session))) => {
                    self.session = session;
                    return Ok(());
                }
                Ok(Ok(None)) => {
                    self.book.expired += 1;
                    self.session = Session::open(address, TIMEOUT_MS).await?;
                    return Ok(());
                }
                Ok(Err(_)) | Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

/// The number of the write that a znode holds now.
///
/// # Errors
/// When the server refuses or hangs, or the data is no write's.
pub async fn held(address: &str, path: &str) -> Result<u64> {
    let mut session = Session::open(address, TIMEOUT_MS).await?;
    session.ask(&Request::Sync(path.to_string())).await?;
    let get = PathWatch { path: path.to_string(), watch: false };
    let frame = session.ask(&Request::GetData(get)).await?;
    // Behind the reply's header is the length of the data, and the data.
    let data = frame.get(20..20 + DATA_BYTES).context("a znode without its data")?;
    Ok(std::str::from_utf8(data)?.parse()?)
}

fn data(number: u64) -> Bytes {
    Bytes::from(format!("{number:0DATA_BYTES$}"))
}
