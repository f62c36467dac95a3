//! The way from the core's task to the audit log's files.
//!
//! Called by: the core's task. Calls: `line` and `file`, on a thread of its own.
//! Invariant: the core's task never waits, and what waits for the disk is bounded, in records and in bytes: a record that
//! finds no room in the queue, or cannot be written, is dropped and counted, and the log says so. Records are not synced: a power cut may take the last ones.
//! Does not know: what is recorded, and why.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use coordinator_core::server::AuditRecord;
use coordinator_disk::Disk;
use tracing::{error, warn};

use super::file::Files;
use super::line;
use crate::net::Seldom;

/// Records that wait to be written.
const QUEUE_MAX: usize = 10_000;
/// Bytes of those records, and of those that are being written.
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// Records written at once.
const BATCH_MAX: usize = 256;

/// Where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditSettings {
    /// The newest file.
    pub path: PathBuf,
    /// A further one begins before one has more bytes.
    pub bytes_max: u64,
    /// Files kept.
    pub files_max: usize,
}

/// What came of records, since start.
#[derive(Debug, Default)]
pub struct AuditCounts {
    written: AtomicU64,
    dropped: AtomicU64,
}

impl AuditCounts {
    /// Written, and dropped.
    pub fn read(&self) -> (u64, u64) {
        (self.written.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed))
    }
}

/// Where records are put.
struct Queue {
    records: mpsc::SyncSender<Box<AuditRecord>>,
    /// Bytes of all that was put and is not written yet.
    bytes: Arc<AtomicUsize>,
}

/// The other end.
struct Waiting {
    records: mpsc::Receiver<Box<AuditRecord>>,
    bytes: Arc<AtomicUsize>,
}

impl Queue {
    fn new() -> (Queue, Waiting) {
        let (put, waiting) = mpsc::sync_channel(QUEUE_MAX);
        let bytes = Arc::new(AtomicUsize::new(0));
        (Queue { records: put, bytes: Arc::clone(&bytes) }, Waiting { records: waiting, bytes })
    }

    /// Whether there was room for it.
    fn put(&self, record: Box<AuditRecord>) -> bool {
        let bytes = record.bytes();
        // Nobody else puts: what the thread takes away meanwhile only makes more room.
        if self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= QUEUE_BYTES_MAX
            && self.records.try_send(record).is_ok()
        {
            return true;
        }
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        false
    }
}

