//! The header of a batch, iteration over batches, and the fields a broker writes in place.
//!
//! *Called by* the broker's log, followers and consumers. *Calls* `record`.
//!
//! Invariant: a [`Batch`] is whole (its bytes are exactly what its length says) and of magic 2. Its checksum was
//! not computed unless the caller did so.

use super::record::RecordsIter;
use super::validate::BatchError;
use crate::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// Bytes before the records.
pub const BATCH_HEADER_BYTES: usize = 61;

/// Base offset and length: what must be read to know how long a batch is.
pub const BATCH_PREFIX_BYTES: usize = 12;

const LENGTH_AT: usize = 8;
const LEADER_EPOCH_AT: usize = 12;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const LAST_OFFSET_DELTA_AT: usize = 23;
const BASE_TIMESTAMP_AT: usize = 27;
const MAX_TIMESTAMP_AT: usize = 35;
const PRODUCER_ID_AT: usize = 43;
const PRODUCER_EPOCH_AT: usize = 51;
const BASE_SEQUENCE_AT: usize = 53;
const COUNT_AT: usize = 57;

const COMPRESSION_BITS: i16 = 0b111;
pub(super) const LOG_APPEND_TIME_BIT: i16 = 1 << 3;
pub(super) const TRANSACTIONAL_BIT: i16 = 1 << 4;
const CONTROL_BIT: i16 = 1 << 5;
pub(super) const DELETE_HORIZON_BIT: i16 = 1 << 6;

/// The only layout of records that is spoken here.
pub(super) const MAGIC: i8 = 2;

