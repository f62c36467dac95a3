//! Numbers and buffers off a file, in the order in which ZooKeeper wrote them.
//!
//! Called by: `snapshot`, `log`. Calls: the disk's file.
//! Invariant: what is read is bounded by what is there and by [`FIELD_BYTES_MAX`]; the checksum covers exactly the
//! bytes that were handed out.
//! Does not know: records.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use coordinator_disk::{Disk, File, OpenMode};

use super::ImportError;

/// A znode's data or a whole transaction; ZooKeeper's own limit is 1 MiB, which its users can raise.
pub const FIELD_BYTES_MAX: usize = 32 << 20;
/// Bytes that are asked of the disk at once.
const READ_BYTES: usize = 256 << 10;

/// A file, from its beginning.
pub struct FileReader {
    file: Arc<dyn File>,
    position: u64,
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(self.position, buffer)?;
        self.position += count as u64;
        Ok(count)
    }
}

/// Opens a file for reading in large pieces.
pub fn open(disk: &dyn Disk, path: &Path) -> Result<io::BufReader<FileReader>, ImportError> {
    let file = disk.open(path, OpenMode::Read).map_err(|error| ImportError::io(path, error))?;
    Ok(io::BufReader::with_capacity(READ_BYTES, FileReader { file, position: 0 }))
}

/// Bytes with a place and a checksum.
pub struct Stream<'a> {
    bytes: Box<dyn Read + 'a>,
    path: PathBuf,
    position: u64,
    checksum: adler2::Adler32,
}

impl<'a> Stream<'a> {
    /// Reads `bytes`, which come from the file `path`.
    pub fn new(path: &Path, bytes: Box<dyn Read + 'a>) -> Stream<'a> {
        let checksum = adler2::Adler32::new();
        Stream { bytes, path: path.to_owned(), position: 0, checksum }
    }

    /// Bytes handed out.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Adler-32 of all bytes handed out.
    pub fn checksum(&self) -> u32 {
        self.checksum.checksum()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says that what was read last is wrong.
    pub fn damaged(&self, reason: impl Into<String>) -> ImportError {
        let path = self.path.clone();
        ImportError::Damaged { path, position: self.position, reason: reason.into() }
    }

    /// The next byte; none at the end.
    pub fn byte(&mut self) -> Result<Option<u8>, ImportError> {
        let bytes = self.up_to(1)?;
        Ok(bytes.first().copied())
    }

    /// A big-endian number of 4 bytes.
    pub fn int(&mut self) -> Result<i32, ImportError> {
        self.array().map(i32::from_be_bytes)
    }

    /// A big-endian number of 8 bytes.
    pub fn long(&mut self) -> Result<i64, ImportError> {
        self.array().map(i64::from_be_bytes)
    }

    /// A buffer with its length before it; none for null.
    pub fn buffer(&mut self) -> Result<Option<Bytes>, ImportError> {
        match self.int()? {
            -1 => Ok(None),
            length => self.bytes(length).map(Some),
        }
    }

    /// `length` bytes.
    pub fn bytes(&mut self, length: i32) -> Result<Bytes, ImportError> {
        let wanted = usize::try_from(length).ok().filter(|wanted| *wanted <= FIELD_BYTES_MAX);
        let wanted = wanted.ok_or_else(|| self.damaged(format!("a field of {length} bytes")))?;
        let bytes = self.up_to(wanted)?;
        if bytes.len() < wanted {
            return Err(self.damaged("the file ends within a field"));
        }
        Ok(Bytes::from(bytes))
    }

    /// Text with its length before it.
    pub fn text(&mut self) -> Result<String, ImportError> {
        let bytes = self.buffer()?.unwrap_or_default();
        String::from_utf8(bytes.into()).map_err(|_| self.damaged("text that is not UTF-8"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ImportError> {
        let bytes = self.up_to(N)?;
        bytes.try_into().map_err(|_| self.damaged("the file ends within a field"))
    }

    /// As many bytes, fewer at the end. Memory grows with what is there, not with what a length says.
    fn up_to(&mut self, wanted: usize) -> Result<Vec<u8>, ImportError> {
        let mut bytes = Vec::with_capacity(wanted.min(READ_BYTES));
        let outcome = (&mut self.bytes).take(wanted as u64).read_to_end(&mut bytes);
        self.position += bytes.len() as u64;
        self.checksum.write_slice(&bytes);
        match outcome {
            Ok(_) => Ok(bytes),
            Err(error) if is_of_the_bytes(&error) => Err(self.damaged(error.to_string())),
            Err(error) => Err(ImportError::io(&self.path, error)),
        }
    }
}

/// Whether unpacking failed, as opposed to the disk.
fn is_of_the_bytes(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof | Other)
}
