//! The form of a snapshot's file.
//!
//! Called by: `snapshot`. Calls: record files, zstd.
//! Invariant: what is read back is what was written, whole: each frame has a checksum of its own and names the one before,
//! and the last one has length and checksum of all. Memory follows what is in the file, never a number in it, and no
//! further than [`STATE_BYTES_MAX`].
//! Does not know: what the state is, names and folders.
//!
//! ```text
//! | head: index, term | part | part | ... | end: bytes and crc32 of the state |
//! part    0 and state bytes, or 1 and as many in a frame of zstd's
//! end     2 and an envelope
//! ```
//! Builds before wrote length and checksum into the head, and the bare parts behind it: version 1, which is read, too.

use std::io::Read;
use std::path::Path;

use coordinator_disk::Disk;
use coordinator_disk::envelope::{self, EnvelopeError, Schema};
use coordinator_disk::record_file::{self, RecordFile, RecordFileError, Tail};
use ruzstd::decoding::StreamingDecoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde::{Deserialize, Serialize};

use super::StorageError;

/// State bytes in one part.
pub const PART_BYTES: usize = 1 << 20;
/// Of a whole state; as much as a member takes from another.
const STATE_BYTES_MAX: u64 = 8 << 30;

const HEAD_SCHEMA: Schema = Schema { kind: 0x0102, version: 1 };
const HEAD_SCHEMA_2: Schema = Schema { kind: 0x0102, version: 2 };
const END_SCHEMA: Schema = Schema { kind: 0x0103, version: 1 };

const BARE: u8 = 0;
const PACKED: u8 = 1;
const END: u8 = 2;

/// How parts are packed (`snapshot.compression.method`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Packing {
    /// Not at all.
    #[default]
    None,
    /// As zstd does it, each part for itself, where that makes it smaller.
    Zstd,
}

/// What a file is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Last log index inside.
    pub index: u64,
    /// Term of the entry there.
    pub term: u64,
}

