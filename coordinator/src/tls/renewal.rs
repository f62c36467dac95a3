//! Files for TLS that change while the server runs: looked at now and then, and read again.
//!
//! Called by: `config`, which says what is read, and `server`, which runs the looks. Calls: the file system, on threads
//! that may block.
//! Invariant: what is in use could be read whole; files that cannot be used change nothing. Connections that are there keep
//! what they began with.
//! Does not know: what is in the files.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

/// Between two looks at the files.
const PAUSE: Duration = Duration::from_secs(2);
/// Between two lines of the same error.
const TOLD_AGAIN: Duration = Duration::from_secs(3_600);

/// What new connections are encrypted with: the newest that could be used.
pub struct Current<T>(Arc<Mutex<Arc<T>>>);

impl<T> Current<T> {
    /// For a connection that begins now.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// For connections that begin from now on.
    pub fn set(&self, newer: Arc<T>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = newer;
    }
}

impl<T> From<Arc<T>> for Current<T> {
    fn from(first: Arc<T>) -> Current<T> {
        Current(Arc::new(Mutex::new(first)))
    }
}

impl<T> Clone for Current<T> {
    fn clone(&self) -> Current<T> {
        Current(Arc::clone(&self.0))
    }
}

/// Without what is secret.
impl<T> fmt::Debug for Current<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current(..)")
    }
}

/// How a file was found: any of it is another when the file, or what a link points to, is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Of the last change of contents or mode, by the system's clock: a copy cannot take it from the original.
    changed: (i64, i64),
}

/// Files, and how they were found at one moment.
#[derive(Debug, Clone)]
pub struct Noted {
    files: Vec<PathBuf>,
    stamps: Vec<Option<Stamp>>,
}

impl Noted {
    /// Looks at them now; to be called before they are read, so that no change is missed.
    pub fn now(files: Vec<PathBuf>) -> Noted {
        let stamps = stamps(&files);
        Noted { files, stamps }
    }
}

type Read = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Files that are read again when they change.
#[derive(Clone)]
pub struct Renewal {
    /// Who uses them, as the settings call it.
    port: &'static str,
    noted: Noted,
    read: Read,
}

impl Renewal {
    /// `read` reads the files that were noted before they were first read, and puts what they hold in use, or says why it
    /// cannot be used.
    pub fn new(
        port: &'static str,
        noted: Noted,
        read: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Renewal {
        Renewal { port, noted, read: Arc::new(read) }
    }
}

/// How often files were taken, and how many sets of them cannot be used now.
#[derive(Debug, Default)]
pub struct RenewalCounts {
    renewed: AtomicU64,
    broken: AtomicU64,
}

impl RenewalCounts {
    /// Both, in that order.
    pub fn read(&self) -> (u64, u64) {
        (self.renewed.load(Ordering::Relaxed), self.broken.load(Ordering::Relaxed))
    }
}

/// Looks at the files until the task is dropped.
pub async fn run(renewals: Vec<Renewal>, counts: Arc<RenewalCounts>) {
    let mut followed: Vec<Followed> = renewals.into_iter().map(Followed::new).collect();
    loop {
        tokio::time::sleep(PAUSE).await;
        let looks = tokio::task::spawn_blocking(move || {
            let found: Vec<Look> = followed.iter_mut().map(Followed::look).collect();
            (followed, found)
        });
        // Only a runtime that ends gives no thread.
        let Ok((back, found)) = looks.await else { return };
        followed = back;
        let now = Instant::now();
        for (followed, look) in followed.iter_mut().zip(found) {
            followed.tell(&look, now);
            counts.renewed.fetch_add(u64::from(look == Look::Renewed), Ordering::Relaxed);
        }
        let broken = followed.iter().filter(|followed| followed.is_broken).count();
        counts.broken.store(broken as u64, Ordering::Relaxed);
    }
}

/// What one look brought.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// Nothing is to be read.
    Same,
    /// What the files hold now is in use.
    Renewed,
    /// It cannot be used; what was before still is.
    Broken(String),
}

struct Followed {
    renewal: Renewal,
    /// As they were when they were last read.
    read: Vec<Option<Stamp>>,
    /// As the last look found them.
    last: Vec<Option<Stamp>>,
    is_broken: bool,
    told: Option<(String, Instant)>,
}

impl Followed {
    fn new(renewal: Renewal) -> Followed {
        let stamps = renewal.noted.stamps.clone();
        Followed { renewal, read: stamps.clone(), last: stamps, is_broken: false, told: None }
    }

