//! What can be done about a damaged data folder, and does it.
//!
//! ```text
//! plan           damage is                                  what is done
//! DropSegments   in the log, before what a start needs      those files are set aside; nothing is forgotten
//! Cut            elsewhere, on a server that stands alone   a new folder with what comes before it; the rest is lost
//! Refill         elsewhere, on a member                     a new folder with nothing but the term and the vote
//! ```
//!
//! Called by: the binary. Calls: `salvage`, `found`.
//! Invariant: files are set aside, never removed. A kill in the middle leaves a folder that no server starts in, until
//! [`act`] has finished. A member never votes twice in a term that its folder tells of; until it has caught up it cannot
//! vouch for what it had acknowledged, so that all others have to run meanwhile, under a leader elected without it: one
//! that was in office before counts on what is lost, and the core refuses it.
//! Does not know: settings, flags.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use coordinator_core::ServerId;
use coordinator_core::consensus::{HardState, PersistWrite, SnapshotImage};
use coordinator_core::state::State;
use coordinator_disk::{Disk, create_durable_folder};

use super::restore::BEGUN;
use super::salvage::{self, Seen};
use super::{Owner, Place, StorageError, found, inspect, io_error, log, open};

/// A new folder that is whole and not yet in place.
pub(super) const REPAIRED: &str = "repaired";
/// One that is being made.
const UNFINISHED: &str = "repair-unfinished";
/// What was set aside: this and a number.
const ASIDE: &str = "damaged-";
/// Folders of things set aside; more is a person's to clear up.
const ASIDE_MAX: u32 = 1_000;
const PARTS: [&str; 2] = ["log", "snapshots"];

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// A start would succeed.
    Nothing,
    /// A repair was interrupted: its last steps are done.
    Finish,
    /// These segments are set aside: the snapshot and the rest of the log have all that was in them.
    DropSegments {
        /// Their numbers.
        numbers: Vec<u64>,
        /// The snapshot's last index.
        snapshot_index: u64,
    },
    /// The state before the damage is kept.
    Cut {
        /// As the snapshot that the new folder begins with.
        image: SnapshotImage,
        /// Last zxid that is kept.
        zxid: i64,
        /// Greatest log index that was found behind; what is lost may reach farther.
        lost_to: u64,
    },
    /// Nothing but this is kept.
    Refill {
        /// Term and vote.
        hard_state: HardState,
    },
    /// Its settings name no other member and its log does, or may: nothing is done, because what begins anew from here
    /// would be a second ensemble.
    Rejoin,
    /// There is none.
    Hopeless,
}

/// What is wrong, and what is to be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Why a start is refused.
    pub damage: Option<String>,
    /// The way.
    pub way: Way,
}

/// Looks at a folder and changes nothing.
///
/// # Errors
/// `InUse` while a server runs in it; what keeps files from being looked at.
pub fn plan(
    disk: Arc<dyn Disk>,
    folder: &Path,
    owner: Owner,
    is_member: bool,
) -> Result<Plan, StorageError> {
    let place = Place::new(disk.clone(), folder, owner.clone());
    if exists(&place, &folder.join(REPAIRED))? {
        let damage = Some("a repair was interrupted".to_owned());
        return Ok(Plan { damage, way: Way::Finish });
    }
    let damage = match inspect(disk, folder, owner) {
        Ok(_) => return Ok(Plan { damage: None, way: Way::Nothing }),
        Err(error) if error.is_damage() => Some(error.to_string()),
        Err(error) => return Err(error),
    };
    if !exists(&place, &place.snapshots)? {
        return Ok(Plan { damage, way: Way::Hopeless });
    }
    let numbers = salvage::segments(&place)?;
    let images = salvage::snapshots(&place)?;
    if let Some(way) = unneeded(&place, &numbers, &images)? {
        return Ok(Plan { damage, way });
    }
    let seen = salvage::seen(&place, &numbers)?;
    // Members may come and go by the log alone: a server whose settings name nobody else may be one of many.
    let best = best_state(&place, &numbers, &images)?;
    let way = match best {
        _ if is_member => refill(&place, seen),
        Some(state) if may_have_others(&place, &state, seen) => Way::Rejoin,
        Some(state) => cut(state, seen),
        None => Way::Hopeless,
    };
    Ok(Plan { damage, way })
}

