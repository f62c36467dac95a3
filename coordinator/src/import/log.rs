//! ZooKeeper's transaction logs.
//!
//! Called by: `import`. Calls: `stream`, `transaction`.
//! Invariant: a transaction is handed out only when it is whole. One that is not ends the log if nothing whole comes
//! behind it: ZooKeeper died while it wrote that, and began another log when it came back. Otherwise it is damage.
//! Does not know: what transactions change.
//!
//! ```text
//! | "ZKLG" | version: 4 | database: 8 |   then   | Adler-32: 8 | length: 4 | record | 'B' |   ...   zeros
//! ```

use std::path::Path;
use std::sync::Arc;

use coordinator_disk::{Disk, File, OpenMode};

use super::stream::{self, FIELD_BYTES_MAX, Stream};
use super::transaction::Transaction;
use super::{ImportError, damaged};

const MAGIC: i32 = i32::from_be_bytes(*b"ZKLG");
const VERSION: i32 = 2;
const END_OF_RECORD: u8 = b'B';
/// What is searched behind a record that cannot be read; ZooKeeper's logs have 64 MiB unless it is told otherwise.
const REST_BYTES_MAX: usize = 1 << 30;

/// The transactions of one log, in order.
pub struct Transactions<'a> {
    stream: Stream<'a>,
    file: Arc<dyn File>,
    file_bytes: u64,
    torn_bytes: u64,
    /// At the end, or behind damage.
    done: bool,
}

impl<'a> Transactions<'a> {
    /// Checks the file's head. A file that is empty, or too short for one, is a log that was just begun.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Transactions<'a>, ImportError> {
        let io = |error| ImportError::io(path, error);
        let file = disk.open(path, OpenMode::Read).map_err(io)?;
        let file_bytes = file.len().map_err(io)?;
        let mut stream = Stream::new(path, Box::new(stream::open(disk, path)?));
        let mut done = file_bytes < 16;
        if !done {
            let magic = stream.int()?;
            if magic == 0 {
                // Space was reserved, and nothing written.
                done = true;
            } else if magic != MAGIC || stream.int()? != VERSION {
                return Err(stream.damaged("not a transaction log of ZooKeeper's"));
            } else {
                stream.long()?;
            }
        }
        Ok(Transactions { stream, file, file_bytes, torn_bytes: 0, done })
    }

    /// The next one; none at the end.
    pub fn next(&mut self) -> Result<Option<Transaction>, ImportError> {
        if self.done {
            return Ok(None);
        }
        let begin = self.stream.position();
        match self.read() {
            Ok(None) => {
                self.done = true;
                Ok(None)
            }
            Err(damage @ ImportError::Damaged { .. }) => {
                let Some(rest) = self.rest(begin)? else { return Err(damage) };
                if (1..rest.len()).any(|at| is_whole(&rest[at..])) {
                    return Err(damage);
                }
                self.done = true;
                let written = rest.iter().rposition(|byte| *byte != 0);
                self.torn_bytes = written.map_or(0, |last| last as u64 + 1);
                Ok(None)
            }
            outcome => outcome,
        }
    }

    /// Bytes behind the last whole transaction that are no free space.
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    /// Everything from byte `begin` on; none of a file that is too large for that.
    fn rest(&self, begin: u64) -> Result<Option<Vec<u8>>, ImportError> {
        let length = usize::try_from(self.file_bytes.saturating_sub(begin)).ok();
        let Some(length) = length.filter(|length| *length <= REST_BYTES_MAX) else {
            return Ok(None);
        };
        let mut rest = vec![0; length];
        let read = self.file.read_exact_at(begin, &mut rest);
        read.map_err(|error| ImportError::io(self.stream.path(), error))?;
        Ok(Some(rest))
    }

    fn read(&mut self) -> Result<Option<Transaction>, ImportError> {
        let begin = self.stream.position();
        if begin + 12 > self.file_bytes {
            // ZooKeeper reserves space in pieces that end anywhere.
            return Ok(None);
        }
        let checksum = self.stream.long()?;
        let length = self.stream.int()?;
        if length == 0 {
            return Ok(None);
        }
        let record = self.stream.bytes(length)?;
        if i64::from(adler2::adler32_slice(&record)) != checksum {
            return Err(self.stream.damaged("a transaction's checksum does not fit"));
        }
        if self.stream.byte()? != Some(END_OF_RECORD) {
            return Err(self.stream.damaged("a transaction without its end"));
        }
        let transaction = Transaction::decode(record);
        transaction.map(Some).map_err(|error| damaged(self.stream.path(), begin, &error))
    }
}

/// Whether a whole transaction begins here. Most places are told by the four bytes that no checksum fills.
fn is_whole(bytes: &[u8]) -> bool {
    let Some((checksum, rest)) = bytes.split_first_chunk::<8>() else { return false };
    let Some((length, rest)) = rest.split_first_chunk::<4>() else { return false };
    let (checksum, length) = (i64::from_be_bytes(*checksum), i32::from_be_bytes(*length));
    let length =
        usize::try_from(length).ok().filter(|length| (1..=FIELD_BYTES_MAX).contains(length));
    let is_sum = u32::try_from(checksum).is_ok();
    let Some(length) = length.filter(|_| is_sum) else { return false };
    rest.get(length) == Some(&END_OF_RECORD)
        && rest
            .get(..length)
            .is_some_and(|record| i64::from(adler2::adler32_slice(record)) == checksum)
}
