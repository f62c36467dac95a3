//! How each kind of field stands on the wire, by version.
//!
//! *Called by* the structs that `declare` makes. *Calls* `reader`, `writer`.
//!
//! Invariant: what a field writes, it reads back equal, except that `Some` of a sentinel (-1, the zero topic
//! id) comes back as `None`.

use bytes::Bytes;

use crate::error_code::ErrorCode;
use crate::ids::{
    BrokerId, CorrelationId, LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, TopicId,
};
use crate::reader::{DecodeError, LengthPrefix, Reader};
use crate::writer::{EncodeError, Writer};

/// What a field must know of the message around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The message's version.
    pub version: i16,
    /// Compact lengths and tagged sections.
    pub flexible: bool,
    /// This field may be null at this version.
    pub nullable: bool,
}

impl Shape {
    const fn required(self) -> Self {
        Self { nullable: false, ..self }
    }

    const fn string_prefix(self) -> LengthPrefix {
        if self.flexible { LengthPrefix::Compact } else { LengthPrefix::Short }
    }

    const fn array_prefix(self) -> LengthPrefix {
        if self.flexible { LengthPrefix::Compact } else { LengthPrefix::Long }
    }
}

/// A value that stands in a message.
pub trait Field: Sized {
    /// Reads the value.
    ///
    /// # Errors
    /// [`DecodeError`]: the frame is not to be trusted any further.
    fn read(reader: &mut Reader<'_>, shape: Shape) -> Result<Self, DecodeError>;

    /// Writes the value.
    ///
    /// # Errors
    /// [`EncodeError`]: the version cannot carry the value.
    fn write(&self, writer: &mut Writer, shape: Shape) -> Result<(), EncodeError>;
}

macro_rules! number_field {
    ($($type:ty),*) => {$(
        impl Field for $type {
            fn read(reader: &mut Reader<'_>, _: Shape) -> Result<Self, DecodeError> {
                Ok(Self::from_be_bytes(reader.take_array()?))
            }

            fn write(&self, writer: &mut Writer, _: Shape) -> Result<(), EncodeError> {
                writer.put(&self.to_be_bytes());
                Ok(())
            }
        }
    )*};
}
number_field!(i8, i16, i32, i64, u16, f64);

macro_rules! id_field {
    ($($type:ident),*) => {$(
        impl Field for $type {
            fn read(reader: &mut Reader<'_>, shape: Shape) -> Result<Self, DecodeError> {
                Field::read(reader, shape).map(Self::new)
            }

            fn write(&self, writer: &mut Writer, shape: Shape) -> Result<(), EncodeError> {
                self.get().write(writer, shape)
            }
        }

        impl Field for Option<$type> {
            fn read(reader: &mut Reader<'_>, shape: Shape) -> Result<Self, DecodeError> {
                let value = Field::read(reader, shape)?;
                Ok((value != -1).then_some($type::new(value)))
            }

            fn write(&self, writer: &mut Writer, shape: Shape) -> Result<(), EncodeError> {
                self.map_or(-1, $type::get).write(writer, shape)
            }
        }
    )*};
}
id_field!(BrokerId, CorrelationId, LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId);

impl Field for bool {
    fn read(reader: &mut Reader<'_>, _: Shape) -> Result<Self, DecodeError> {
        let [byte] = reader.take_array()?;
        Ok(byte != 0)
    }

    fn write(&self, writer: &mut Writer, _: Shape) -> Result<(), EncodeError> {
        writer.put(&[u8::from(*self)]);
        Ok(())
    }
}

impl Field for ErrorCode {
    fn read(reader: &mut Reader<'_>, shape: Shape) -> Result<Self, DecodeError> {
        i16::read(reader, shape).map(Self::from_code)
    }

    fn write(&self, writer: &mut Writer, shape: Shape) -> Result<(), EncodeError> {
        self.code().write(writer, shape)
    }
}

impl Field for TopicId {
    fn read(reader: &mut Reader<'_>, _: Shape) -> Result<Self, DecodeError> {
        Ok(Self::from_bytes(reader.take_array()?))
    }