/// The fewest of the oldest segments without which everything else is sound.
fn unneeded(
    place: &Place,
    numbers: &[u64],
    images: &[SnapshotImage],
) -> Result<Option<Way>, StorageError> {
    for count in 1..numbers.len() {
        let (dropped, kept) = numbers.split_at(count);
        let readable = salvage::read_from(place, kept)?;
        // Without an entry it is not known how far the log went.
        let log = &readable.log;
        let fits = |image: &&SnapshotImage| {
            let reaches = !log.entries.is_empty() || log.installed == image.index;
            let state = salvage::state_of(Some(*image), log).filter(|_| reaches);
            state.is_some_and(|state| log.hard_state.commit <= state.applied_index())
        };
        // Only behind the latest snapshot a start goes on.
        let latest = images.first().filter(|_| readable.is_whole);
        if let Some(image) = latest.filter(fits) {
            let (numbers, snapshot_index) = (dropped.to_vec(), image.index);
            return Ok(Some(Way::DropSegments { numbers, snapshot_index }));
        }
    }
    Ok(None)
}

/// A vote that is not known counts as given: to itself, so that nobody else can have it.
fn refill(place: &Place, seen: Seen) -> Way {
    let Seen { hard_state, .. } = seen;
    if hard_state.term == 0 {
        return Way::Hopeless;
    }
    let vote = if hard_state.vote == 0 { place.owner.server_id } else { hard_state.vote };
    Way::Refill { hard_state: HardState { vote, ..hard_state } }
}

/// Whether others take part, or may: what the log says of members has to be in the state, and to name this server only.
fn may_have_others(place: &Place, state: &State, seen: Seen) -> bool {
    let Some(membership) = state.membership() else { return seen.members_index > 0 };
    let ids = membership.ids.voters.iter().chain(&membership.ids.learners);
    let is_other = |id: &ServerId| id.get() != place.owner.server_id;
    // Changed behind the damage: who they are now is not known.
    let is_behind = seen.members_index > state.applied_index() || membership.change.is_some();
    is_behind || ids.copied().any(|id| is_other(&id))
}

/// The state that reaches farthest.
fn best_state(
    place: &Place,
    numbers: &[u64],
    images: &[SnapshotImage],
) -> Result<Option<State>, StorageError> {
    let mut best: Option<State> = None;
    let mut consider = |state: Option<State>| {
        let index = |state: &State| state.applied_index();
        if let Some(state) = state
            && index(&state) > best.as_ref().map_or(0, index)
        {
            best = Some(state);
        }
    };
    for begin in 0..numbers.len() {
        let readable = salvage::read_from(place, numbers.get(begin..).unwrap_or_default())?;
        let beginnings = images.iter().map(Some).chain([None]);
        beginnings.for_each(|image| consider(salvage::state_of(image, &readable.log)));
    }
    // A snapshot stands for itself, too.
    for image in images {
        consider(State::decode_snapshot(&image.data).ok());
    }
    Ok(best)
}

fn cut(state: State, seen: Seen) -> Way {
    let (index, term, zxid) =
        (state.applied_index(), state.applied_term(), state.last_zxid().get());
    // Clients may have seen what is lost.
    let Some(state) = state.set_apart() else { return Way::Hopeless };
    let image = SnapshotImage { index, term, data: state.encode_snapshot() };
    Way::Cut { image, zxid, lost_to: seen.last_index.max(index) }
}

