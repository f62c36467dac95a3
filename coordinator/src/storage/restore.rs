//! Reads a data folder back.
//!
//! Called by: [`super::open`]. Calls: record files, `snapshot`.
//! Invariant: what it returns is what was durable: the latest readable snapshot that the log continues, the hard state,
//! and the log. Damage below a sync is an error that names file and offset, never a silent cut.
//! Does not know: what entries mean.

use std::collections::VecDeque;

use coordinator_core::consensus::{HardState, LogEntry, Restored, SnapshotImage};
use coordinator_disk::OpenMode;
use coordinator_disk::record_file::{self, RecordFile, Tail};
use tracing::{info, warn};

use super::log::{Log, LogRecord, Sealed, segment_identity, segment_number, segment_path};
use super::tidy::{Findings, tidy};
use super::{Beginnings, Place, StorageError, beginning, io_error, snapshot};

/// In the folder itself: it stays where everything below `log` is lost. What may stand in it is `beginning`'s.
pub(super) const BEGUN: &str = ".begun";

/// The log as its records tell it.
#[derive(Default)]
pub(super) struct Replay {
    pub(super) hard_state: HardState,
    pub(super) entries: Vec<LogEntry>,
    pub(super) installed: u64,
}

/// Opens the log for writing and returns it with everything that was found.
pub fn restore(place: &Place) -> Result<(Log, Restored, Findings), StorageError> {
    let mut findings = tidy(place)?;
    let numbers = segment_numbers(place)?;
    // A process that was killed between a rename and its sync left a name that a power cut could take back, and with
    // it everything that is acknowledged from here on.
    for folder in [&place.snapshots, &place.log] {
        place.disk.sync_dir(folder).map_err(|error| io_error(folder, error))?;
    }
    let mut replay = Replay::default();
    let mut sealed = VecDeque::new();
    let mut active = None;
    for number in &numbers {
        let tail = if Some(number) == numbers.last() { Tail::MayBeTorn } else { Tail::Sealed };
        let (file, info) = read_segment(place, *number, tail, &mut replay)?;
        match tail {
            Tail::Sealed => sealed.push_back(info),
            Tail::MayBeTorn => active = Some((file, info)),
        }
    }
    let snapshot = choose_snapshot(place, &replay)?;
    let Replay { hard_state, mut entries, .. } = replay;
    let mut log = match active {
        Some(active) => Log::resume(place.clone(), sealed, active, hard_state),
        // The first segment is older than any snapshot: without it the vote and entries behind the snapshot are gone.
        None if snapshot.is_some() => {
            let reason = "there are snapshots, but the log is missing".to_owned();
            return Err(StorageError::Gap { path: place.log.clone(), reason });
        }
        None if has_begun(place)? => {
            let reason = "a log was begun here and is missing: put its files back; `coordinator repair` says what can \
                          be done where they are lost";
            return Err(StorageError::Gap { path: place.log.clone(), reason: reason.to_owned() });
        }
        None => {
            findings.begins = true;
            Log::create(place.clone())?
        }
    };
    mark_begun(place)?;
    log.set_beginnings(Beginnings::new(beginning::read(place)?));
    if let Some(image) = &snapshot
        && is_void(image, &entries)
    {
        // The mark that the crash prevented: without it the next entry would not continue the log.
        log.mark_installed(image.index)?;
        entries.clear();
    }
    Ok((log, Restored { hard_state, snapshot, entries }, findings))
}

/// Whether a log was ever begun in the folder: one that is gone could otherwise not be told from none, and a server that
/// stands alone would begin with nothing.
pub(super) fn has_begun(place: &Place) -> Result<bool, StorageError> {
    let mark = place.folder.join(BEGUN);
    place.disk.exists(&mark).map_err(|error| io_error(&mark, error))
}

