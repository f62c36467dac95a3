//! Append-only files of checksummed frames.
//!
//! Called by: the coordinator's log and snapshots, the broker's marks. Calls: [`Disk`].
//! Invariant: what [`recover`] hands out is a prefix of what was appended, to this very file, in order, and holds
//! at least everything that was synced. Only a torn tail is ever cut.
//! Does not know: what a frame means; that the owner replaces and removes whole files.
//!
//! ```text
//! header   | TGRF | version | identity length | crc32 | identity |
//! frame    | TGFR | length | synced end | previous crc32 | crc32 | payload |
//! ```
//! Behind the last frame there may be zeros, written ahead for the frames to come.
//! Numbers are little-endian. A frame's CRC covers all of it but the CRC itself; it names the CRC of the frame before
//! (the first one that of the header), so that a frame out of its place is no frame.
//!
//! *Torn or damaged.* Each frame says up to which position the file was known to be synced when it was written:
//!
//! ```text
//! header ... frame   X unreadable ...   frame that says "synced up to Y"
//!                    Y <= X: the end of the file was lost in a crash, cut at X
//!                    Y >  X: X had been synced and changed since, report it, cut nothing
//! ```

mod scan;
#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, File, OpenMode};
use crate::folder::error_at;
use crate::small_file;

pub use scan::{Recovered, Tail, Visit, identity_of, recover};

/// Largest payload of one frame.
pub const FRAME_BYTES_MAX: usize = 64 << 20;
/// Largest identity in a header.
pub const IDENTITY_BYTES_MAX: usize = 1024;

/// Read and written again at a time.
const AGAIN_BYTES: usize = 256 << 10;

/// What is written ahead, as often as it takes.
const ZEROS: &[u8] = &[0; 32 << 10];

const FILE_MAGIC: [u8; 4] = *b"TGRF";
const FILE_VERSION: u16 = 1;
const FILE_HEADER_BYTES: usize = 12;
const FRAME_MAGIC: [u8; 4] = *b"TGFR";
/// Bytes of a frame before its payload.
pub const FRAME_HEADER_BYTES: usize = 24;

/// Why a record file cannot be used. None of them goes away by trying again.
#[derive(Debug, thiserror::Error)]
pub enum RecordFileError {
    /// The disk failed; after a failed write or sync the handle refuses everything.
    #[error("record file {}", error_at(path, error))]
    Io {
        /// The file.
        path: PathBuf,
        /// The disk's words.
        error: io::Error,
    },
    /// The file belongs to something else.
    #[error("record file {} belongs to {found:?}, not to {expected:?}", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// Written in its header.
        found: String,
        /// Asked for.
        expected: String,
    },
    /// Bytes that had been synced are not what was written. A replica or an operator has to help.
    #[error("record file {} is damaged at byte {offset}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the first unreadable frame begins.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// A frame over [`FRAME_BYTES_MAX`] or an identity over [`IDENTITY_BYTES_MAX`].
    #[error("record file {}: {bytes} bytes are more than {limit}", path.display())]
    Large {
        /// The file.
        path: PathBuf,
        /// What was handed in.
        bytes: usize,
        /// What fits.
        limit: usize,
    },
}

/// An open record file, for appending and for reading back.
pub struct RecordFile {
    file: Arc<dyn File>,
    path: PathBuf,
    /// Where the next frame goes. `synced_end <= end`.
    end: u64,
    /// Up to where contents are known to be durable; goes into the next frame.
    synced_end: u64,
    /// Up to where zeros were written; the file's length if that is beyond `end`.
    filled_end: u64,
    /// How many zeros to write behind a frame that reaches beyond `filled_end`.
    fill_bytes: usize,
    /// CRC of the last frame, or of the header.
    chain: u32,
    /// Set by a failed write or sync: what is in the file is then unknown.
    failed: bool,
}

impl RecordFile {
    /// Creates the file at `path` with nothing but a header that says what it belongs to, replacing an old one.
    /// File and name are durable when it returns.
    ///
    /// # Errors
    /// [`RecordFileError::Io`], [`RecordFileError::Large`].
    pub fn create(
        disk: &dyn Disk,
        path: &Path,
        identity: &[u8],
    ) -> Result<RecordFile, RecordFileError> {
        if identity.len() > IDENTITY_BYTES_MAX {
            let (path, bytes) = (path.to_owned(), identity.len());
            return Err(RecordFileError::Large { path, bytes, limit: IDENTITY_BYTES_MAX });
        }
        let (header, chain) = encode_file_header(identity);
        // Renamed into place, so that a file under its own name always has a whole header.
        small_file::replace(disk, path, &header).map_err(|e| io_error(path, e))?;
        let file = disk.open(path, OpenMode::ReadWrite).map_err(|e| io_error(path, e))?;
        let end = header.len() as u64;
        Ok(RecordFile::resume((file, path), end, chain))
    }