    fn write(&self, writer: &mut Writer, _: Shape) -> Result<(), EncodeError> {
        writer.put(self.as_bytes());
        Ok(())
    }
}

impl Field for Option<TopicId> {
    fn read(reader: &mut Reader<'_>, shape: Shape) -> Result<Self, DecodeError> {
        let id = TopicId::read(reader, shape)?;
        Ok((id != TopicId::ZERO).then_some(id))
    }

    fn write(&self, writer: &mut Writer, shape: Shape) -> Result<(), EncodeError> {
        self.unwrap_or_default().write(writer, shape)
    }
}

pub(crate) fn read_string(
    reader: &mut Reader<'_>,
    prefix: LengthPrefix,
) -> Result<Option<String>, DecodeError> {
    let Some(length) = reader.length(prefix)? else { return Ok(None) };
    let position = reader.position();
    let bytes = reader.take(length)?;
    reader.charge(length)?;
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8(position))?;
    Ok(Some(text.to_owned()))
}

pub(crate) fn write_string(
    writer: &mut Writer,
    text: Option<&str>,
    prefix: LengthPrefix,
) -> Result<(), EncodeError> {
    // Java reads even a compact string's length into an i16's range.
    if let Some(length) = text.map(str::len).filter(|length| i16::try_from(*length).is_err()) {
        return Err(EncodeError::TooLong(length));
    }
    writer.length_prefix(text.map(str::len), prefix)?;
    writer.put(text.unwrap_or_default().as_bytes());
    Ok(())
}

impl Field for String {
    fn read(reader: &mut Reader<'_>, shape: Shape) -> Result<Self, DecodeError> {
        let position = reader.position();
        read_string(reader, shape.string_prefix())?.ok_or(DecodeError::Null(position))
    }

    fn write(&self, writer: &mut Writer, shape: Shape) -> Result<(), EncodeError> {
        write_string(writer, Some(self), shape.string_prefix())
    }
}

impl Field for Bytes {
    fn read(reader: &mut Reader<'_>, shape: Shape) -> Result<Self, DecodeError> {
        let position = reader.position();
        let length = reader.length(shape.array_prefix())?.ok_or(DecodeError::Null(position))?;
        let bytes = reader.take(length)?;
        reader.charge(length)?;
        Ok(Self::copy_from_slice(bytes))
    }

    fn write(&self, writer: &mut Writer, shape: Shape) -> Result<(), EncodeError> {
        writer.length_prefix(Some(self.len()), shape.array_prefix())?;
        writer.put_inline(self);
        Ok(())
    }
}

impl<T: Field> Field for Vec<T> {
    fn read(reader: &mut Reader<'_>, shape: Shape) -> Result<Self, DecodeError> {
        let position = reader.position();
        let count = reader.length(shape.array_prefix())?.ok_or(DecodeError::Null(position))?;
        // Every element takes at least one byte on the wire.
        if count > reader.left() {
            return Err(DecodeError::Count { count, left: reader.left() });
        }
        reader.charge(count.saturating_mul(size_of::<T>()))?;
        let mut elements = Self::new();
        for _ in 0..count {
            elements.push(T::read(reader, shape.required())?);
        }
        Ok(elements)
    }

    fn write(&self, writer: &mut Writer, shape: Shape) -> Result<(), EncodeError> {
        writer.length_prefix(Some(self.len()), shape.array_prefix())?;
        self.iter().try_for_each(|element| element.write(writer, shape.required()))
    }
}

/// A value with a length prefix, whose null is a special length.
trait Prefixed: Field {
    fn prefix(shape: Shape) -> LengthPrefix;
}

impl Prefixed for String {
    fn prefix(shape: Shape) -> LengthPrefix {
        shape.string_prefix()
    }
}

impl Prefixed for Bytes {
    fn prefix(shape: Shape) -> LengthPrefix {
        shape.array_prefix()
    }
}

impl Prefixed for Records {
    fn prefix(shape: Shape) -> LengthPrefix {
        shape.array_prefix()
    }
}

