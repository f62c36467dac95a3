//! Writes Kafka's primitives into one growing buffer, leaving splice points for records.
//!
//! *Called by* `field`, `declare` and `header`. *Calls* nothing.
//!
//! Invariant: splices stand in ascending `position`, and no splice lies inside a tagged field.

use bytes::{BufMut, Bytes, BytesMut};

use crate::reader::LengthPrefix;

/// Why a message cannot be written at a version. Always a fault of the caller, never of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Null where the version does not allow it.
    #[error("null where the version requires a value")]
    Null,
    /// A length that its prefix cannot hold.
    #[error("{0} bytes or elements are too many for the length prefix")]
    TooLong(usize),
    /// Records of another frame ([`crate::Records::InFrame`]): make them inline or spliced first.
    #[error("records lie in another frame")]
    RecordsElsewhere,
    /// This crate does not know the message at that version.
    #[error("api {key} has no version {version} here")]
    Version {
        /// The API's key.
        key: i16,
        /// The version asked for.
        version: i16,
    },
}

/// A gap in the encoded bytes that the sender fills with records of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Splice {
    /// The records go before the byte at this position of the encoded bytes.
    pub position: usize,
    /// How many bytes of records go there; the frame's length already counts them.
    pub length: usize,
}

/// Collects the bytes and splice points of one frame.
#[derive(Debug, Default)]
pub struct Writer {
    buffer: BytesMut,
    splices: Vec<Splice>,
    spliced_bytes: usize,
}

impl Writer {
    /// Starts an empty frame.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes so far, splices included.
    #[must_use]
    pub fn length(&self) -> usize {
        self.buffer.len().saturating_add(self.spliced_bytes)
    }

    pub(crate) fn into_parts(self) -> (BytesMut, Vec<Splice>) {
        (self.buffer, self.splices)
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.buffer.put_slice(bytes);
    }

    pub(crate) fn put_inline(&mut self, bytes: &Bytes) {
        self.buffer.put_slice(bytes);
    }

    pub(crate) fn splice(&mut self, length: usize) {
        if length > 0 {
            self.splices.push(Splice { position: self.buffer.len(), length });
            self.spliced_bytes = self.spliced_bytes.saturating_add(length);
        }
    }

    pub(crate) fn unsigned_varint(&mut self, mut value: u32) {
        while value > 0x7f {
            let low = u8::try_from(value & 0x7f).unwrap_or_default();
            self.buffer.put_u8(low | 0x80);
            value >>= 7;
        }
        self.buffer.put_u8(u8::try_from(value).unwrap_or_default());
    }

    /// Writes a length or count; `None` is null.
    pub(crate) fn length_prefix(
        &mut self,
        length: Option<usize>,
        prefix: LengthPrefix,
    ) -> Result<(), EncodeError> {
        let Some(length) = length else {
            match prefix {
                LengthPrefix::Compact => self.unsigned_varint(0),
                LengthPrefix::Short => self.put(&(-1i16).to_be_bytes()),
                LengthPrefix::Long => self.put(&(-1i32).to_be_bytes()),
            }
            return Ok(());
        };
        let too_long = EncodeError::TooLong(length);
        match prefix {
            LengthPrefix::Compact => {
                // Kafka reads the length back as an i32, so its range is the limit here too.
                let length = i32::try_from(length).map_err(|_| too_long)?;
                self.unsigned_varint(length.unsigned_abs().saturating_add(1));
            }
            LengthPrefix::Short => {
                self.put(&i16::try_from(length).map_err(|_| too_long)?.to_be_bytes());
            }
            LengthPrefix::Long => {
                self.put(&i32::try_from(length).map_err(|_| too_long)?.to_be_bytes());
            }
        }
        Ok(())
    }

    /// Writes one tagged field: tag, size, then what `value` writes.
    pub(crate) fn tagged_field(
        &mut self,
        tag: u32,
        value: impl FnOnce(&mut Self) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let mut inner = Self::new();
        value(&mut inner)?;
        let length = inner.buffer.len();
        self.unsigned_varint(tag);
        self.unsigned_varint(u32::try_from(length).map_err(|_| EncodeError::TooLong(length))?);
        self.put(&inner.buffer);
        Ok(())
    }
}