/// How the records after the header are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Snappy; Java wraps it in frames of its own.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// Its number in the attributes.
    #[must_use]
    pub const fn code(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The compression of a number in the attributes; `None` for 5 to 7.
    #[must_use]
    pub const fn from_code(code: i16) -> Option<Self> {
        match code {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// The 61 bytes before the records, as they stand there. Nothing is checked but magic and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The offset of the first record (before compaction); what a client sends there means nothing.
    pub base_offset: Offset,
    /// All bytes of the batch, the 12 before the length's reach included; at least [`BATCH_HEADER_BYTES`].
    pub size: usize,
    /// Written by the leader that appended the batch; `None` as clients send it.
    pub leader_epoch: Option<LeaderEpoch>,
    /// CRC-32C of the bytes from the attributes on.
    pub crc: u32,
    /// Compression, timestamp type and flags; see the methods.
    pub attributes: i16,
    /// Last offset minus base offset.
    pub last_offset_delta: i32,
    /// Milliseconds since 1970 UTC, or the delete horizon.
    pub base_timestamp: i64,
    /// The largest timestamp of the records, or when the batch was appended.
    pub max_timestamp: i64,
    /// The idempotent producer.
    pub producer_id: Option<ProducerId>,
    /// Its epoch.
    pub producer_epoch: Option<ProducerEpoch>,
    /// The sequence number of the first record; -1 without a producer id.
    pub base_sequence: i32,
    /// How many records there are (after compaction).
    pub record_count: i32,
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

fn put_at<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut::<N>()? = value;
    Some(())
}

impl BatchHeader {
    /// Reads the header that `bytes` begin with; they need not hold the whole batch.
    ///
    /// # Errors
    /// [`BatchError::Truncated`] for fewer than 61 bytes, [`BatchError::Length`], [`BatchError::Magic`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BatchError> {
        Self::read(bytes)
            .ok_or(BatchError::Truncated { needed: BATCH_HEADER_BYTES, available: bytes.len() })?
    }

    fn read(bytes: &[u8]) -> Option<Result<Self, BatchError>> {
        let bytes = bytes.first_chunk::<BATCH_HEADER_BYTES>()?;
        let magic = i8::from_be_bytes(bytes_at(bytes, MAGIC_AT)?);
        if magic != MAGIC {
            return Some(Err(BatchError::Magic(magic)));
        }
        let size = match Self::size_of_next(bytes) {
            Ok(size) => size?,
            Err(error) => return Some(Err(error)),
        };
        let some = |value: i64| (value != -1).then_some(value);
        let leader_epoch = i32::from_be_bytes(bytes_at(bytes, LEADER_EPOCH_AT)?);
        let producer_epoch = i16::from_be_bytes(bytes_at(bytes, PRODUCER_EPOCH_AT)?);
        Some(Ok(Self {
            base_offset: Offset::new(i64::from_be_bytes(bytes_at(bytes, 0)?)),
            size,
            leader_epoch: (leader_epoch != -1).then_some(LeaderEpoch::new(leader_epoch)),
            crc: u32::from_be_bytes(bytes_at(bytes, CRC_AT)?),
            attributes: i16::from_be_bytes(bytes_at(bytes, ATTRIBUTES_AT)?),
            last_offset_delta: i32::from_be_bytes(bytes_at(bytes, LAST_OFFSET_DELTA_AT)?),
            base_timestamp: i64::from_be_bytes(bytes_at(bytes, BASE_TIMESTAMP_AT)?),
            max_timestamp: i64::from_be_bytes(bytes_at(bytes, MAX_TIMESTAMP_AT)?),
            producer_id: some(i64::from_be_bytes(bytes_at(bytes, PRODUCER_ID_AT)?))
                .map(ProducerId::new),
            producer_epoch: (producer_epoch != -1).then_some(ProducerEpoch::new(producer_epoch)),
            base_sequence: i32::from_be_bytes(bytes_at(bytes, BASE_SEQUENCE_AT)?),
            record_count: i32::from_be_bytes(bytes_at(bytes, COUNT_AT)?),
        }))
    }

    /// How many bytes the batch takes that `bytes` begin with; `Ok(None)` for fewer than
    /// [`BATCH_PREFIX_BYTES`].
    ///
    /// # Errors
    /// [`BatchError::Length`] when no batch can be of that length.
    pub fn size_of_next(bytes: &[u8]) -> Result<Option<usize>, BatchError> {
        let Some(length) = bytes_at(bytes, LENGTH_AT).map(i32::from_be_bytes) else {
            return Ok(None);
        };
        let size = usize::try_from(length).ok().and_then(|n| n.checked_add(BATCH_PREFIX_BYTES));
        size.filter(|size| *size >= BATCH_HEADER_BYTES).map(Some).ok_or(BatchError::Length(length))
    }

    /// The offset of the last record (inclusive, before compaction); `None` when the header is nonsense.
    #[must_use]
    pub fn last_offset(&self) -> Option<Offset> {
        self.base_offset.plus_count(u32::try_from(self.last_offset_delta).ok()?)
    }

    /// The offset after the last record (exclusive, before compaction); `None` when the header is nonsense.
    #[must_use]
    pub fn end_offset(&self) -> Option<Offset> {
        self.last_offset()?.next()
    }

    /// The sequence number of the last record; sequences wrap from `i32::MAX` to 0. -1 without a producer id.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return self.base_sequence;
        }
        let sum =
            self.base_sequence.unsigned_abs().wrapping_add(self.last_offset_delta.unsigned_abs());
        i32::try_from(sum & i32::MAX.unsigned_abs()).unwrap_or_default()
    }

    /// How the records are packed; `None` when the number is unknown.
    #[must_use]
    pub const fn compression(&self) -> Option<Compression> {
        Compression::from_code(self.attributes & COMPRESSION_BITS)
    }

    /// All records have the time of the append, which is `max_timestamp`.
    #[must_use]
    pub const fn has_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME_BIT != 0
    }

    /// Belongs to a transaction.
    #[must_use]
    pub const fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Holds a marker instead of records; only brokers write it.
    #[must_use]
    pub const fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// `base_timestamp` says from when on the cleaner may drop tombstones.
    #[must_use]
    pub const fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON_BIT != 0
    }
}

/// One whole batch.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Its header.
    pub header: BatchHeader,
    /// All its bytes, header included.
    pub bytes: &'a [u8],
}

impl<'a> Batch<'a> {
    /// The batch that `bytes` begin with; more may follow.
    ///
    /// # Errors
    /// As [`BatchHeader::decode`]; [`BatchError::Truncated`] when `bytes` do not hold all of it.
    pub fn first(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let header = BatchHeader::decode(bytes)?;
        let available = bytes.len();
        let bytes = bytes
            .get(..header.size)
            .ok_or(BatchError::Truncated { needed: header.size, available })?;
        Ok(Self { header, bytes })
    }