    /// A file whose contents, all durable, end at `end`.
    fn resume((file, path): (Arc<dyn File>, &Path), end: u64, chain: u32) -> RecordFile {
        RecordFile {
            file,
            path: path.to_owned(),
            end,
            synced_end: end,
            filled_end: end,
            fill_bytes: 0,
            chain,
            failed: false,
        }
    }

    /// Writes so many zeros ahead of what is appended from now on. A sync that only changes bytes which
    /// were written before leaves the filesystem's journal alone: it takes half as long, and does not wait
    /// for others. Such a file ends in zeros until [`RecordFile::seal`]; reading it back cuts them.
    pub fn fill_ahead(&mut self, bytes: usize) {
        self.fill_bytes = bytes;
    }

    /// Appends one frame per payload, all in one write; returns where the first begins. Durable after [`RecordFile::sync`].
    ///
    /// # Errors
    /// [`RecordFileError::Large`] before anything is written; [`RecordFileError::Io`], after which the file refuses
    /// every further append.
    pub fn append(&mut self, payloads: &[&[u8]]) -> Result<u64, RecordFileError> {
        self.refuse_failed()?;
        let start = self.end;
        let mut chain = self.chain;
        let mut headers = Vec::with_capacity(payloads.len());
        let mut bytes = 0;
        for payload in payloads {
            if payload.len() > FRAME_BYTES_MAX {
                let (path, bytes) = (self.path.clone(), payload.len());
                return Err(RecordFileError::Large { path, bytes, limit: FRAME_BYTES_MAX });
            }
            let header = encode_frame_header(payload, self.synced_end, chain);
            chain = header.crc;
            headers.push(header.bytes);
            bytes += (FRAME_HEADER_BYTES + payload.len()) as u64;
        }
        let mut parts = Vec::with_capacity(2 * payloads.len());
        for (header, payload) in headers.iter().zip(payloads) {
            parts.push(IoSlice::new(header));
            parts.push(IoSlice::new(payload));
        }
        let end = start + bytes;
        let fill = if end > self.filled_end { self.fill_bytes } else { 0 };
        let mut left = fill;
        while left > 0 {
            let count = left.min(ZEROS.len());
            parts.push(IoSlice::new(&ZEROS[..count]));
            left -= count;
        }
        self.file.write_at(start, &parts).map_err(|error| {
            self.failed = true;
            io_error(&self.path, error)
        })?;
        self.chain = chain;
        self.end = end;
        self.filled_end = self.filled_end.max(end + fill as u64);
        Ok(start)
    }

    /// Makes everything appended so far durable.
    ///
    /// # Errors
    /// [`RecordFileError::Io`]: final, the file refuses everything from then on.
    pub fn sync(&mut self) -> Result<(), RecordFileError> {
        self.refuse_failed()?;
        self.file.sync().map_err(|error| {
            self.failed = true;
            io_error(&self.path, error)
        })?;
        self.synced_end = self.end;
        Ok(())
    }

    /// Makes everything durable for the last time: the file then ends where its last frame ends.
    ///
    /// # Errors
    /// [`RecordFileError::Io`]: final, the file refuses everything from then on.
    pub fn seal(&mut self) -> Result<(), RecordFileError> {
        self.refuse_failed()?;
        if self.filled_end > self.end {
            self.file.truncate(self.end).map_err(|error| {
                self.failed = true;
                io_error(&self.path, error)
            })?;
            self.filled_end = self.end;
        }
        self.sync()
    }

    /// Writes what stands behind `position` once more, and makes it durable. For what no sync is known to have covered: when one
    /// failed in a former process, the machine may take for written what never was, and show it until it forgets. The sync of a
    /// process that came later says nothing of that.
    ///
    /// # Errors
    /// [`RecordFileError::Io`]: final, the file refuses everything from then on.
    pub fn write_again(&mut self, position: u64) -> Result<(), RecordFileError> {
        self.refuse_failed()?;
        let mut from = position;
        while from < self.end {
            let count = usize::try_from(self.end - from).unwrap_or(usize::MAX).min(AGAIN_BYTES);
            let mut bytes = vec![0; count];
            let written = self.file.read_exact_at(from, &mut bytes);
            let written = written.and_then(|()| self.file.write_at(from, &[IoSlice::new(&bytes)]));
            written.map_err(|error| {
                self.failed = true;
                io_error(&self.path, error)
            })?;
            from += count as u64;
        }
        self.sync()
    }

