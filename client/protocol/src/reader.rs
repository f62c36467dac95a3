//! Reads Kafka's primitives from one frame, and nothing beyond it.
//!
//! *Called by* `field`, `declare` and `header`. *Calls* nothing.
//!
//! Invariant: `position <= end <= frame.len()`; every read checks the bytes left first. Memory is bounded
//! twice: an array may not declare more elements than bytes are left, and all that a message decodes into is
//! charged to a budget, because a small element on the wire can be a large one in memory.

use crate::field::ByteRange;

/// What one frame may decode into, in bytes of memory, unless the caller says otherwise.
///
/// A Fetch request of 100,000 partitions takes about 8 MiB; growing arrays may hold twice the charged bytes.
pub const DECODED_BYTES_MAX: usize = 16 << 20;

/// Why a frame is not a message. All of them mean: close the connection, its bytes cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The frame ends inside a value.
    #[error("{needed} bytes needed at position {position}, {left} left")]
    Truncated {
        /// Bytes the value takes.
        needed: usize,
        /// Bytes left in the frame (or in the tagged field).
        left: usize,
        /// Where in the frame.
        position: usize,
    },
    /// A length below -1.
    #[error("negative length {0}")]
    NegativeLength(i32),
    /// Null where the version does not allow it.
    #[error("null at position {0} where a value is required")]
    Null(usize),
    /// A varint of more bytes, or more bits, than its type has.
    #[error("varint at position {0} is too long")]
    Varint(usize),
    /// A string that is not UTF-8.
    #[error("string at position {0} is not UTF-8")]
    Utf8(usize),
    /// An array that declares more elements than bytes are left.
    #[error("{count} elements declared, {left} bytes left")]
    Count {
        /// Declared elements.
        count: usize,
        /// Bytes left.
        left: usize,
    },
    /// The message would take more memory than the reader's budget.
    #[error("message decodes into more memory than its budget")]
    Budget,
    /// Tags of a section not in ascending order, or twice the same.
    #[error("tag {0} is out of order")]
    TagOrder(u32),
    /// A tagged field shorter or longer than it declared.
    #[error("tagged field {tag} leaves {left} of its bytes unread")]
    TagSize {
        /// Its tag.
        tag: u32,
        /// Unread bytes.
        left: usize,
    },
    /// Bytes after the end of the message.
    #[error("{0} bytes after the end of the message")]
    Trailing(usize),
    /// This crate does not know the message at that version.
    #[error("api {key} has no version {version} here")]
    Version {
        /// The API's key.
        key: i16,
        /// The version asked for.
        version: i16,
    },
}

/// A cursor over one frame (without its 4-byte length).
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    frame: &'a [u8],
    position: usize,
    end: usize,
    budget: usize,
}

impl<'a> Reader<'a> {
    /// Reads `frame` with a budget of [`DECODED_BYTES_MAX`]. Positions count from the frame's first byte.
    #[must_use]
    pub fn new(frame: &'a [u8]) -> Self {
        Self::with_budget(frame, DECODED_BYTES_MAX)
    }

    /// Reads `frame`; what it decodes into may take `budget` bytes (a client that reads a large cluster's
    /// metadata wants more than a broker allows a stranger).
    #[must_use]
    pub fn with_budget(frame: &'a [u8], budget: usize) -> Self {
        Self { frame, position: 0, end: frame.len(), budget }
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.end.saturating_sub(self.position)
    }

