//! Reading a record file back after a stop, clean or not.
//!
//! Called by: owners of record files, when they start. Calls: [`Disk`].
//! Invariant: nothing is cut that a sync had covered, as far as any later byte of the file can tell.
//! Does not know: what the frames mean; the owner's visitor does.

use std::path::Path;

use super::{
    FILE_HEADER_BYTES, FILE_MAGIC, FILE_VERSION, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader,
    IDENTITY_BYTES_MAX, RecordFile, RecordFileError, encode_file_header, io_error,
};
use crate::disk::{Disk, File, OpenMode};

/// Bytes read at a time.
const WINDOW_BYTES: usize = 256 << 10;

/// What the owner knows of the end of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// It was being written: an unreadable end is what a crash leaves, and is cut.
    MayBeTorn,
    /// It was synced whole before the next file began: anything unreadable is damage.
    Sealed,
}

/// Takes position and payload of one frame; an error text says why it cannot be.
pub type Visit<'a> = dyn FnMut(u64, &[u8]) -> Result<(), String> + 'a;

/// A file that was read back.
pub struct Recovered {
    /// Ready for the next append; everything in it is durable.
    pub file: RecordFile,
    /// How many frames the visitor saw.
    pub frames: u64,
    /// Bytes of torn tail that were cut, without the zeros at its end.
    pub cut_bytes: u64,
    /// Up to where the frames themselves say that a sync has covered them.
    pub proven_end: u64,
}

/// Reads the file at `path`, which must belong to `identity`, hands `(position, payload)` of each frame to `visit`, cuts a
/// torn tail and syncs what is kept. An error text from `visit` stops the reading.
///
/// # Errors
/// [`RecordFileError::Identity`]; [`RecordFileError::Damaged`] for a damaged middle, with its offset, and for what
/// `visit` refused; [`RecordFileError::Io`]. Nothing is changed on an error.
pub fn recover(
    disk: &dyn Disk,
    path: &Path,
    identity: &[u8],
    tail: Tail,
    visit: &mut Visit<'_>,
) -> Result<Recovered, RecordFileError> {
    let mode = if tail == Tail::Sealed { OpenMode::Read } else { OpenMode::ReadWrite };
    let file = disk.open(path, mode).map_err(|e| io_error(path, e))?;
    let length = file.len().map_err(|e| io_error(path, e))?;
    let damaged = |offset: u64, reason: String| RecordFileError::Damaged {
        path: path.to_owned(),
        offset,
        reason,
    };
    let (mut end, mut chain) = check_file_header(&*file, path, identity)?;
    let (mut frames, mut proven_end) = (0, end);
    let mut window = Window::new(&*file, length);
    loop {
        match read_frame(&mut window, end, chain).map_err(|e| io_error(path, e))? {
            Found::End => break,
            Found::Frame { header, payload } => {
                visit(end, payload).map_err(|reason| damaged(end, reason))?;
                end += (FRAME_HEADER_BYTES + payload.len()) as u64;
                chain = header.crc;
                proven_end = proven_end.max(header.synced_end).min(end);
                frames += 1;
            }
            Found::Unreadable(reason) if tail == Tail::Sealed => {
                return Err(damaged(end, format!("{reason}, in a file that was synced whole")));
            }
            Found::Unreadable(reason) => {
                let proof = find_proof_of_sync(&mut window, end).map_err(|e| io_error(path, e))?;
                if let Some(position) = proof {
                    let proof = format!("a frame at byte {position} shows that it was synced");
                    return Err(damaged(end, format!("{reason}; {proof}")));
                }
                break;
            }
        }
    }
    let cut_bytes = written_end(&mut window, end).map_err(|e| io_error(path, e))? - end;
    if tail == Tail::MayBeTorn {
        if length > end {
            file.truncate(end).map_err(|e| io_error(path, e))?;
        }
        file.sync().map_err(|e| io_error(path, e))?;
    }
    let file = RecordFile::resume((file, path), end, chain);
    Ok(Recovered { file, frames, cut_bytes, proven_end })
}

/// Where the zeros at the end of the file begin, from `position` on.
fn written_end(window: &mut Window<'_>, position: u64) -> std::io::Result<u64> {
    let (mut position, mut end) = (position, position);
    while position < window.length {
        let count = usize::try_from(window.length - position).unwrap_or(usize::MAX);
        let Some(bytes) = window.slice(position, count.min(WINDOW_BYTES))? else { break };
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            end = position + last as u64 + 1;
        }
        position += bytes.len() as u64;
    }
    Ok(end)
}

