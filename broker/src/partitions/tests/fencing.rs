use super::*;

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicBool;

use coordinator_disk::{Entry, File, Lock, OpenMode};

/// The real disk, whose syncs fail from a moment on, all or those of files whose name ends so, in a
/// machine that can be booted.
#[derive(Default)]
struct FailingDisk {
    fails: Arc<AtomicBool>,
    /// Commit rounds come upon a bug.
    panics: Arc<AtomicBool>,
    always_fails: Option<&'static str>,
    boot: Arc<Mutex<String>>,
}

struct FailingFile {
    file: Arc<dyn File>,
    fails: Arc<AtomicBool>,
}

fn check(fails: &AtomicBool) -> io::Result<()> {
    match fails.load(Ordering::SeqCst) {
        true => Err(io::Error::other("planted")),
        false => Ok(()),
    }
}

impl Disk for FailingDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = RealDisk.open(path, mode)?;
        let name = path.to_string_lossy();
        let fails = match self.always_fails {
            Some(suffix) if name.ends_with(suffix) => Arc::new(AtomicBool::new(true)),
            Some(_) | None => Arc::clone(&self.fails),
        };
        Ok(Arc::new(FailingFile { file, fails }))
    }
    fn sync_many(&self, files: &[Arc<dyn File>]) -> io::Result<()> {
        assert!(!self.panics.load(Ordering::SeqCst), "planted");
        files.iter().try_for_each(|file| file.sync())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        check(&self.fails)?;
        RealDisk.sync_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        RealDisk.list(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        RealDisk.lock(path)
    }
    fn boot_id(&self) -> io::Result<String> {
        Ok(self.boot.lock().unwrap().clone())
    }
}

impl File for FailingFile {
    fn append(&self, parts: &[IoSlice<'_>]) -> io::Result<u64> {
        self.file.append(parts)
    }
    fn write_at(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.file.write_at(position, parts)
    }
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(position, buffer)
    }
    fn sync(&self) -> io::Result<()> {
        check(&self.fails)?;
        self.file.sync()
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }
    fn preallocate(&self, length: u64) -> io::Result<()> {
        self.file.preallocate(length)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.file.descriptor()
    }
}

#[tokio::test]
async fn failed_sync_fences_the_directory_and_acknowledges_nothing() {
    let fails = Arc::new(AtomicBool::new(false));
    let disk: Arc<dyn Disk> =
        Arc::new(FailingDisk { fails: Arc::clone(&fails), ..FailingDisk::default() });
    let mut bench = Bench::on(&disk, "");
    bench.create("[1]", &state(1, 0, "[1]"));
    bench.until(Bench::leads);
    assert_eq!(bench.produce(-1, batch(&["a"])).await, Ok(0));
    fails.store(true, Ordering::SeqCst);
    assert_eq!(bench.produce(-1, batch(&["b"])).await, Err(ErrorCode::KafkaStorageError));
    bench.until(|bench| bench.sent().contains(&Sent::DirectoryFailed));
    // The fault goes away; the directory stays fenced.
    fails.store(false, Ordering::SeqCst);
    bench.until(|bench| !bench.leads());
    assert_eq!(bench.produce(-1, batch(&["c"])).await, Err(ErrorCode::KafkaStorageError));
    assert_eq!(bench.partitions.describe_replica(key()), Err(ErrorCode::KafkaStorageError));
    assert_eq!(bench.status().durable_end.get(), 1);
    bench.partitions.stop();
    assert!(!bench.folder.join("logs/clean-shutdown").exists());
}

#[tokio::test]
async fn commit_thread_that_panicked_leaves_no_word_of_a_clean_shutdown() {
    let panics = Arc::new(AtomicBool::new(false));
    let disk: Arc<dyn Disk> =
        Arc::new(FailingDisk { panics: Arc::clone(&panics), ..FailingDisk::default() });
    let mut bench = Bench::on(&disk, "");
    bench.create("[1]", &state(1, 0, "[1]"));
    bench.until(Bench::leads);
    assert_eq!(bench.produce(-1, batch(&["a"])).await, Ok(0));
    let marker = bench.folder.join("logs/clean-shutdown");
    bench.partitions.stop();
    assert!(marker.exists(), "as every stop in order does");
    bench.restart(true);
    assert!(!marker.exists());
    bench.set_state(&state(1, 1, "[1]"));
    bench.until(Bench::leads);
    panics.store(true, Ordering::SeqCst);
    assert_eq!(bench.produce(1, batch(&["b"])).await, Ok(1));
    bench.partitions.stop();
    assert!(!marker.exists(), "the last record was never synced");
}

#[tokio::test]
async fn failed_sync_of_what_compaction_wrote_fences_the_directory() {
    let disk: Arc<dyn Disk> =
        Arc::new(FailingDisk { always_fails: Some(".log.cleaned"), ..FailingDisk::default() });
    let mut bench =
        Bench::on(&disk, &format!("log.cleaner.backoff.ms = 10\n{}", compacting::SETTINGS));
    bench.create("[1]", &state(1, 0, "[1]"));
    bench.until(Bench::leads);
    let mut round = 0;
    while bench.produce(-1, compacting::keyed("a", "v")).await.is_ok() {
        round += 1;
        assert!(round < 200_000, "never fenced");
    }
    bench.until(|bench| bench.sent().contains(&Sent::DirectoryFailed));
    bench.until(|bench| !bench.leads());
}

#[test]
fn changed_boot_is_told_until_a_registration_has_heard_it() {
    use broker_core::ids::Incarnation;
    use broker_core::registration::DirectoryRecord;
    let boot = Arc::new(Mutex::new("one".to_owned()));
    let disk: Arc<dyn Disk> =
        Arc::new(FailingDisk { boot: Arc::clone(&boot), ..FailingDisk::default() });
    let mut bench = Bench::on(&disk, "");
    let record = |confirmed, intended| DirectoryRecord {
        confirmed: Incarnation::new(confirmed),
        intended: Incarnation::new(intended),
    };
    bench.partitions.record(record(1, 1)).unwrap();
    "two".clone_into(&mut boot.lock().unwrap());
    bench.restart(false);
    assert!(bench.partitions.held().boot_changed);
    // Killed before its registration was known to have gone through.
    bench.partitions.record(record(1, 2)).unwrap();
    bench.restart(false);
    assert!(bench.partitions.held().boot_changed);
    // Stopped in order before that: what the former process left was not.
    bench.restart(true);
    assert!(bench.partitions.held().boot_changed);
    bench.partitions.record(record(2, 2)).unwrap();
    bench.restart(false);
    assert!(!bench.partitions.held().boot_changed);
    "three".clone_into(&mut boot.lock().unwrap());
    bench.restart(true);
    assert!(!bench.partitions.held().boot_changed);
}