    /// The payload of the frame that begins at `position`, checked again.
    ///
    /// # Errors
    /// [`RecordFileError::Damaged`] when no whole frame begins there, [`RecordFileError::Io`].
    pub fn read(&self, position: u64) -> Result<Vec<u8>, RecordFileError> {
        let damaged = |reason: &str| RecordFileError::Damaged {
            path: self.path.clone(),
            offset: position,
            reason: reason.to_owned(),
        };
        let mut header = [0; FRAME_HEADER_BYTES];
        self.file.read_exact_at(position, &mut header).map_err(|e| io_error(&self.path, e))?;
        let header = FrameHeader::decode(&header).ok_or_else(|| damaged("no frame begins here"))?;
        let payload_position = position + FRAME_HEADER_BYTES as u64;
        if payload_position + u64::from(header.length) > self.end {
            return Err(damaged("the frame goes past the end"));
        }
        let mut payload = vec![0; header.length as usize];
        self.file
            .read_exact_at(payload_position, &mut payload)
            .map_err(|e| io_error(&self.path, e))?;
        if header.checksum(&payload) != header.crc {
            return Err(damaged("the checksum differs"));
        }
        Ok(payload)
    }

    /// Where the next frame will begin, in bytes.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reserves space for the first `length` bytes, so that syncs need not change the file's extents.
    ///
    /// # Errors
    /// [`RecordFileError::Io`], `StorageFull` among them.
    pub fn preallocate(&self, length: u64) -> Result<(), RecordFileError> {
        self.file.preallocate(length).map_err(|e| io_error(&self.path, e))
    }

    fn refuse_failed(&self) -> Result<(), RecordFileError> {
        if !self.failed {
            return Ok(());
        }
        let error = io::Error::other("an earlier write or sync failed");
        Err(io_error(&self.path, error))
    }
}

/// The fixed part of a frame.
struct FrameHeader {
    length: u32,
    synced_end: u64,
    previous: u32,
    crc: u32,
}

impl FrameHeader {
    /// `None` when the bytes do not begin with a frame's magic or declare more than a frame holds.
    fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Option<FrameHeader> {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let length = word(4);
        if bytes[..4] != FRAME_MAGIC || length as usize > FRAME_BYTES_MAX {
            return None;
        }
        let synced_end = u64::from(word(8)) | u64::from(word(12)) << 32;
        Some(FrameHeader { length, synced_end, previous: word(16), crc: word(20) })
    }

    fn checksum(&self, payload: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&FRAME_MAGIC);
        hasher.update(&self.length.to_le_bytes());
        hasher.update(&self.synced_end.to_le_bytes());
        hasher.update(&self.previous.to_le_bytes());
        hasher.update(payload);
        hasher.finalize()
    }
}

struct EncodedFrameHeader {
    bytes: [u8; FRAME_HEADER_BYTES],
    crc: u32,
}

fn encode_frame_header(payload: &[u8], synced_end: u64, previous: u32) -> EncodedFrameHeader {
    let length = u32::try_from(payload.len()).expect("at most FRAME_BYTES_MAX");
    let header = FrameHeader { length, synced_end, previous, crc: 0 };
    let crc = header.checksum(payload);
    let mut bytes = [0; FRAME_HEADER_BYTES];
    bytes[0..4].copy_from_slice(&FRAME_MAGIC);
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[8..16].copy_from_slice(&synced_end.to_le_bytes());
    bytes[16..20].copy_from_slice(&previous.to_le_bytes());
    bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    EncodedFrameHeader { bytes, crc }
}

/// The whole file header and its CRC, which the first frame names.
fn encode_file_header(identity: &[u8]) -> (Vec<u8>, u32) {
    let length = u16::try_from(identity.len()).expect("at most IDENTITY_BYTES_MAX");
    let mut bytes = Vec::with_capacity(FILE_HEADER_BYTES + identity.len());
    bytes.extend_from_slice(&FILE_MAGIC);
    bytes.extend_from_slice(&FILE_VERSION.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes);
    hasher.update(identity);
    let crc = hasher.finalize();
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(identity);
    (bytes, crc)
}

fn io_error(path: &Path, error: io::Error) -> RecordFileError {
    RecordFileError::Io { path: path.to_owned(), error }
}