impl Waiting {
    /// These were written, or are lost.
    fn leave(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The queue, and the thread at its end.
pub struct AuditLog {
    queue: Queue,
    counts: Arc<AuditCounts>,
    full: Seldom,
    thread: JoinHandle<()>,
}

impl AuditLog {
    /// Starts the thread, which says first that the server starts.
    ///
    /// # Errors
    /// When the system gives no thread, or the file cannot be written: who asks for an audit log gets one.
    pub fn start(disk: Arc<dyn Disk>, settings: AuditSettings) -> io::Result<AuditLog> {
        let AuditSettings { path, bytes_max, files_max } = settings;
        let mut files = Files::new(disk, path, bytes_max, files_max);
        files.append(line::of_server(wall_ms(), "serverStart", "success").as_bytes())?;
        let (queue, waiting) = Queue::new();
        let counts = Arc::new(AuditCounts::default());
        let counted = Arc::clone(&counts);
        let thread = std::thread::Builder::new()
            .name("audit".into())
            .stack_size(256 << 10)
            .spawn(move || write(files, &waiting, &counted))?;
        Ok(AuditLog { queue, counts, full: Seldom::default(), thread })
    }

    /// What came of records.
    pub fn counts(&self) -> Arc<AuditCounts> {
        Arc::clone(&self.counts)
    }

    /// Hands a record over, or drops it.
    pub fn put(&self, record: Box<AuditRecord>) {
        if self.queue.put(record) {
            return;
        }
        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        if let Some(records) = self.full.count() {
            warn!(
                records,
                "the audit log is slow: so many records were dropped since the last such line"
            );
        }
    }

    /// Writes what waits, says that the server stops, and ends the thread.
    pub fn stop(self) {
        drop(self.queue);
        if self.thread.join().is_err() {
            error!("the audit log's thread ended by a panic");
        }
    }
}

fn write(mut files: Files, waiting: &Waiting, counts: &AuditCounts) {
    let failures = Seldom::default();
    while let Ok(first) = waiting.records.recv() {
        let (mut lines, mut bytes, mut records) = (line::of(&first), first.bytes(), 1);
        while records < BATCH_MAX
            && let Ok(record) = waiting.records.try_recv()
        {
            lines.push_str(&line::of(&record));
            bytes = bytes.saturating_add(record.bytes());
            records += 1;
        }
        let records = records as u64;
        let outcome = files.append(lines.as_bytes());
        waiting.leave(bytes);
        match outcome {
            Ok(()) => drop(counts.written.fetch_add(records, Ordering::Relaxed)),
            Err(error) => {
                counts.dropped.fetch_add(records, Ordering::Relaxed);
                if let Some(times) = failures.count() {
                    warn!(%error, records, times, "records of the audit log are lost");
                }
            }
        }
    }
    // What it cannot say any more nobody could do anything about.
    let _ = files.append(line::of_server(wall_ms(), "serverStop", "invoked").as_bytes());
}

fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use coordinator_disk::RealDisk;
    use coordinator_protocol::SessionId;

    use super::*;

    fn record(number: i64) -> Box<AuditRecord> {
        Box::new(AuditRecord {
            wall_ms: 0,
            session: SessionId::new(number),
            user: None,
            ip: None,
            operation: "delete",
            znode: None,
            znode_type: None,
            acl: None,
            is_done: true,
        })
    }

    #[test]
    fn records_are_written_or_counted_and_nobody_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let settings = AuditSettings { path: path.clone(), bytes_max: 64 << 20, files_max: 1 };
        let log = AuditLog::start(Arc::new(RealDisk), settings).unwrap();
        let counts = log.counts();
        let all = 3 * QUEUE_MAX as u64;
        for number in 0..all {
            log.put(record(i64::try_from(number).unwrap()));
        }
        log.stop();
        let (written, dropped) = counts.read();
        assert_eq!(written + dropped, all);
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count() as u64, written + 2);
        assert!(text.lines().next().unwrap().contains("operation=serverStart"));
        assert!(text.lines().last().unwrap().contains("operation=serverStop"));
    }

    #[test]
    fn queue_takes_records_of_as_many_bytes_as_the_limit() {
        let long = |bytes: usize| {
            let mut record = record(1);
            record.znode = Some("a".repeat(bytes - record.bytes()));
            record
        };
        let (queue, waiting) = Queue::new();
        for _ in 0..15 {
            assert!(queue.put(long(1 << 20)));
        }
        assert!(!queue.put(long((1 << 20) + 1)), "one byte more than the limit");
        assert!(queue.put(long(1 << 20)));
        assert!(!queue.put(record(1)));
        let written = waiting.records.recv().unwrap().bytes();
        assert!(!queue.put(record(1)), "it is being written");
        waiting.leave(written);
        assert!(queue.put(long(1 << 20)));
        assert_eq!(waiting.bytes.load(Ordering::Relaxed), QUEUE_BYTES_MAX);
        drop(waiting);
        assert!(!queue.put(record(1)));
    }

    #[test]
    fn queue_takes_as_many_records_as_the_limit() {
        let (queue, waiting) = Queue::new();
        for number in 0..QUEUE_MAX {
            assert!(queue.put(record(1)), "{number}");
        }
        let before = waiting.bytes.load(Ordering::Relaxed);
        assert!(!queue.put(record(1)));
        assert_eq!(waiting.bytes.load(Ordering::Relaxed), before);
    }

    #[test]
    fn place_that_cannot_be_written_is_refused_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none/audit.log");
        let settings = AuditSettings { path, bytes_max: 1, files_max: 1 };
        assert!(AuditLog::start(Arc::new(RealDisk), settings).is_err());
    }
}