/// Does what `way` says, and returns where things were set aside. May be done again after it was interrupted.
///
/// # Errors
/// Every [`StorageError`].
pub fn act(
    disk: Arc<dyn Disk>,
    folder: &Path,
    owner: Owner,
    way: &Way,
) -> Result<Option<PathBuf>, StorageError> {
    let place = Place::new(disk, folder, owner);
    let lock = place.disk.lock(&folder.join(".lock"));
    let _lock = lock.map_err(|_| StorageError::InUse { path: folder.to_owned() })?;
    match way {
        Way::Nothing | Way::Rejoin | Way::Hopeless => Ok(None),
        Way::Finish => finish(&place, folder).map(Some),
        Way::DropSegments { numbers, .. } => {
            let aside = make_aside(&place, folder)?;
            for number in numbers {
                let path = log::segment_path(&place, *number);
                let name = path.file_name().unwrap_or_default();
                rename(&place, &path, &aside.join(name))?;
            }
            sync(&place, &[&place.log, &aside])?;
            Ok(Some(aside))
        }
        Way::Cut { image, .. } => {
            let unfinished = begin(&place, folder)?;
            found(place.disk.clone(), &unfinished, place.owner.clone(), image.clone())?;
            put_in_place(&place, folder)
        }
        Way::Refill { hard_state } => {
            let unfinished = begin(&place, folder)?;
            let (mut opened, _) = open(place.disk.clone(), &unfinished, place.owner.clone())?;
            let hard_state = Some(*hard_state);
            let promised = PersistWrite { hard_state, sync: true, ..PersistWrite::default() };
            opened.write(vec![promised])?;
            opened.mark_synced()?;
            drop(opened);
            put_in_place(&place, folder)
        }
    }
}

/// An empty folder to make a new one in.
fn begin(place: &Place, folder: &Path) -> Result<PathBuf, StorageError> {
    let unfinished = folder.join(UNFINISHED);
    for part in PARTS.map(|part| unfinished.join(part)).into_iter().chain([unfinished.clone()]) {
        if !exists(place, &part)? {
            continue;
        }
        let entries = place.disk.list(&part).map_err(|error| io_error(&part, error))?;
        for entry in entries.iter().filter(|entry| entry.kind == coordinator_disk::EntryKind::File)
        {
            let path = part.join(&entry.name);
            place.disk.remove(&path).map_err(|error| io_error(&path, error))?;
        }
        place.disk.remove_dir(&part).map_err(|error| io_error(&part, error))?;
    }
    Ok(unfinished)
}

fn put_in_place(place: &Place, folder: &Path) -> Result<Option<PathBuf>, StorageError> {
    rename(place, &folder.join(UNFINISHED), &folder.join(REPAIRED))?;
    sync(place, &[folder])?;
    finish(place, folder).map(Some)
}

/// From here on no server starts in the folder until this is through.
fn finish(place: &Place, folder: &Path) -> Result<PathBuf, StorageError> {
    let (repaired, aside) = (folder.join(REPAIRED), make_aside(place, folder)?);
    for part in PARTS {
        let (new, old) = (repaired.join(part), folder.join(part));
        if !exists(place, &new)? {
            continue;
        }
        if exists(place, &old)? {
            rename(place, &old, &aside.join(part))?;
        }
        rename(place, &new, &old)?;
        sync(place, &[folder, &aside, &repaired])?;
    }
    // What the folder begins with is what is in it now: nothing, or what was kept.
    let begun = repaired.join(BEGUN);
    if exists(place, &begun)? {
        rename(place, &begun, &folder.join(BEGUN))?;
        sync(place, &[folder])?;
    }
    let lock = repaired.join(".lock");
    if exists(place, &lock)? {
        place.disk.remove(&lock).map_err(|error| io_error(&lock, error))?;
    }
    place.disk.remove_dir(&repaired).map_err(|error| io_error(&repaired, error))?;
    sync(place, &[folder])?;
    Ok(aside)
}

/// A folder of a number that no other has.
fn make_aside(place: &Place, folder: &Path) -> Result<PathBuf, StorageError> {
    for number in 1..=ASIDE_MAX {
        let aside = folder.join(format!("{ASIDE}{number}"));
        if !exists(place, &aside)? {
            create_durable_folder(&*place.disk, &aside).map_err(|error| io_error(&aside, error))?;
            return Ok(aside);
        }
    }
    let reason = format!("there are {ASIDE_MAX} folders of damaged files; clear them up first");
    Err(StorageError::Gap { path: folder.to_owned(), reason })
}

fn exists(place: &Place, path: &Path) -> Result<bool, StorageError> {
    place.disk.exists(path).map_err(|error| io_error(path, error))
}

fn rename(place: &Place, from: &Path, to: &Path) -> Result<(), StorageError> {
    place.disk.rename(from, to).map_err(|error| io_error(from, error))
}

fn sync(place: &Place, folders: &[&Path]) -> Result<(), StorageError> {
    folders
        .iter()
        .try_for_each(|folder| place.disk.sync_dir(folder).map_err(|error| io_error(folder, error)))
}

#[cfg(test)]
mod tests;
