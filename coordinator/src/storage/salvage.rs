//! What can still be read of a data folder that is damaged.
//!
//! Called by: `repair`. Calls: record files and snapshots, on a disk that only pretends.
//! Invariant: nothing is changed, and nothing is taken for read that a checksum does not cover.
//! Does not know: what is to be done about it.

use std::path::Path;
use std::sync::Arc;

use coordinator_core::consensus::{EntryKind, HardState, Restored, SnapshotImage};
use coordinator_core::state::State;
use coordinator_disk::record_file::Tail;
use coordinator_disk::{OpenMode, Rehearsal};

use super::inspect::replay;
use super::log::{LogRecord, segment_number, segment_path};
use super::restore::{Replay, read_segment};
use super::{Place, StorageError, io_error, snapshot};

/// First bytes of each record's envelope in a log: `TGEV` and its kind. The version of its form follows.
const RECORD_HEAD: [u8; 6] = *b"TGEV\x01\x01";

/// The numbers of all segments, ascending; there may be gaps.
pub fn segments(place: &Place) -> Result<Vec<u64>, StorageError> {
    let found = place.disk.list(&place.log).map_err(|error| io_error(&place.log, error))?;
    let mut numbers: Vec<u64> =
        found.iter().filter_map(|entry| segment_number(&entry.name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// A log from one of its segments on, as far as it can be read.
pub struct Readable {
    pub log: Replay,
    /// Whether that is to its end.
    pub is_whole: bool,
}

/// Reads the segments `numbers`, which follow one another, up to the first damage.
pub fn read_from(place: &Place, numbers: &[u64]) -> Result<Readable, StorageError> {
    let pretending = Place { disk: Arc::new(Rehearsal::new(place.disk.clone())), ..place.clone() };
    let mut log = Replay::default();
    let mut before: Option<u64> = None;
    for number in numbers {
        let is_last = Some(number) == numbers.last();
        let tail = if is_last { Tail::MayBeTorn } else { Tail::Sealed };
        let follows = before.is_none_or(|before| before + 1 == *number);
        before = Some(*number);
        if !follows {
            return Ok(Readable { log, is_whole: false });
        }
        match read_segment(&pretending, *number, tail, &mut log) {
            Ok(_) => {}
            Err(error) if error.is_damage() => return Ok(Readable { log, is_whole: false }),
            Err(error) => return Err(error),
        }
    }
    Ok(Readable { log, is_whole: true })
}

/// Every snapshot that can be read, the latest first.
pub fn snapshots(place: &Place) -> Result<Vec<SnapshotImage>, StorageError> {
    let mut images = Vec::new();
    for index in snapshot::list(place)?.into_iter().rev() {
        match snapshot::load(place, index) {
            Ok(image) if State::decode_snapshot(&image.data).is_ok() => images.push(image),
            Ok(_) => {}
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(images)
}

/// The state that `image`, or the beginning, and the log behind it come to. `None` if they do not fit together, or if
/// what fits does not hold all of the log.
pub fn state_of(image: Option<&SnapshotImage>, log: &Replay) -> Option<State> {
    let index = image.map_or(0, |image| image.index);
    let (first, last) = match (log.entries.first(), log.entries.last()) {
        (Some(first), Some(last)) => (first.index, last.index),
        // Nothing was written behind a snapshot that was received, or at all.
        _ => (index + 1, index),
    };
    let differs = |image: &SnapshotImage| {
        log.entries.iter().any(|entry| entry.index == image.index && entry.term != image.term)
    };
    if log.installed > index || first > index + 1 || last < index || image.is_some_and(differs) {
        return None;
    }
    let (hard_state, snapshot) = (log.hard_state, image.cloned());
    replay(&Restored { hard_state, snapshot, entries: log.entries.clone() }).ok()
}

/// What stands anywhere in the log, also behind damage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// The latest term, and the vote given in it, if that was found.
    pub hard_state: HardState,
    /// The greatest index of an entry.
    pub last_index: u64,
    /// The greatest index of one that changes the members, 0 without any.
    pub members_index: u64,
}

/// Looks for every whole record in every segment.
pub fn seen(place: &Place, numbers: &[u64]) -> Result<Seen, StorageError> {
    let mut seen = Seen::default();
    for number in numbers {
        let path = segment_path(place, *number);
        let bytes = read_whole(place, &path).map_err(|error| io_error(&path, error))?;
        let mut from = 0;
        while let Some(at) = find(&bytes, from) {
            // What is inside of a whole record is a client's.
            from = match record_at(&bytes, at) {
                Some((record, end)) => {
                    seen.add(&record);
                    end
                }
                None => at + 1,
            };
        }
    }
    Ok(seen)
}

impl Seen {
    fn add(&mut self, record: &LogRecord) {
        match record {
            LogRecord::HardState(found) => {
                let is_later = found.term > self.hard_state.term;
                if is_later || (found.term == self.hard_state.term && found.vote != 0) {
                    self.hard_state = HardState { commit: 0, ..*found };
                }
            }
            LogRecord::Entries(entries) => {
                for entry in entries {
                    self.last_index = self.last_index.max(entry.index);
                    if entry.kind == EntryKind::Members {
                        self.members_index = self.members_index.max(entry.index);
                    }
                    if entry.term > self.hard_state.term {
                        self.hard_state = HardState { term: entry.term, vote: 0, commit: 0 };
                    }
                }
            }
            LogRecord::Installed { index } => self.last_index = self.last_index.max(*index),
        }
    }
}

fn find(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.windows(RECORD_HEAD.len()).position(|head| head == RECORD_HEAD).map(|at| from + at)
}

/// The envelope that begins there, if it is whole: it names its own length, and its checksum covers all of it.
fn record_at(bytes: &[u8], at: usize) -> Option<(LogRecord, usize)> {
    let length = bytes.get(at + 8..at + 12)?.try_into().ok().map(u32::from_le_bytes)?;
    let end = at.checked_add(16)?.checked_add(usize::try_from(length).ok()?)?;
    Some((LogRecord::decode(bytes.get(at..end)?).ok()?, end))
}

fn read_whole(place: &Place, path: &Path) -> std::io::Result<Vec<u8>> {
    let file = place.disk.open(path, OpenMode::Read)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX)];
    let count = file.read_at(0, &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}