    /// Reads the files once they rest: one that is being written, and a key whose certificate is not there yet, have until
    /// the next look. What could not be used is tried each time, for the reason may be none of the file's.
    fn look(&mut self) -> Look {
        let now = stamps(&self.renewal.noted.files);
        let rests = now == self.last;
        self.last.clone_from(&now);
        if !rests || (now == self.read && !self.is_broken) {
            return Look::Same;
        }
        self.read = now;
        let outcome = (self.renewal.read)();
        self.is_broken = outcome.is_err();
        outcome.map_or_else(Look::Broken, |()| Look::Renewed)
    }

    fn tell(&mut self, look: &Look, now: Instant) {
        let port = self.renewal.port;
        match look {
            Look::Same => {}
            Look::Renewed => {
                self.told = None;
                info!(%port, "files for TLS were read again: connections that begin now use what they hold");
            }
            Look::Broken(error) => {
                if !self.is_due(error, now) {
                    return;
                }
                self.told = Some((error.clone(), now));
                warn!(
                    %port, %error,
                    "files for TLS have changed and cannot be used: what they held before stays in use, and a restart would fail"
                );
            }
        }
    }

    fn is_due(&self, error: &str, now: Instant) -> bool {
        let is_told = |(told, at): &(String, Instant)| {
            told == error && now.saturating_duration_since(*at) < TOLD_AGAIN
        };
        !self.told.as_ref().is_some_and(is_told)
    }
}

/// Of each file, or of what it links to; none where nothing can be found out.
fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some(Stamp {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.len(),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    };
    files.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files whose texts are in use when they are numbers.
    fn followed(folder: &tempfile::TempDir) -> (Followed, Current<u64>) {
        let path = folder.path().join("file");
        let read = move |path: &PathBuf| {
            let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
            text.parse::<u64>().map_err(|error| error.to_string())
        };
        let noted = Noted::now(vec![path.clone()]);
        let current = Current::from(Arc::new(read(&path).unwrap()));
        let used = current.clone();
        let renewal = Renewal::new("port", noted, move || {
            used.set(Arc::new(read(&path)?));
            Ok(())
        });
        (Followed::new(renewal), current)
    }

    #[test]
    fn file_that_changed_is_read_once_it_rests() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "1").unwrap();
        let (mut followed, current) = followed(&folder);
        assert_eq!([followed.look(), followed.look()], [Look::Same, Look::Same]);
        // Of the same length, and put in the place of the other, as those who renew certificates do.
        std::fs::write(folder.path().join("new"), "2").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        assert_eq!((followed.look(), *current.get()), (Look::Same, 1));
        assert_eq!((followed.look(), *current.get()), (Look::Renewed, 2));
        assert_eq!((followed.look(), *current.get()), (Look::Same, 2));
    }

    #[test]
    fn link_to_another_file_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("a"), "1").unwrap();
        std::fs::write(path("b"), "2").unwrap();
        std::os::unix::fs::symlink("a", path("file")).unwrap();
        let (mut followed, current) = followed(&folder);
        std::fs::remove_file(path("file")).unwrap();
        std::os::unix::fs::symlink("b", path("file")).unwrap();
        assert_eq!([followed.look(), followed.look()], [Look::Same, Look::Renewed]);
        assert_eq!(*current.get(), 2);
    }

    #[test]
    fn file_that_cannot_be_used_changes_nothing_and_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "1").unwrap();
        let (mut followed, current) = followed(&folder);
        // Longer, for clocks of files that move in ticks.
        std::fs::write(&path, "xx").unwrap();
        assert_eq!(followed.look(), Look::Same);
        let start = Instant::now();
        let broken = followed.look();
        let Look::Broken(error) = &broken else { panic!("{broken:?}") };
        assert!(followed.is_due(error, start));
        followed.tell(&broken, start);
        assert_eq!(*current.get(), 1);
        assert_eq!(followed.look(), broken);
        assert!(!followed.is_due(error, start));
        assert!(followed.is_due("another", start) && followed.is_due(error, start + TOLD_AGAIN));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(followed.look(), Look::Same);
        assert!(matches!(followed.look(), Look::Broken(_)));
        std::fs::write(&path, "3").unwrap();
        assert_eq!([followed.look(), followed.look()], [Look::Same, Look::Renewed]);
        assert_eq!((*current.get(), followed.is_broken), (3, false));
    }
}
