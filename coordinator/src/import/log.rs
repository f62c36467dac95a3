//! ZooKeeper's transaction logs.
//!
//! Called by: `import`. Calls: `stream`, `transaction`.
//! Invariant: a transaction is handed out only when it is whole. What cannot be read ends the last log, as it does for
//! ZooKeeper, which wrote it last; anywhere else it is an error.
//! Does not know: what transactions change.
//!
//! ```text
//! | "ZKLG" | version: 4 | database: 8 |   then   | Adler-32: 8 | length: 4 | record | 'B' |   ...   zeros
//! ```

use std::path::Path;

use coordinator_disk::Disk;

use super::stream::{self, Stream};
use super::transaction::Transaction;
use super::{ImportError, damaged};

const MAGIC: i32 = i32::from_be_bytes(*b"ZKLG");
const VERSION: i32 = 2;
const END_OF_RECORD: u8 = b'B';

/// The transactions of one log, in order.
pub struct Transactions<'a> {
    stream: Stream<'a>,
    file_bytes: u64,
    torn_bytes: u64,
    /// At the end, or behind damage.
    done: bool,
}

impl<'a> Transactions<'a> {
    /// Checks the file's head. A file that is empty, or too short for one, is a log that was just begun.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Transactions<'a>, ImportError> {
        let file = stream::open(disk, path)?;
        let file_bytes = length(disk, path)?;
        let mut stream = Stream::new(path, Box::new(file));
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
        Ok(Transactions { stream, file_bytes, torn_bytes: 0, done })
    }

    /// The next one; none at the end. In the last log damage is the end, too.
    pub fn next(&mut self, is_last: bool) -> Result<Option<Transaction>, ImportError> {
        if self.done {
            return Ok(None);
        }
        let begin = self.stream.position();
        match self.read() {
            Ok(None) => {
                self.done = true;
                Ok(None)
            }
            Err(ImportError::Damaged { .. }) if is_last => {
                self.done = true;
                self.torn_bytes = self.file_bytes.saturating_sub(begin);
                Ok(None)
            }
            outcome => outcome,
        }
    }

    /// Bytes behind the last whole transaction that are no free space.
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
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

fn length(disk: &dyn Disk, path: &Path) -> Result<u64, ImportError> {
    disk.open(path, coordinator_disk::OpenMode::Read)
        .and_then(|file| file.len())
        .map_err(|error| ImportError::io(path, error))
}
