//! Jute, ZooKeeper's record encoding: big-endian numbers, length-prefixed strings, buffers and
//! vectors, records as their fields in order, with no tags and no padding.
//!
//! Called by: every record of this crate. Calls: nothing.
//! Invariant: reading is bounded by the bytes that are there. A count or a length is compared with
//! what is left before anything is allocated for it.
//! It does not know what a record means.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Why bytes are not the record that was expected. None of these can be helped by more bytes: a
/// frame is read whole before its records are.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The frame ended inside a field.
    #[error("{needed} bytes needed, {left} left")]
    Short {
        /// How many bytes the field takes at least.
        needed: usize,
        /// How many the frame still has.
        left: usize,
    },
    /// A length or count is below -1 (which is null).
    #[error("negative length {length}")]
    NegativeLength {
        /// What the wire said.
        length: i32,
    },
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    NotUtf8,
    /// More than a request may name.
    #[error("more than {limit} {what}")]
    TooMany {
        /// Of which things.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// A number stands for nothing that the field can hold.
    #[error("{value} is no {what}")]
    InvalidValue {
        /// What the field holds.
        what: &'static str,
        /// What the wire said.
        value: i32,
    },
}

/// A value that has a place in a record.
pub trait Record: Sized {
    /// The fewest bytes that any value takes: what bounds a vector of them.
    const BYTES_MIN: usize;

    /// Takes one value off the front of `reader`.
    ///
    /// # Errors
    /// Any [`DecodeError`]; the reader then stands somewhere inside the value and is of no use.
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError>;

    /// Puts this value at the end of `writer`.
    fn encode(&self, writer: &mut Writer);
}

/// The unread rest of a frame. Buffers taken from it share its memory.
#[derive(Clone, Debug)]
pub struct Reader {
    rest: Bytes,
}

impl Reader {
    /// A reader over one frame's content, its length prefix already gone.
    #[must_use]
    pub fn new(frame: Bytes) -> Self {
        Self { rest: frame }
    }

    /// How many bytes are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes, sharing the frame's memory.
    ///
    /// # Errors
    /// [`DecodeError::Short`] when there are fewer.
    pub fn take(&mut self, count: usize) -> Result<Bytes, DecodeError> {
        self.need(count)?;
        Ok(self.rest.split_to(count))
    }

    /// A length or count: `None` for null (-1).
    fn length(&mut self) -> Result<Option<usize>, DecodeError> {
        match i32::decode(self)? {
            -1 => Ok(None),
            length => usize::try_from(length)
                .map(Some)
                .map_err(|_| DecodeError::NegativeLength { length }),
        }
    }

    fn need(&self, needed: usize) -> Result<(), DecodeError> {
        let left = self.left();
        if needed > left { Err(DecodeError::Short { needed, left }) } else { Ok(()) }
    }
}

/// Where records are written, one after the other.
#[derive(Debug, Default)]
pub struct Writer {
    buffer: BytesMut,
}

impl Writer {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything written so far.
    #[must_use]
    pub fn finish(self) -> Bytes {
        self.buffer.freeze()
    }

    /// Everything written so far, still open for changes.
    pub(crate) fn into_buffer(self) -> BytesMut {
        self.buffer
    }

    fn length(&mut self, length: usize) {
        let length = i32::try_from(length).expect("we never build a field of 2 GiB");
        self.buffer.put_i32(length);
    }

    fn null(&mut self) {
        self.buffer.put_i32(-1);
    }
}

impl Record for bool {
    const BYTES_MIN: usize = 1;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.need(1)?;
        Ok(reader.rest.get_u8() != 0)
    }

    fn encode(&self, writer: &mut Writer) {
        writer.buffer.put_u8(u8::from(*self));
    }
}

impl Record for i32 {
    const BYTES_MIN: usize = 4;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.need(4)?;
        Ok(reader.rest.get_i32())
    }

    fn encode(&self, writer: &mut Writer) {
        writer.buffer.put_i32(*self);
    }
}

impl Record for i64 {
    const BYTES_MIN: usize = 8;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.need(8)?;
        Ok(reader.rest.get_i64())
    }

    fn encode(&self, writer: &mut Writer) {
        writer.buffer.put_i64(*self);
    }
}

/// A buffer; null is a value of its own (a znode may hold null, which is not the same as nothing).
impl Record for Option<Bytes> {
    const BYTES_MIN: usize = 4;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.length()?.map(|length| reader.take(length)).transpose()
    }

    fn encode(&self, writer: &mut Writer) {
        match self {
            Some(bytes) => {
                writer.length(bytes.len());
                writer.buffer.put_slice(bytes);
            }
            None => writer.null(),
        }
    }
}

impl Record for Option<String> {
    const BYTES_MIN: usize = 4;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let Some(bytes) = Option::<Bytes>::decode(reader)? else { return Ok(None) };
        let text = std::str::from_utf8(&bytes).map_err(|_| DecodeError::NotUtf8)?;
        Ok(Some(text.to_owned()))
    }

    fn encode(&self, writer: &mut Writer) {
        match self {
            Some(text) => text.encode(writer),
            None => writer.null(),
        }
    }
}

/// Text; null, as which some clients send the empty one (kazoo: the id of an `auth` list entry), is
/// read as empty.
impl Record for String {
    const BYTES_MIN: usize = 4;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Option::<String>::decode(reader)?.unwrap_or_default())
    }

    fn encode(&self, writer: &mut Writer) {
        writer.length(self.len());
        writer.buffer.put_slice(self.as_bytes());
    }
}