    /// How many bytes of the frame were read.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// Says whether the whole frame was read.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] when bytes are left.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.left() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing(left)),
        }
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let range = self.take_range(length)?;
        self.frame.get(range.start..range.end).ok_or(self.truncated(length))
    }

    /// The next `length` bytes, as their place in the frame.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn take_range(&mut self, length: usize) -> Result<ByteRange, DecodeError> {
        let start = self.position;
        let end = start.checked_add(length).filter(|end| *end <= self.end);
        let end = end.ok_or(self.truncated(length))?;
        self.position = end;
        Ok(ByteRange { start, end })
    }

    fn truncated(&self, needed: usize) -> DecodeError {
        DecodeError::Truncated { needed, left: self.left(), position: self.position }
    }

    pub(crate) fn take_array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let truncated = self.truncated(N);
        self.take(N)?.try_into().map_err(|_| truncated)
    }

    pub(crate) fn unsigned_varint(&mut self) -> Result<u32, DecodeError> {
        let start = self.position;
        let mut value = 0u32;
        for shift in [0u32, 7, 14, 21, 28] {
            let [byte] = self.take_array()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Varint(start))
    }

    /// A length or count; `None` is null. Compact ones are an unsigned varint of length + 1.
    pub(crate) fn length(&mut self, prefix: LengthPrefix) -> Result<Option<usize>, DecodeError> {
        let declared = match prefix {
            LengthPrefix::Compact => {
                let plus_one = self.unsigned_varint()?;
                return Ok(plus_one.checked_sub(1).and_then(|length| usize::try_from(length).ok()));
            }
            LengthPrefix::Short => i32::from(i16::from_be_bytes(self.take_array()?)),
            LengthPrefix::Long => i32::from_be_bytes(self.take_array()?),
        };
        match declared {
            -1 => Ok(None),
            declared => usize::try_from(declared)
                .map(Some)
                .map_err(|_| DecodeError::NegativeLength(declared)),
        }
    }

    /// Charges `bytes` of memory to the budget.
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.budget = self.budget.checked_sub(bytes).ok_or(DecodeError::Budget)?;
        Ok(())
    }

    /// A tagged section: `known` reads the fields it knows and says so; others are skipped.
    pub(crate) fn tagged_fields(
        &mut self,
        mut known: impl FnMut(&mut Self, u32) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        let count = self.unsigned_varint()?;
        let mut last = None;
        for _ in 0..count {
            let tag = self.unsigned_varint()?;
            if last.is_some_and(|last| tag <= last) {
                return Err(DecodeError::TagOrder(tag));
            }
            last = Some(tag);
            let size = usize::try_from(self.unsigned_varint()?).unwrap_or(usize::MAX);
            let after = self.position.checked_add(size).filter(|after| *after <= self.end);
            let after = after.ok_or(self.truncated(size))?;
            let outer_end = std::mem::replace(&mut self.end, after);
            let was_known = known(self, tag)?;
            let left = self.left();
            self.end = outer_end;
            self.position = after;
            if was_known && left > 0 {
                return Err(DecodeError::TagSize { tag, left });
            }
        }
        Ok(())
    }
}

/// How a length stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LengthPrefix {
    /// Unsigned varint of length + 1, 0 is null (flexible versions).
    Compact,
    /// i16, -1 is null (strings of older versions, and the client id in every header).
    Short,
    /// i32, -1 is null (arrays and bytes of older versions).
    Long,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsigned_varints_of_more_than_32_bits_are_refused() {
        let read = |bytes: &[u8]| Reader::new(bytes).unsigned_varint();
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(u32::MAX));
        assert_eq!(read(&[0xac, 0x02]), Ok(300));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x1f]), Err(DecodeError::Varint(0)));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Err(DecodeError::Varint(0)));
        assert!(matches!(read(&[0x80]), Err(DecodeError::Truncated { .. })));
    }

    #[test]
    fn tags_must_ascend_and_fill_their_size() {
        let read = |bytes: &[u8]| {
            Reader::new(bytes).tagged_fields(|reader, tag| match tag {
                1 => reader.take(1).map(|_| true),
                _ => Ok(false),
            })
        };
        assert_eq!(read(&[2, 0, 2, 9, 9, 1, 1, 9]), Ok(()));
        assert_eq!(read(&[2, 1, 1, 9, 1, 1, 9]), Err(DecodeError::TagOrder(1)));
        assert_eq!(read(&[1, 1, 2, 9, 9]), Err(DecodeError::TagSize { tag: 1, left: 1 }));
        assert!(matches!(read(&[1, 1, 0]), Err(DecodeError::Truncated { .. })));
        assert!(matches!(read(&[1, 5, 200, 1]), Err(DecodeError::Truncated { .. })));
        assert!(matches!(read(&[255, 255, 255, 255, 15]), Err(DecodeError::Truncated { .. })));
    }
}