/// Only once a segment is durable: a start that is killed before that may begin again.
fn mark_begun(place: &Place) -> Result<(), StorageError> {
    if has_begun(place)? {
        return Ok(());
    }
    let mark = place.folder.join(BEGUN);
    place.disk.open(&mark, OpenMode::Create).map_err(|error| io_error(&mark, error))?;
    place.disk.sync_dir(&place.folder).map_err(|error| io_error(&place.folder, error))
}

/// The numbers of all segments, ascending and without a gap.
fn segment_numbers(place: &Place) -> Result<Vec<u64>, StorageError> {
    let mut numbers = Vec::new();
    for entry in place.disk.list(&place.log).map_err(|error| io_error(&place.log, error))? {
        numbers.extend(segment_number(&entry.name));
    }
    numbers.sort_unstable();
    for pair in numbers.windows(2) {
        if let [before, after] = pair
            && before + 1 != *after
        {
            let reason = format!("log segment {} is missing", before + 1);
            return Err(StorageError::Gap { path: place.log.clone(), reason });
        }
    }
    Ok(numbers)
}

pub(super) fn read_segment(
    place: &Place,
    number: u64,
    tail: Tail,
    replay: &mut Replay,
) -> Result<(RecordFile, Sealed), StorageError> {
    let mut info = Sealed { number, last_index: 0 };
    let path = segment_path(place, number);
    let identity = segment_identity(place, number);
    let mut recovered =
        record_file::recover(&*place.disk, &path, &identity, tail, &mut |_, frame| {
            let record = LogRecord::decode(frame)?;
            if let LogRecord::Entries(entries) = &record {
                let last = entries.last().map_or(0, |entry| entry.index);
                info.last_index = info.last_index.max(last);
            }
            replay.apply(record)
        })?;
    if tail == Tail::MayBeTorn {
        recovered.file.write_again(recovered.proven_end)?;
    }
    if recovered.cut_bytes > 0 {
        info!(path = %path.display(), bytes = recovered.cut_bytes, "cut a torn tail");
    }
    Ok((recovered.file, info))
}

impl Replay {
    fn apply(&mut self, record: LogRecord) -> Result<(), String> {
        match record {
            LogRecord::HardState(hard_state) => self.hard_state = hard_state,
            LogRecord::Installed { index } => {
                self.entries.clear();
                self.installed = index;
            }
            LogRecord::Entries(entries) => {
                for entry in entries {
                    self.append(entry)?;
                }
            }
        }
        Ok(())
    }

    fn append(&mut self, entry: LogEntry) -> Result<(), String> {
        if let (Some(first), Some(last)) = (self.entries.first(), self.entries.last()) {
            if entry.index > last.index + 1 {
                return Err(format!("entry {} follows entry {}", entry.index, last.index));
            }
            let kept = entry.index.saturating_sub(first.index);
            self.entries.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        }
        self.entries.push(entry);
        Ok(())
    }
}

/// The latest snapshot that can be read, if the log goes on behind it without a gap.
fn choose_snapshot(place: &Place, replay: &Replay) -> Result<Option<SnapshotImage>, StorageError> {
    let mut first_error = None;
    for index in snapshot::list(place)?.into_iter().rev() {
        // In place of one that cannot be read, an older state is only as good as the log from there on.
        let covered = replay.installed <= index
            && replay.entries.first().is_some_and(|first| first.index <= index + 1);
        if first_error.is_some() && !covered {
            break;
        }
        match snapshot::load(place, index) {
            Ok(image) => return Ok(Some(image)),
            Err(error) => {
                warn!(%error, index, "a snapshot cannot be read, the one before it is tried");
                first_error.get_or_insert(error);
            }
        }
    }
    first_error.map_or(Ok(None), Err)
}

/// A crash between a received snapshot and its mark leaves the old log: it counts only if it agrees with the snapshot.
fn is_void(image: &SnapshotImage, entries: &[LogEntry]) -> bool {
    let Some(first) = entries.first() else { return false };
    let agrees = entries.iter().any(|entry| entry.index == image.index && entry.term == image.term);
    !agrees && first.index != image.index + 1
}