/// A vector; null, which some clients send, is read as an empty one.
impl<T: Record> Record for Vec<T> {
    const BYTES_MIN: usize = 4;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let Some(count) = reader.length()? else { return Ok(Vec::new()) };
        reader.need(count.saturating_mul(T::BYTES_MIN))?;
        // Grows with what is really there: an element may be larger in memory than on the wire.
        let mut elements = Vec::new();
        for _ in 0..count {
            elements.push(T::decode(reader)?);
        }
        Ok(elements)
    }

    fn encode(&self, writer: &mut Writer) {
        writer.length(self.len());
        for element in self {
            element.encode(writer);
        }
    }
}

/// Declares a record once: the struct, its decoding and its encoding, fields in wire order.
macro_rules! record {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl $crate::jute::Record for $name {
            const BYTES_MIN: usize = 0 $(+ <$type as $crate::jute::Record>::BYTES_MIN)*;

            fn decode(
                reader: &mut $crate::jute::Reader,
            ) -> Result<Self, $crate::jute::DecodeError> {
                Ok(Self { $($field: <$type as $crate::jute::Record>::decode(reader)?,)* })
            }

            fn encode(&self, writer: &mut $crate::jute::Writer) {
                $($crate::jute::Record::encode(&self.$field, writer);)*
            }
        }
    };
}

/// Declares an enum that travels as an i32, where a number without a variant is an error.
macro_rules! closed_enum {
    ($(#[$meta:meta])* pub enum $name:ident as $what:literal {
        $($(#[$variant_meta:meta])* $variant:ident = $value:literal,)*
    }) => {
        $(#[$meta])*
        pub enum $name {
            $($(#[$variant_meta])* $variant,)*
        }

        impl $name {
            /// The number on the wire.
            #[must_use]
            pub const fn code(self) -> i32 {
                match self { $(Self::$variant => $value,)* }
            }

            /// The variant with this number, if there is one.
            #[must_use]
            pub const fn from_code(code: i32) -> Option<Self> {
                match code { $($value => Some(Self::$variant),)* _ => None }
            }
        }

        impl $crate::jute::Record for $name {
            const BYTES_MIN: usize = 4;

            fn decode(
                reader: &mut $crate::jute::Reader,
            ) -> Result<Self, $crate::jute::DecodeError> {
                let value = <i32 as $crate::jute::Record>::decode(reader)?;
                Self::from_code(value)
                    .ok_or($crate::jute::DecodeError::InvalidValue { what: $what, value })
            }

            fn encode(&self, writer: &mut $crate::jute::Writer) {
                $crate::jute::Record::encode(&self.code(), writer);
            }
        }
    };
}

/// Declares an enum that travels as an i32, where every other number is `Other`.
macro_rules! open_enum {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident = $value:literal,)*
    }) => {
        $(#[$meta])*
        pub enum $name {
            $($(#[$variant_meta])* $variant,)*
            /// A number that this version has no name for.
            Other(i32),
        }

        impl $name {
            /// The number on the wire.
            #[must_use]
            pub const fn code(self) -> i32 {
                match self { $(Self::$variant => $value,)* Self::Other(code) => code }
            }

            /// What this number stands for.
            #[must_use]
            pub const fn from_code(code: i32) -> Self {
                match code { $($value => Self::$variant,)* code => Self::Other(code) }
            }
        }

        impl $crate::jute::Record for $name {
            const BYTES_MIN: usize = 4;

            fn decode(
                reader: &mut $crate::jute::Reader,
            ) -> Result<Self, $crate::jute::DecodeError> {
                Ok(Self::from_code(<i32 as $crate::jute::Record>::decode(reader)?))
            }

            fn encode(&self, writer: &mut $crate::jute::Writer) {
                $crate::jute::Record::encode(&self.code(), writer);
            }
        }
    };
}

pub(crate) use {closed_enum, open_enum, record};

#[cfg(test)]
mod tests {
    use super::*;

    fn decode<T: Record>(bytes: &[u8]) -> Result<T, DecodeError> {
        T::decode(&mut Reader::new(Bytes::copy_from_slice(bytes)))
    }

    #[test]
    fn declared_lengths_are_not_believed() {
        let huge = i32::MAX.to_be_bytes();
        let short = DecodeError::Short { needed: i32::MAX as usize, left: 0 };
        assert_eq!(decode::<String>(&huge), Err(short.clone()));
        assert_eq!(decode::<Option<Bytes>>(&huge), Err(short));
        let needed = i32::MAX as usize * 4;
        assert_eq!(decode::<Vec<String>>(&huge), Err(DecodeError::Short { needed, left: 0 }));
    }

    #[test]
    fn null_is_minus_one_and_nothing_below() {
        assert_eq!(decode::<Option<Bytes>>(&(-1i32).to_be_bytes()), Ok(None));
        assert_eq!(decode::<Option<String>>(&(-1i32).to_be_bytes()), Ok(None));
        assert_eq!(decode::<Vec<String>>(&(-1i32).to_be_bytes()), Ok(Vec::new()));
        assert_eq!(decode::<String>(&(-1i32).to_be_bytes()), Ok(String::new()));
        let below = Err(DecodeError::NegativeLength { length: -2 });
        assert_eq!(decode::<Option<Bytes>>(&(-2i32).to_be_bytes()), below);
    }

    #[test]
    fn strings_are_utf8() {
        assert_eq!(decode::<String>(&[0, 0, 0, 1, 0xff]), Err(DecodeError::NotUtf8));
        assert_eq!(decode::<String>(&[0, 0, 0, 2, 0xc3, 0xa9]), Ok("é".to_owned()));
    }
}