/// The first frame of builds before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Head {
    V1 { index: u64, term: u64, bytes: u64, crc32: u32 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head2 {
    index: u64,
    term: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    bytes: u64,
    crc32: u32,
}

/// A file that is being written.
pub struct Writer {
    file: RecordFile,
    packing: Packing,
    bytes: u64,
    crc32: crc32fast::Hasher,
}

impl Writer {
    /// Writes the head.
    pub fn begin(
        mut file: RecordFile,
        position: Position,
        packing: Packing,
    ) -> Result<Writer, StorageError> {
        let Position { index, term } = position;
        file.append(&[&encoded(HEAD_SCHEMA_2, &Head2 { index, term })?])?;
        Ok(Writer { file, packing, bytes: 0, crc32: crc32fast::Hasher::new() })
    }

    /// Writes the state's next bytes, at most [`PART_BYTES`]; not durable yet.
    pub fn part(&mut self, part: &[u8]) -> Result<(), StorageError> {
        assert!(part.len() <= PART_BYTES, "a part of {} bytes", part.len());
        let bytes = self.bytes.saturating_add(part.len() as u64);
        if bytes > STATE_BYTES_MAX {
            let reason = format!("a state of {bytes} bytes, at most {STATE_BYTES_MAX}");
            return Err(StorageError::Encoding { reason });
        }
        self.bytes = bytes;
        self.crc32.update(part);
        self.file.append(&[&framed(part, self.packing)])?;
        Ok(())
    }

    /// Where the file ends by now.
    pub fn end(&self) -> u64 {
        self.file.end()
    }

    /// Makes durable what was written so far.
    pub fn sync(&mut self) -> Result<(), StorageError> {
        Ok(self.file.sync()?)
    }

    /// Writes the end. All of it is durable when it returns, but for the file's name.
    pub fn finish(mut self) -> Result<u64, StorageError> {
        let end = End { bytes: self.bytes, crc32: self.crc32.finalize() };
        let mut frame = vec![END];
        frame.extend_from_slice(&encoded(END_SCHEMA, &end)?);
        self.file.append(&[&frame])?;
        self.file.sync()?;
        Ok(self.file.end())
    }
}

fn encoded<T: Serialize>(schema: Schema, value: &T) -> Result<Vec<u8>, StorageError> {
    envelope::encode(schema, value)
        .map_err(|error| StorageError::Encoding { reason: error.to_string() })
}

fn framed(part: &[u8], packing: Packing) -> Vec<u8> {
    if packing == Packing::Zstd {
        let packed = compress_to_vec(part, CompressionLevel::Fastest);
        if packed.len() < part.len() {
            return tagged(PACKED, &packed);
        }
    }
    tagged(BARE, part)
}

fn tagged(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(bytes.len() + 1);
    frame.push(tag);
    frame.extend_from_slice(bytes);
    frame
}

/// Reads the file at `path`, which has to belong to `identity`; `None` when it is not whole.
pub fn read(
    disk: &dyn Disk,
    path: &Path,
    identity: &[u8],
) -> Result<Option<(Position, Vec<u8>)>, RecordFileError> {
    let mut reader = Reader { state: Some(Vec::new()), ..Reader::default() };
    record_file::recover(disk, path, identity, Tail::Sealed, &mut |_, frame| reader.take(frame))?;
    let state = reader.state.take().unwrap_or_default();
    Ok(reader.finish().map(|position| (position, state)))
}

/// The same without keeping what is read; `wait` is told how far that is.
pub fn check(
    disk: &dyn Disk,
    path: &Path,
    identity: &[u8],
    wait: &mut dyn FnMut(u64),
) -> Result<Option<Position>, RecordFileError> {
    let mut reader = Reader::default();
    record_file::recover(disk, path, identity, Tail::Sealed, &mut |position, frame| {
        wait(position);
        reader.take(frame)
    })?;
    Ok(reader.finish())
}

#[derive(Default)]
struct Reader {
    head: Option<Position>,
    /// Of an older build: what the parts have, without a mark of their own.
    is_bare: bool,
    end: Option<End>,
    /// Of the state so far.
    bytes: u64,
    crc32: crc32fast::Hasher,
    /// The state so far, where it is wanted.
    state: Option<Vec<u8>>,
}

impl Reader {
    fn take(&mut self, frame: &[u8]) -> Result<(), String> {
        if self.head.is_none() {
            return self.take_head(frame);
        }
        if self.is_bare {
            return self.extend(frame);
        }
        if self.end.is_some() {
            return Err("a frame behind the end".to_owned());
        }
        match frame.split_first() {
            Some((&BARE, part)) => self.extend(part),
            Some((&PACKED, packed)) => self.extend(&unpacked(packed)?),
            Some((&END, end)) => {
                self.end = Some(envelope::decode(END_SCHEMA, end).map_err(|e| e.to_string())?);
                Ok(())
            }
            Some((other, _)) => Err(format!("a frame of kind {other}")),
            None => Err("an empty frame".to_owned()),
        }
    }

    fn take_head(&mut self, frame: &[u8]) -> Result<(), String> {
        let found = match envelope::decode::<Head2>(HEAD_SCHEMA_2, frame) {
            Ok(Head2 { index, term }) => Position { index, term },
            Err(EnvelopeError::Schema { found: HEAD_SCHEMA, .. }) => {
                let head = envelope::decode(HEAD_SCHEMA, frame).map_err(|e| e.to_string())?;
                let Head::V1 { index, term, bytes, crc32 } = head;
                self.is_bare = true;
                self.end = Some(End { bytes, crc32 });
                Position { index, term }
            }
            Err(error) => return Err(error.to_string()),
        };
        self.head = Some(found);
        Ok(())
    }

    fn extend(&mut self, part: &[u8]) -> Result<(), String> {
        let bytes = self.bytes.saturating_add(part.len() as u64);
        if bytes > STATE_BYTES_MAX {
            return Err(format!("a state of more than {STATE_BYTES_MAX} bytes"));
        }
        self.bytes = bytes;
        self.crc32.update(part);
        if let Some(state) = &mut self.state {
            state.extend_from_slice(part);
        }
        Ok(())
    }

    fn finish(self) -> Option<Position> {
        let found = End { bytes: self.bytes, crc32: self.crc32.finalize() };
        let is_whole = self.end.is_some_and(|end| end == found);
        self.head.filter(|_| is_whole)
    }
}

/// At most [`PART_BYTES`], whatever the frame says of itself.
fn unpacked(packed: &[u8]) -> Result<Vec<u8>, String> {
    let limit = PART_BYTES as u64;
    let decoder = StreamingDecoder::new_with_max_window_size(packed, limit);
    let decoder = decoder.map_err(|error| format!("a part cannot be unpacked: {error}"))?;
    let mut part = Vec::new();
    let read = decoder.take(limit + 1).read_to_end(&mut part);
    read.map_err(|error| format!("a part cannot be unpacked: {error}"))?;
    match part.len() > PART_BYTES {
        true => Err(format!("a part unpacks to more than {PART_BYTES} bytes")),
        false => Ok(part),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use coordinator_disk::{OpenMode, RealDisk};

    use super::*;

    const POSITION: Position = Position { index: 7, term: 2 };

    fn written(folder: &Path, state: &[u8], packing: Packing) -> std::path::PathBuf {
        let path = folder.join("file");
        let file = RecordFile::create(&RealDisk, &path, b"me").unwrap();
        let mut writer = Writer::begin(file, POSITION, packing).unwrap();
        for part in state.chunks(PART_BYTES) {
            writer.part(part).unwrap();
        }
        assert_eq!(writer.finish().unwrap(), std::fs::metadata(&path).unwrap().len());
        path
    }

    fn read_back(path: &Path) -> Result<Option<(Position, Vec<u8>)>, RecordFileError> {
        read(&RealDisk, path, b"me")
    }

    /// The file's frames, without what the record file adds.
    fn frames(path: &Path) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let take = &mut |_, frame: &[u8]| {
            frames.push(frame.to_vec());
            Ok(())
        };
        record_file::recover(&RealDisk, path, b"me", Tail::Sealed, take).unwrap();
        frames
    }

    fn of_frames(folder: &Path, frames: &[Vec<u8>]) -> std::path::PathBuf {
        let path = folder.join("forged");
        let mut file = RecordFile::create(&RealDisk, &path, b"me").unwrap();
        for frame in frames {
            file.append(&[frame]).unwrap();
        }
        file.sync().unwrap();
        path
    }

    /// Text that packs, and bytes that do not.
    fn state() -> Vec<u8> {
        let text = b"/brokers/topics/payments/partitions/17/state ".repeat(40_000);
        let mut random = 1u64;
        let noise = (0..PART_BYTES + 5).map(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 56) as u8
        });
        text.into_iter().chain(noise).collect()
    }

    #[test]
    fn state_comes_back_packed_or_not() {
        let folder = tempfile::tempdir().unwrap();
        for packing in [Packing::None, Packing::Zstd] {
            for state in [Vec::new(), vec![5], vec![0; PART_BYTES], state()] {
                let path = written(folder.path(), &state, packing);
                assert_eq!(read_back(&path).unwrap(), Some((POSITION, state.clone())));
                let length = std::fs::metadata(&path).unwrap().len();
                let is_smaller = length < state.len() as u64 * 9 / 10;
                assert_eq!(is_smaller, packing == Packing::Zstd && state.len() > 1, "{length}");
            }
        }
    }

    /// These bytes stand in files of running systems.
    #[test]
    fn golden_frames_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), b"tide", Packing::None);
        let [head, part, end] = frames(&path).try_into().unwrap();
        assert_eq!(&head[..8], b"TGEV\x02\x01\x02\x00");
        assert_eq!(head[envelope::HEADER_BYTES..], [7, 2]);
        assert_eq!(part, b"\x00tide");
        assert_eq!((end[0], &end[1..9]), (2, &b"TGEV\x03\x01\x01\x00"[..]));
        // Four bytes, and the CRC-32 of "tide" as zlib has it, as a number of four bytes.
        assert_eq!(end[1 + envelope::HEADER_BYTES..], [4, 0xfc, 0x0c, 0x23, 0x56, 0xbe]);
        // A frame of zstd's that another program packed: "tide" 64 times, its length and checksum declared.
        let mut packed = frames(&written(folder.path(), &b"tide".repeat(64), Packing::Zstd));
        assert_eq!(packed[1][..5], [1, 0x28, 0xb5, 0x2f, 0xfd]);
        packed[1] = vec![1, 0x28, 0xb5, 0x2f, 0xfd];
        packed[1].extend_from_slice(&ZSTD_OF_TIDES);
        let read = read_back(&of_frames(folder.path(), &packed)).unwrap();
        assert_eq!(read, Some((POSITION, b"tide".repeat(64))));
    }

    /// `zstd -1 --check` of "tide" 64 times, of zstd 1.5, without its magic.
    const ZSTD_OF_TIDES: [u8; 20] = [
        0x04, 0x48, 0x5d, 0x00, 0x00, 0x20, 0x74, 0x69, 0x64, 0x65, 0x01, 0x00, 0xf9, 0x29, 0x47,
        0x04, 0x28, 0xd1, 0x35, 0x89,
    ];

    #[test]
    fn file_of_the_build_before_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let state = state();
        let (bytes, crc32) = (state.len() as u64, crc32fast::hash(&state));
        let head = |crc32| {
            envelope::encode(HEAD_SCHEMA, &Head::V1 { index: 7, term: 2, bytes, crc32 }).unwrap()
        };
        let mut frames = vec![head(crc32)];
        frames.extend(state.chunks(PART_BYTES).map(<[u8]>::to_vec));
        let read = |frames: &[Vec<u8>]| read_back(&of_frames(folder.path(), frames)).unwrap();
        assert_eq!(read(&frames), Some((POSITION, state.clone())));
        assert_eq!(read(&frames[..2]), None, "cut");
        frames[0] = head(crc32 ^ 1);
        assert_eq!(read(&frames), None);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let text = b"/brokers/ids/1 ".repeat(20);
        for packing in [Packing::None, Packing::Zstd] {
            let path = written(folder.path(), &text, packing);
            let bytes = std::fs::read(&path).unwrap();
            let is_refused = |bytes: &[u8]| {
                std::fs::write(&path, bytes).unwrap();
                !matches!(read_back(&path), Ok(Some(_)))
            };
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << (at % 8);
                assert!(is_refused(&bad), "byte {at}");
                assert!(is_refused(&bytes[..at]), "cut at {at}");
            }
        }
    }

    #[test]
    fn frames_out_of_place_are_refused_with_sound_checksums_too() {
        let folder = tempfile::tempdir().unwrap();
        let state = [vec![1; PART_BYTES], vec![2; PART_BYTES]].concat();
        let frames = frames(&written(folder.path(), &state, Packing::Zstd));
        let [head, one, two, end] = <[Vec<u8>; 4]>::try_from(frames).unwrap();
        let is_whole = |order: &[&Vec<u8>]| {
            let frames: Vec<Vec<u8>> = order.iter().map(|frame| (*frame).clone()).collect();
            matches!(read_back(&of_frames(folder.path(), &frames)), Ok(Some(_)))
        };
        assert!(is_whole(&[&head, &one, &two, &end]));
        let (empty, strange) = (Vec::new(), vec![3, 1]);
        for order in [
            &[&head, &two, &one, &end][..],
            &[&head, &one, &end],
            &[&head, &one, &two],
            &[&head],
            &[],
            &[&one, &two, &end],
            &[&head, &one, &two, &end, &end],
            &[&head, &one, &two, &end, &one],
            &[&head, &head, &one, &two, &end],
            &[&head, &one, &two, &empty, &end],
            &[&head, &one, &two, &strange, &end],
        ] {
            assert!(!is_whole(order));
        }
    }

    #[test]
    fn part_that_unpacks_to_more_than_a_part_is_refused() {
        let bomb = compress_to_vec(&vec![0; PART_BYTES + 1][..], CompressionLevel::Fastest);
        assert!(unpacked(&bomb).unwrap_err().contains("more than"), "{} bytes", bomb.len());
        let most = compress_to_vec(&vec![0; PART_BYTES][..], CompressionLevel::Fastest);
        assert_eq!(unpacked(&most), Ok(vec![0; PART_BYTES]));
        // A window of a terabyte, declared.
        let forged = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf0, 0x01, 0x00, 0x00];
        assert!(unpacked(&forged).is_err());
        for cut in 0..most.len() {
            assert_ne!(unpacked(&most[..cut]), Ok(vec![0; PART_BYTES]), "cut at {cut}");
        }
    }

    #[test]
    fn file_of_another_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), b"tide", Packing::None);
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        assert!(disk.open(&path, OpenMode::Read).is_ok());
        let read = read(&*disk, &path, b"you");
        assert!(matches!(read, Err(RecordFileError::Identity { .. })));
    }
}
