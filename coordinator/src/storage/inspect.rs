//! Looks at a data folder as a start would, and changes nothing.
//!
//! Called by: the binary. Calls: `super::open` on a disk that only pretends, the core's state.
//! Invariant: what it reports was read and checked whole: every frame, the snapshot, each entry applied to it.
//! Does not know: settings, flags.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use coordinator_core::consensus::{EntryKind, LogEntry, Restored, members_after};
use coordinator_core::state::{Entry, State};
use coordinator_disk::{Disk, Rehearsal};

use super::restore::has_begun;
use super::{Findings, Owner, Place, StorageError};

/// What a folder holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inspection {
    /// Log index of the snapshot that a start would take, 0 without any.
    pub snapshot_index: u64,
    /// Entries of the log.
    pub entries: u64,
    /// Index of the last one, or of the snapshot.
    pub last_index: u64,
    /// Index up to which the log is known to be agreed on. It lags behind what is.
    pub commit: u64,
    /// Latest term.
    pub term: u64,
    /// The last zxid when every entry is applied.
    pub zxid: i64,
    /// Znodes then.
    pub znodes: u64,
    /// Bytes of their paths and data.
    pub bytes: u64,
    /// Sessions then.
    pub sessions: u64,
    /// Ephemerals then.
    pub ephemerals: u64,
    /// Whether there is no log, nor ever was one: a start begins with nothing.
    pub begins: bool,
    /// What a start would change in the folder, in order.
    pub changes: Vec<String>,
    /// What no server wrote, and a start leaves alone.
    pub foreign: Vec<PathBuf>,
}

/// Reads everything in `folder`.
///
/// # Errors
/// Every [`StorageError`]: `InUse` while a server runs in it; `File` with file and offset where it is damaged.
pub fn inspect(
    disk: Arc<dyn Disk>,
    folder: &Path,
    owner: Owner,
) -> Result<Inspection, StorageError> {
    let place = Place::new(disk.clone(), folder, owner.clone());
    let log = &place.log;
    let has_log = disk.exists(log).map_err(|error| super::io_error(log, error))?;
    if !has_log && !has_begun(&place)? {
        let reason = "no coordinator has ever run in this folder".to_owned();
        return Err(StorageError::Gap { path: folder.to_owned(), reason });
    }
    let rehearsal = Arc::new(Rehearsal::new(disk));
    let (opened, restored) = super::open(rehearsal.clone(), folder, owner)?;
    let wrong = |reason: String| StorageError::Gap { path: folder.to_owned(), reason };
    let state = replay(&restored).map_err(wrong)?;
    let Findings { begins, foreign, .. } = opened.findings().clone();
    drop(opened);
    let last_index = state.applied_index();
    Ok(Inspection {
        snapshot_index: restored.snapshot.as_ref().map_or(0, |image| image.index),
        entries: restored.entries.len() as u64,
        last_index,
        commit: restored.hard_state.commit,
        term: restored.hard_state.term,
        zxid: state.last_zxid().get(),
        znodes: state.tree().node_count() as u64,
        bytes: state.tree().bytes(),
        sessions: state.sessions().len() as u64,
        ephemerals: state.tree().ephemeral_count() as u64,
        begins,
        changes: rehearsal.notes(),
        foreign,
    })
}

/// The state when everything in the log is agreed on.
pub(super) fn replay(restored: &Restored) -> Result<State, String> {
    let mut state = match &restored.snapshot {
        Some(image) => State::decode_snapshot(&image.data).map_err(|error| error.to_string())?,
        None => State::new(),
    };
    for LogEntry { index, term, kind, data } in &restored.entries {
        if *index <= state.applied_index() {
            continue;
        }
        if *index != state.applied_index() + 1 || *term < state.applied_term() {
            return Err(format!(
                "entry {index} of term {term} does not follow what was applied up to {} of term {}",
                state.applied_index(),
                state.applied_term()
            ));
        }
        if *kind == EntryKind::Members {
            let before = state.membership().map(|membership| membership.ids.clone());
            let after = members_after(before.unwrap_or_default(), data)
                .ok_or_else(|| format!("entry {index}: no change of the members"))?;
            state.apply_members(*term, *index, after);
            continue;
        }
        let entry = if data.is_empty() { Ok(Entry::default()) } else { Entry::decode(data) };
        let entry = entry.map_err(|error| format!("entry {index}: {error}"))?;
        state.apply(*term, *index, &entry);
    }
    state.check();
    Ok(state)
}
