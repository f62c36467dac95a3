//! Walking over the batches of a `.log` file: by headers only, or checking every CRC.
//!
//! Called by: `view` (cold look-ups), `recovery`, `truncate`. Calls: `batch`, the disk.
//! Invariant: memory is bounded by the buffer, whatever a header declares. Knows no index.

use std::io;

use client_protocol::records::BATCH_HEADER_BYTES;
use coordinator_disk::File;

use crate::batch::{BatchMeta, CRC_COVERED_FROM};

/// Bytes read at a time when only headers are wanted.
const HEADER_BUFFER_BYTES: usize = 16 << 10;
/// Bytes read at a time when CRCs are checked.
const CHECK_BUFFER_BYTES: usize = 256 << 10;

/// One batch met on a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it starts in the file.
    pub position: u64,
    /// Its header.
    pub meta: BatchMeta,
}

impl Found {
    /// Where it ends in the file (exclusive).
    pub fn end_position(&self) -> u64 {
        self.position.saturating_add(u64::from(self.meta.size_bytes))
    }
}

/// A walk from header to header over `[position, end)` of a file.
pub struct HeaderWalk<'a> {
    file: &'a dyn File,
    position: u64,
    end: u64,
    buffer: Vec<u8>,
    /// Position in the file of the buffer's first byte, and how many of its bytes are valid.
    buffered_from: u64,
    buffered: usize,
}

impl<'a> HeaderWalk<'a> {
    /// Begins at `position`, which must be a batch boundary.
    pub fn new(file: &'a dyn File, position: u64, end: u64) -> Self {
        Self { file, position, end, buffer: Vec::new(), buffered_from: 0, buffered: 0 }
    }

    /// The next batch that lies whole before the end; `None` at the end and at bytes that are no
    /// batch header.
    ///
    /// # Errors
    /// Those of reading.
    pub fn next_batch(&mut self) -> io::Result<Option<Found>> {
        let header_end = self.position.saturating_add(BATCH_HEADER_BYTES as u64);
        if header_end > self.end {
            return Ok(None);
        }
        let buffered_to = self.buffered_from.saturating_add(self.buffered as u64);
        if self.position < self.buffered_from || header_end > buffered_to {
            self.fill()?;
        }
        let skip = usize::try_from(self.position.saturating_sub(self.buffered_from)).ok();
        let header = skip.and_then(|skip| self.buffer.get(skip..self.buffered));
        let Some(meta) = header.and_then(BatchMeta::parse) else { return Ok(None) };
        let found = Found { position: self.position, meta };
        if found.end_position() > self.end {
            return Ok(None);
        }
        self.position = found.end_position();
        Ok(Some(found))
    }

    /// Whether the walk came to the end exactly: what stopped it was no damage.
    pub fn is_at_end(&self) -> bool {
        self.position == self.end
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.resize(HEADER_BUFFER_BYTES, 0);
        let left = self.end.saturating_sub(self.position);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(HEADER_BUFFER_BYTES);
        self.buffered_from = self.position;
        self.buffered = 0;
        if let Some(buffer) = self.buffer.get_mut(..wanted) {
            self.buffered = self.file.read_at(self.position, buffer)?;
        }
        Ok(())
    }
}

/// A walk that reads every byte and checks every batch's CRC-32C.
pub struct CheckedWalk<'a> {
    headers: HeaderWalk<'a>,
    buffer: Vec<u8>,
}

/// What a checked walk met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A whole batch whose CRC is right.
    Batch(Found),
    /// The end of the file, exactly behind the last batch.
    End,
    /// Bytes that are no whole, undamaged batch.
    Fault {
        /// Where they begin.
        position: u64,
    },
}

impl<'a> CheckedWalk<'a> {
    /// Begins at `position`, which must be a batch boundary.
    pub fn new(file: &'a dyn File, position: u64, end: u64) -> Self {
        Self { headers: HeaderWalk::new(file, position, end), buffer: vec![0; CHECK_BUFFER_BYTES] }
    }

    /// The next batch, the end, or what is wrong.
    ///
    /// # Errors
    /// Those of reading.
    pub fn next_step(&mut self) -> io::Result<Step> {
        let position = self.headers.position;
        if position >= self.headers.end {
            return Ok(Step::End);
        }
        match self.headers.next_batch()? {
            Some(found) if self.crc_is_right(&found)? => Ok(Step::Batch(found)),
            Some(_) | None => Ok(Step::Fault { position }),
        }
    }

    fn crc_is_right(&mut self, found: &Found) -> io::Result<bool> {
        let mut position = found.position.saturating_add(CRC_COVERED_FROM as u64);
        let end = found.end_position();
        let mut crc = 0;
        while position < end {
            let left = usize::try_from(end.saturating_sub(position)).unwrap_or(usize::MAX);
            let wanted = left.min(self.buffer.len());
            let Some(buffer) = self.buffer.get_mut(..wanted) else { return Ok(false) };
            self.headers.file.read_exact_at(position, buffer)?;
            crc = crc32c::crc32c_append(crc, buffer);
            position = position.saturating_add(wanted as u64);
        }
        Ok(crc == found.meta.crc)
    }
}
