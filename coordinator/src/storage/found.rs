//! A new data folder that begins with a state from elsewhere.
//!
//! Called by: the binary, `import`. Calls: `super::open`, `snapshot`.
//! Invariant: only a folder that holds nothing is written; when it returns, all of it is durable, with the mark of what it
//! began with. A kill in the middle leaves a folder in which no server starts, and which may be made once more from the
//! same state (an imported one: from any).
//! Does not know: where the state comes from.

use std::path::Path;
use std::sync::Arc;

use coordinator_core::consensus::{HardState, PersistWrite, Restored, SnapshotImage};
use coordinator_core::members::Members;
use coordinator_core::state::{Membership, State};
use coordinator_disk::{Disk, Rehearsal, record_file};

use super::restore::has_begun;
use super::{Beginning, Owner, Place, StorageError, io_error, snapshot};

/// Makes the folder of a member that begins with `image`. Every member has to begin with the same; what is returned tells
/// whether they do.
///
/// # Errors
/// `NotEmpty`, and every other [`StorageError`] of a folder.
pub fn found(
    disk: Arc<dyn Disk>,
    folder: &Path,
    owner: Owner,
    image: SnapshotImage,
) -> Result<Beginning, StorageError> {
    let (mut opened, restored) = super::open(disk, folder, owner)?;
    let hard_state = beginning(&restored, folder, &image)?;
    // First what no server accepts without the state.
    let promised =
        PersistWrite { hard_state: Some(hard_state), sync: true, ..PersistWrite::default() };
    opened.write(vec![promised])?;
    opened.begin(&image)
}

/// Whether [`found`] may make the folder: nothing is written, but for the lock's file in one that was used.
///
/// # Errors
/// As [`found`].
pub fn may_found(
    disk: Arc<dyn Disk>,
    folder: &Path,
    owner: Owner,
    image: &SnapshotImage,
) -> Result<(), StorageError> {
    let place = Place::new(disk.clone(), folder, owner.clone());
    let parts = [&place.log, &place.snapshots].map(|part| {
        let exists = place.disk.exists(part);
        exists.map_err(|error| io_error(part, error))
    });
    let [log, snapshots] = parts;
    if !log? && !snapshots? && !has_begun(&place)? {
        return Ok(());
    }
    let (_opened, restored) = super::open(Arc::new(Rehearsal::new(disk)), folder, owner)?;
    beginning(&restored, folder, image).map(|_| ())
}

/// What the log begins with, where nothing is there or only what an interrupted attempt has left.
fn beginning(
    restored: &Restored,
    folder: &Path,
    image: &SnapshotImage,
) -> Result<HardState, StorageError> {
    let hard_state = HardState { term: image.term, vote: 0, commit: image.index };
    let is_ours = restored.entries.is_empty()
        && restored.snapshot.as_ref().is_none_or(|found| found == image)
        && [HardState::default(), hard_state].contains(&restored.hard_state);
    let is_done = restored.snapshot.is_some() && restored.hard_state == hard_state;
    match is_ours && !is_done {
        true => Ok(hard_state),
        false => Err(StorageError::NotEmpty { path: folder.to_owned() }),
    }
}

/// Makes the folder of a member that begins with the snapshot in `file`, which any member of the same cluster wrote.
/// Returns the state's log index, and what tells it from others.
///
/// # Errors
/// `Foreign` for another cluster's; otherwise those of [`found`] and of reading the file.
pub fn found_from(
    disk: Arc<dyn Disk>,
    file: &Path,
    folder: &Path,
    owner: Owner,
) -> Result<(u64, Beginning), StorageError> {
    let (image, state) = load(&*disk, file, owner.clone())?;
    let wrong =
        |reason: &str| io_error(file, std::io::Error::new(std::io::ErrorKind::InvalidData, reason));
    // What followed the snapshot is lost, and clients may have seen it.
    let state = state
        .set_apart()
        .ok_or_else(|| wrong("nothing was ever written in it, or no epoch is left"))?;
    let image = SnapshotImage { data: state.encode_snapshot(), ..image };
    let index = image.index;
    Ok((index, found(disk, folder, owner, image)?))
}

/// The members that were agreed on when such a snapshot was taken, and those of a change then under way; `None` where
/// settings named them.
///
/// # Errors
/// As [`found_from`], of the file.
pub fn members_in(
    disk: &dyn Disk,
    file: &Path,
    owner: Owner,
) -> Result<Option<(Members, Option<Members>)>, StorageError> {
    let (_, state) = load(disk, file, owner)?;
    let target = |membership: &Membership| membership.change.as_ref().map(|c| c.target.clone());
    Ok(state.membership().map(|membership| (membership.servers.clone(), target(membership))))
}

fn load(
    disk: &dyn Disk,
    file: &Path,
    owner: Owner,
) -> Result<(SnapshotImage, State), StorageError> {
    let identity = record_file::identity_of(disk, file)?;
    let found_identity = String::from_utf8_lossy(&identity).into_owned();
    let cluster = format!(" in cluster {}", owner.cluster_id);
    if !found_identity.starts_with("snapshot ") || !found_identity.ends_with(&cluster) {
        return Err(StorageError::Foreign {
            path: file.to_owned(),
            found: found_identity,
            cluster_id: owner.cluster_id,
        });
    }
    let image = snapshot::load_file(disk, file, &identity)?;
    let wrong = |reason: String| {
        io_error(file, std::io::Error::new(std::io::ErrorKind::InvalidData, reason))
    };
    let state = State::decode_snapshot(&image.data).map_err(|error| wrong(error.to_string()))?;
    Ok((image, state))
}