    /// Computes the checksum and compares.
    ///
    /// # Errors
    /// [`BatchError::Crc`].
    pub fn check_crc(&self) -> Result<(), BatchError> {
        let computed = crc32c::crc32c(self.bytes.get(ATTRIBUTES_AT..).unwrap_or_default());
        if computed == self.header.crc {
            Ok(())
        } else {
            Err(BatchError::Crc { stored: self.header.crc, computed })
        }
    }

    /// What follows the header: records, packed as [`BatchHeader::compression`] says.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(BATCH_HEADER_BYTES..).unwrap_or_default()
    }

    /// The records of a batch that is not compressed.
    ///
    /// # Errors
    /// [`BatchError::Compressed`]: unpack the payload first and use [`RecordsIter::new`].
    pub fn records(&self) -> Result<RecordsIter<'a>, BatchError> {
        match self.header.compression() {
            Some(Compression::None) => Ok(RecordsIter::new(&self.header, self.payload())),
            _ => Err(BatchError::Compressed),
        }
    }
}

/// Iterates over the whole batches at the front of some bytes.
///
/// Ends at the first batch that is not whole (a fetch may cut the last one short: see
/// [`Batches::remainder`]), and after the first error.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
    failed: bool,
}

impl<'a> Batches<'a> {
    /// Iterates over `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, failed: false }
    }

    /// The bytes not yet passed; after the end, those of a batch cut short.
    #[must_use]
    pub const fn remainder(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<Batch<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        match Batch::first(self.rest) {
            Ok(batch) => {
                self.rest = self.rest.get(batch.bytes.len()..).unwrap_or_default();
                Some(Ok(batch))
            }
            Err(BatchError::Truncated { .. }) => None,
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}

/// Writes the offset of its first record and the leader's epoch into the batch that `bytes` begin with. The
/// checksum stays valid.
///
/// # Errors
/// [`BatchError::Truncated`] for fewer than [`BATCH_HEADER_BYTES`] bytes; nothing is written then.
pub fn assign_offsets(
    bytes: &mut [u8],
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
) -> Result<(), BatchError> {
    let available = bytes.len();
    let needed = BATCH_HEADER_BYTES;
    let header = bytes
        .first_chunk_mut::<BATCH_HEADER_BYTES>()
        .ok_or(BatchError::Truncated { needed, available })?;
    put_at(header, 0, base_offset.get().to_be_bytes())
        .and_then(|()| put_at(header, LEADER_EPOCH_AT, leader_epoch.get().to_be_bytes()))
        .ok_or(BatchError::Truncated { needed, available })
}

/// Gives all records of the batch that `bytes` are the time of the append, and computes the checksum anew.
///
/// # Errors
/// As [`Batch::first`]; nothing is written then.
pub fn set_log_append_time(bytes: &mut [u8], timestamp_ms: i64) -> Result<(), BatchError> {
    let header = Batch::first(bytes)?.header;
    let attributes = header.attributes | LOG_APPEND_TIME_BIT;
    let available = bytes.len();
    let batch = bytes
        .get_mut(..header.size)
        .ok_or(BatchError::Truncated { needed: header.size, available })?;
    put_at(batch, ATTRIBUTES_AT, attributes.to_be_bytes())
        .and_then(|()| put_at(batch, MAX_TIMESTAMP_AT, timestamp_ms.to_be_bytes()))
        .and_then(|()| write_crc(batch))
        .ok_or(BatchError::Truncated { needed: header.size, available })
}

/// As [`write_crc`], where the records lie elsewhere.
pub(super) fn write_split_crc(header: &mut [u8; BATCH_HEADER_BYTES], records: &[u8]) -> Option<()> {
    let crc = crc32c::crc32c_append(crc32c::crc32c(header.get(ATTRIBUTES_AT..)?), records);
    put_at(header, CRC_AT, crc.to_be_bytes())
}

/// Computes the checksum of a whole batch and writes it.
pub(super) fn write_crc(batch: &mut [u8]) -> Option<()> {
    let crc = crc32c::crc32c(batch.get(ATTRIBUTES_AT..)?);
    put_at(batch, CRC_AT, crc.to_be_bytes())
}