impl<T: Field> Prefixed for Vec<T> {
    fn prefix(shape: Shape) -> LengthPrefix {
        shape.array_prefix()
    }
}

fn read_nullable<T: Prefixed>(
    reader: &mut Reader<'_>,
    shape: Shape,
) -> Result<Option<T>, DecodeError> {
    let mut ahead = reader.clone();
    if ahead.length(T::prefix(shape))?.is_some() {
        return T::read(reader, shape.required()).map(Some);
    }
    if !shape.nullable {
        return Err(DecodeError::Null(reader.position()));
    }
    *reader = ahead;
    Ok(None)
}

fn write_nullable<T: Prefixed>(
    value: Option<&T>,
    writer: &mut Writer,
    shape: Shape,
) -> Result<(), EncodeError> {
    match value {
        Some(value) => value.write(writer, shape.required()),
        None if shape.nullable => writer.length_prefix(None, T::prefix(shape)),
        None => Err(EncodeError::Null),
    }
}

macro_rules! nullable_field {
    ($($type:ty $(, $parameter:ident)?);*) => {$(
        impl $(<$parameter: Field>)? Field for Option<$type> {
            fn read(reader: &mut Reader<'_>, shape: Shape) -> Result<Self, DecodeError> {
                read_nullable(reader, shape)
            }

            fn write(&self, writer: &mut Writer, shape: Shape) -> Result<(), EncodeError> {
                write_nullable(self.as_ref(), writer, shape)
            }
        }
    )*};
}
nullable_field!(String; Bytes; Records; Vec<T>, T);

/// A place in a frame: `start` inclusive, `end` exclusive, counted from the first byte given to the reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl ByteRange {
    /// How many bytes.
    #[must_use]
    pub const fn length(self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// These bytes of `frame`; `None` when it is not the frame that was decoded.
    #[must_use]
    pub fn of(self, frame: &[u8]) -> Option<&[u8]> {
        frame.get(self.start..self.end)
    }

    /// These bytes of `frame`, to patch in place.
    #[must_use]
    pub fn of_mut(self, frame: &mut [u8]) -> Option<&mut [u8]> {
        frame.get_mut(self.start..self.end)
    }
}

/// The record batches of one partition, which the codec neither copies nor looks into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Records {
    /// Decoded: they lie there in the frame.
    InFrame(ByteRange),
    /// To be written into the message.
    Inline(Bytes),
    /// To be sent by the caller: this many bytes, at a [`crate::Splice`] of the encoded frame. Splices stand in
    /// the order of the partitions; an empty one leaves none.
    Spliced(usize),
}

impl Default for Records {
    fn default() -> Self {
        Self::Inline(Bytes::new())
    }
}

impl Records {
    /// How many bytes they take.
    #[must_use]
    pub fn length(&self) -> usize {
        match self {
            Self::InFrame(range) => range.length(),
            Self::Inline(bytes) => bytes.len(),
            Self::Spliced(length) => *length,
        }
    }

    /// Where they lie in the decoded frame; `None` for what is still to be encoded.
    #[must_use]
    pub const fn in_frame(&self) -> Option<ByteRange> {
        match self {
            Self::InFrame(range) => Some(*range),
            Self::Inline(_) | Self::Spliced(_) => None,
        }
    }
}

impl Field for Records {
    fn read(reader: &mut Reader<'_>, shape: Shape) -> Result<Self, DecodeError> {
        let position = reader.position();
        let length = reader.length(shape.array_prefix())?.ok_or(DecodeError::Null(position))?;
        reader.take_range(length).map(Self::InFrame)
    }

    fn write(&self, writer: &mut Writer, shape: Shape) -> Result<(), EncodeError> {
        writer.length_prefix(Some(self.length()), shape.array_prefix())?;
        match self {
            Self::InFrame(_) => return Err(EncodeError::RecordsElsewhere),
            Self::Inline(bytes) => writer.put_inline(bytes),
            Self::Spliced(length) => writer.splice(*length),
        }
        Ok(())
    }
}