/// What the file at `path` belongs to, by its header.
///
/// # Errors
/// [`RecordFileError::Damaged`] when it has no header of a record file; [`RecordFileError::Io`].
pub fn identity_of(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, RecordFileError> {
    let file = disk.open(path, OpenMode::Read).map_err(|e| io_error(path, e))?;
    read_file_header(&*file, path)
}

/// Checks the header; returns where the first frame begins and the CRC that it has to name.
fn check_file_header(
    file: &dyn File,
    path: &Path,
    identity: &[u8],
) -> Result<(u64, u32), RecordFileError> {
    let found = read_file_header(file, path)?;
    if found != identity {
        return Err(RecordFileError::Identity {
            path: path.to_owned(),
            found: String::from_utf8_lossy(&found).into_owned(),
            expected: String::from_utf8_lossy(identity).into_owned(),
        });
    }
    let (header, chain) = encode_file_header(identity);
    Ok((header.len() as u64, chain))
}

/// The identity in a header that is whole.
fn read_file_header(file: &dyn File, path: &Path) -> Result<Vec<u8>, RecordFileError> {
    let damaged = |reason: &str| RecordFileError::Damaged {
        path: path.to_owned(),
        offset: 0,
        reason: reason.to_owned(),
    };
    let mut bytes = vec![0; FILE_HEADER_BYTES + IDENTITY_BYTES_MAX];
    let count = file.read_at(0, &mut bytes).map_err(|e| io_error(path, e))?;
    bytes.truncate(count);
    if bytes.len() < FILE_HEADER_BYTES || bytes[..4] != FILE_MAGIC {
        return Err(damaged("it does not begin with a record file's header"));
    }
    let version = u16::from_le_bytes([bytes[4], bytes[5]]);
    if version != FILE_VERSION {
        return Err(damaged(&format!("version {version}, this program knows {FILE_VERSION}")));
    }
    let length = usize::from(u16::from_le_bytes([bytes[6], bytes[7]]));
    let Some(found) = bytes.get(FILE_HEADER_BYTES..FILE_HEADER_BYTES + length) else {
        return Err(damaged("the header is cut short"));
    };
    let (expected, _) = encode_file_header(found);
    if bytes[..expected.len()] != expected {
        return Err(damaged("the header's checksum differs"));
    }
    Ok(found.to_vec())
}

enum Found<'a> {
    End,
    Frame { header: FrameHeader, payload: &'a [u8] },
    Unreadable(&'static str),
}

/// The frame at `position`, which has to follow the one with CRC `chain`.
fn read_frame<'a>(
    window: &'a mut Window<'_>,
    position: u64,
    chain: u32,
) -> std::io::Result<Found<'a>> {
    if position == window.length {
        return Ok(Found::End);
    }
    let Some(header) = window.frame_header(position)? else {
        return Ok(Found::Unreadable("no frame begins here"));
    };
    let payload_position = position + FRAME_HEADER_BYTES as u64;
    let Some(payload) = window.slice(payload_position, header.length as usize)? else {
        return Ok(Found::Unreadable("the frame goes past the end"));
    };
    if header.checksum(payload) != header.crc {
        return Ok(Found::Unreadable("the frame's checksum differs"));
    }
    if header.previous != chain {
        return Ok(Found::Unreadable("the frame does not follow the one before"));
    }
    Ok(Found::Frame { header, payload })
}

/// Looks behind the unreadable frame at `bad` for a whole frame that was written after `bad` had been synced.
fn find_proof_of_sync(window: &mut Window<'_>, bad: u64) -> std::io::Result<Option<u64>> {
    // False beginnings are rare in honest files; in others the sum of what they declare ends the search.
    let mut budget = 16 * (window.length - bad) + (1 << 20);
    let mut position = bad + 1;
    while position + FRAME_HEADER_BYTES as u64 <= window.length {
        let count = usize::try_from(window.length - position).unwrap_or(usize::MAX);
        let Some(bytes) = window.slice(position, count.min(WINDOW_BYTES))? else {
            return Ok(None);
        };
        let magic = bytes.windows(FRAME_MAGIC.len()).position(|bytes| bytes == FRAME_MAGIC);
        let Some(skip) = magic else {
            position += (bytes.len() - (FRAME_MAGIC.len() - 1)) as u64;
            continue;
        };
        position += skip as u64;
        if let Some(header) = window.frame_header(position)?
            && header.synced_end > bad
            && header.synced_end <= position
        {
            let Some(left) = budget.checked_sub(u64::from(header.length)) else {
                return Ok(Some(position));
            };
            budget = left;
            let payload_position = position + FRAME_HEADER_BYTES as u64;
            if let Some(payload) = window.slice(payload_position, header.length as usize)?
                && header.checksum(payload) == header.crc
            {
                return Ok(Some(position));
            }
        }
        position += 1;
    }
    Ok(None)
}

/// A part of the file in memory, moved forward as the reading goes on.
struct Window<'a> {
    file: &'a dyn File,
    /// Length of the file when reading began.
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn File, length: u64) -> Window<'a> {
        Window { file, length, start: 0, bytes: Vec::new() }
    }

    fn frame_header(&mut self, position: u64) -> std::io::Result<Option<FrameHeader>> {
        let Some(bytes) = self.slice(position, FRAME_HEADER_BYTES)? else {
            return Ok(None);
        };
        let bytes = bytes.try_into().expect("a slice of as many bytes as asked for");
        Ok(FrameHeader::decode(bytes))
    }

    /// `count` bytes from `position`, or `None` when the file ends before. Memory follows the file's length, not `count`.
    fn slice(&mut self, position: u64, count: usize) -> std::io::Result<Option<&[u8]>> {
        if position.checked_add(count as u64).is_none_or(|end| end > self.length) {
            return Ok(None);
        }
        let held = position >= self.start
            && position + count as u64 <= self.start + self.bytes.len() as u64;
        if !held {
            let rest = usize::try_from(self.length - position).unwrap_or(usize::MAX);
            self.bytes.resize(rest.min(count.max(WINDOW_BYTES)), 0);
            self.start = position;
            self.file.read_exact_at(position, &mut self.bytes)?;
        }
        let from = usize::try_from(position - self.start).expect("within the window");
        Ok(Some(&self.bytes[from..from + count]))
    }
}
