//! What a member began with, when that was a state from elsewhere.
//!
//! ```text
//! .begun   empty       with nothing, or by an older build, or the leader has replaced what it began with
//!          a mark      with the state of this checksum, from an import or a backup
//! ```
//!
//! Called by: `found`, `log`, `restore`; links between members ask for it. Calls: small files, SHA-256.
//! Invariant: the mark is durable before the state that it tells of, and gone before another one is put in that one's
//! place. Every such state begins the log at the same place, so that nothing else could tell two of them apart.
//! Does not know: links, whose mark is right.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use coordinator_core::ServerId;
use coordinator_core::consensus::SnapshotImage;
use coordinator_disk::envelope::{self, Schema};
use coordinator_disk::small_file;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::warn;

use super::restore::BEGUN;
use super::{Place, StorageError, io_error};

const MARK: Schema = Schema { kind: 0x0104, version: 1 };

/// Tells states apart: the first eight bytes of the SHA-256 of a snapshot's index, term and data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning([u8; 8]);

impl Beginning {
    /// That of a member which begins with `image`.
    #[must_use]
    pub fn of(image: &SnapshotImage) -> Beginning {
        let mut sum = Sha256::new();
        sum.update(image.index.to_be_bytes());
        sum.update(image.term.to_be_bytes());
        sum.update(&image.data);
        let sum: [u8; 32] = sum.finalize().into();
        let [a, b, c, d, e, f, g, h, ..] = sum;
        Beginning([a, b, c, d, e, f, g, h])
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(self) -> [u8; 8] {
        self.0
    }
}

impl fmt::Display for Beginning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
struct Mark {
    owner: Vec<u8>,
    began_with: Beginning,
}

/// What a running server began with, and who began with another state; shared by its parts.
#[derive(Debug, Default)]
pub struct Beginnings(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    own: Option<Beginning>,
    /// As many as members that are dialled.
    others: BTreeMap<ServerId, Beginning>,
}

impl Beginnings {
    pub(crate) fn new(own: Option<Beginning>) -> Beginnings {
        Beginnings(Mutex::new(Known { own, ..Known::default() }))
    }

    /// This server's, if it has a mark.
    pub fn own(&self) -> Option<Beginning> {
        self.known().own
    }

    /// What `peer` began with cannot be brought together with this server's; `None` when it can, or nobody knows.
    pub fn note(&self, peer: ServerId, odd: Option<Beginning>) {
        match odd {
            Some(beginning) => self.known().others.insert(peer, beginning),
            None => self.known().others.remove(&peer),
        };
    }

    /// Who began with another state, as far as this server was told.
    pub fn odd_ones(&self) -> Vec<ServerId> {
        self.known().others.keys().copied().collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the mark, if there is one; durable when it returns. What follows comes from the leader, and is the others'.
    pub(super) fn forget(&self, place: &Place) -> Result<(), StorageError> {
        if self.own().is_some() {
            put(place, &[])?;
            self.known().own = None;
        }
        Ok(())
    }

    /// Puts the mark of `beginning` into the folder; durable when it returns.
    pub(super) fn mark(&self, place: &Place, beginning: Beginning) -> Result<(), StorageError> {
        let mark = Mark { owner: owner(place), began_with: beginning };
        let bytes = envelope::encode(MARK, &mark)
            .map_err(|error| StorageError::Encoding { reason: error.to_string() })?;
        put(place, &bytes)?;
        self.known().own = Some(beginning);
        Ok(())
    }
}

/// The mark in the folder. One that cannot be read stands in nobody's way: it is told of, and counts as none.
pub(super) fn read(place: &Place) -> Result<Option<Beginning>, StorageError> {
    let path = place.folder.join(BEGUN);
    let found = small_file::read(&*place.disk, &path).map_err(|error| io_error(&path, error))?;
    let Some(bytes) = found.filter(|bytes| !bytes.is_empty()) else { return Ok(None) };
    let reason = match envelope::decode::<Mark>(MARK, &bytes) {
        Ok(mark) if mark.owner == owner(place) => return Ok(Some(mark.began_with)),
        Ok(mark) => format!("it is the {}", String::from_utf8_lossy(&mark.owner)),
        Err(error) => error.to_string(),
    };
    warn!(path = %path.display(), reason, "what this server began with is not known, and not compared with others");
    Ok(None)
}

fn put(place: &Place, bytes: &[u8]) -> Result<(), StorageError> {
    let path = place.folder.join(BEGUN);
    small_file::replace(&*place.disk, &path, bytes).map_err(|error| io_error(&path, error))
}

fn owner(place: &Place) -> Vec<u8> {
    place.owner.identity("beginning")
}
