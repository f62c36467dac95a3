//! Raw bytes to a server and what comes back: for input that no client library would send.
//!
//! Called by: the bad-input tests. Builds Kafka frames and record batches by hand, so that nothing
//! of the code under test judges itself.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A hang guard: a server that neither answers nor closes for this long hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// What a server did with the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It closed the connection without a further byte.
    Closed,
    /// It answered with one frame, given without its length.
    Frame(Vec<u8>),
}

/// A connection for raw bytes.
pub struct Wire {
    stream: TcpStream,
}

impl Wire {
    /// Connects.
    ///
    /// # Errors
    /// When the server does not accept.
    pub fn connect(address: &str) -> Result<Wire> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(Wire { stream })
    }

    /// Sends bytes as they are. A server that closed meanwhile is no error: its answer tells.
    pub fn send(&mut self, bytes: &[u8]) {
        // A refused write is the server's right; `answer` sees how it ended.
        let _ = self.stream.write_all(bytes);
    }

    /// Says that no more bytes will come.
    pub fn finish(&mut self) {
        // Fails only when the server closed first, which `answer` sees.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads one frame, or sees the connection closed.
    ///
    /// # Errors
    /// When the server hangs, or ends in the middle of a frame.
    pub fn answer(&mut self) -> Result<Answer> {
        let mut length = [0; 4];
        if !self.read(&mut length)? {
            return Ok(Answer::Closed);
        }
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length))?];
        if !self.read(&mut frame)? {
            bail!("closed in the middle of a frame");
        }
        Ok(Answer::Frame(frame))
    }

    fn read(&mut self, into: &mut [u8]) -> Result<bool> {
        match self.stream.read_exact(into) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(error).context("the server neither answered nor closed"),
        }
    }
}

/// Sends bytes on a connection of their own, then end-of-file, and gives the answer.
///
/// # Errors
/// When the server cannot be reached or hangs.
pub fn send_alone(address: &str, bytes: &[u8]) -> Result<Answer> {
    let mut wire = Wire::connect(address)?;
    wire.send(bytes);
    wire.answer()
}

/// Bytes in network order.
#[derive(Clone, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// Appends one byte.
    pub fn i8(mut self, value: i8) -> Bytes {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// Appends two bytes.
    pub fn i16(mut self, value: i16) -> Bytes {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// Appends four bytes.
    pub fn i32(mut self, value: i32) -> Bytes {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// Appends eight bytes.
    pub fn i64(mut self, value: i64) -> Bytes {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// Appends bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Bytes {
        self.0.extend(bytes);
        self
    }

    /// Appends a string with its length in two bytes.
    pub fn string(self, text: &str) -> Bytes {
        self.i16(text.len() as i16).raw(text.as_bytes())
    }

    /// Appends a buffer with its length in four bytes.
    pub fn buffer(self, bytes: &[u8]) -> Bytes {
        self.i32(bytes.len() as i32).raw(bytes)
    }

    /// The bytes with their length in front.
    pub fn framed(self) -> Vec<u8> {
        Bytes::default().buffer(&self.0).0
    }
}

/// A Kafka request header, version 1 (2 where `flexible`).
pub fn header(api_key: i16, api_version: i16, flexible: bool) -> Bytes {
    let header = Bytes::default().i16(api_key).i16(api_version).i32(77).string("wire");
    if flexible { header.i8(0) } else { header }
}

/// A record batch of version 2 whose every field a test may spoil.
#[derive(Clone, Debug)]
pub struct Batch {
    /// First offset as the client claims it.
    pub base_offset: i64,
    /// Added to the true length field.
    pub length_error: i32,
    /// Format version, 2.
    pub magic: i8,
    /// Flipped into the true CRC.
    pub crc_error: u32,
    /// Compression, timestamp type, transactional and control bits.
    pub attributes: i16,
    /// Offset of the last record, from the first.
    pub last_offset_delta: i32,
    /// Producer id, or -1.
    pub producer_id: i64,
    /// Producer epoch, or -1.
    pub producer_epoch: i16,
    /// First sequence, or -1.
    pub base_sequence: i32,
    /// Number of records that the header claims.
    pub record_count: i32,
    /// The records' bytes.
    pub records: Vec<u8>,
    /// Bytes after the batch.
    pub trailing: Vec<u8>,
}

impl Default for Batch {
    /// One record with value `x`: nothing wrong with it.
    fn default() -> Batch {
        Batch {
            base_offset: 0,
            length_error: 0,
            magic: 2,
            crc_error: 0,
            attributes: 0,
            last_offset_delta: 0,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: 1,
            // Length 7 (zigzag 14), attributes, time 0, offset 0, null key, one-byte value, no headers.
            records: vec![14, 0, 0, 0, 1, 2, b'x', 0],
            trailing: Vec::new(),
        }
    }
}

impl Batch {
    /// The batch as it goes over the wire.
    pub fn encode(&self) -> Vec<u8> {
        let covered = Bytes::default()
            .i16(self.attributes)
            .i32(self.last_offset_delta)
            .i64(1_700_000_000_000)
            .i64(1_700_000_000_000)
            .i64(self.producer_id)
            .i16(self.producer_epoch)
            .i32(self.base_sequence)
            .i32(self.record_count)
            .raw(&self.records)
            .0;
        let crc = crc32c::crc32c(&covered) ^ self.crc_error;
        let length = 9 + covered.len() as i32 + self.length_error;
        Bytes::default()
            .i64(self.base_offset)
            .i32(length)
            .i32(-1)
            .i8(self.magic)
            .raw(&crc.to_be_bytes())
            .raw(&covered)
            .raw(&self.trailing)
            .0
    }
}

/// A Produce request of version 7 for partition 0 of `topic`, acks=all.
pub fn produce(topic: &str, batch: &[u8]) -> Vec<u8> {
    header(0, 7, false)
        .i16(-1)
        .i16(-1)
        .i32(30_000)
        .i32(1)
        .string(topic)
        .i32(1)
        .i32(0)
        .buffer(batch)
        .framed()
}

/// The error code in the answer to `produce`.
///
/// # Errors
/// When the answer is too short to hold one.
pub fn produce_error(frame: &[u8], topic: &str) -> Result<i16> {
    let at = 4 + 4 + 2 + topic.len() + 4 + 4;
    let bytes = frame.get(at..at + 2).with_context(|| format!("answer {frame:?} is too short"))?;
    Ok(i16::from_be_bytes(bytes.try_into()?))
}
