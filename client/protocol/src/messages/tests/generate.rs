//! Makes values out of drawn bytes: equal bytes, equal value; fewer bytes, smaller value.

use bytes::Bytes;

use crate::ErrorCode;
use crate::field::{Records, Shape};
use crate::ids::{
    BrokerId, CorrelationId, LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, TopicId,
};

/// Drawn bytes; zeros after the last one, so that every value ends.
pub(crate) struct Source<'a>(pub(crate) &'a [u8]);

impl Source<'_> {
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// 0 to 3, or now and then more than a one-byte compact length holds.
    fn count(&mut self) -> usize {
        match self.byte() {
            255 => 130,
            byte => usize::from(byte % 4),
        }
    }
}

/// A value that a version can carry.
pub(crate) trait Generate: Sized {
    fn generate(source: &mut Source<'_>, shape: Shape) -> Self;
}

macro_rules! generate_numbers {
    ($($type:ty),*) => {$(
        impl Generate for $type {
            fn generate(source: &mut Source<'_>, _: Shape) -> Self {
                Self::from_be_bytes(source.array())
            }
        }
    )*};
}
generate_numbers!(i8, i16, i32, i64);

macro_rules! generate_ids {
    ($($type:ident),*) => {$(
        impl Generate for $type {
            fn generate(source: &mut Source<'_>, shape: Shape) -> Self {
                Self::new(Generate::generate(source, shape))
            }
        }

        impl Generate for Option<$type> {
            fn generate(source: &mut Source<'_>, shape: Shape) -> Self {
                Some($type::generate(source, shape)).filter(|id| id.get() != -1)
            }
        }
    )*};
}
generate_ids!(BrokerId, CorrelationId, LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId);

impl Generate for bool {
    fn generate(source: &mut Source<'_>, _: Shape) -> Self {
        source.byte() % 2 == 1
    }
}

impl Generate for ErrorCode {
    fn generate(source: &mut Source<'_>, shape: Shape) -> Self {
        Self::from_code(Generate::generate(source, shape))
    }
}

impl Generate for TopicId {
    fn generate(source: &mut Source<'_>, _: Shape) -> Self {
        Self::from_bytes(source.array())
    }
}

impl Generate for Option<TopicId> {
    fn generate(source: &mut Source<'_>, shape: Shape) -> Self {
        Some(TopicId::generate(source, shape)).filter(|id| *id != TopicId::ZERO)
    }
}

impl Generate for String {
    fn generate(source: &mut Source<'_>, _: Shape) -> Self {
        (0..source.count()).map(|_| char::from(source.byte())).collect()
    }
}

impl Generate for Bytes {
    fn generate(source: &mut Source<'_>, _: Shape) -> Self {
        (0..source.count()).map(|_| source.byte()).collect()
    }
}

impl Generate for Records {
    fn generate(source: &mut Source<'_>, shape: Shape) -> Self {
        Self::Inline(Bytes::generate(source, shape))
    }
}

impl<T: Generate> Generate for Vec<T> {
    fn generate(source: &mut Source<'_>, shape: Shape) -> Self {
        let shape = Shape { nullable: false, ..shape };
        (0..source.count()).map(|_| T::generate(source, shape)).collect()
    }
}

fn nullable<T: Generate>(source: &mut Source<'_>, shape: Shape) -> Option<T> {
    let is_null = shape.nullable && source.byte().is_multiple_of(4);
    (!is_null).then(|| T::generate(source, shape))
}

macro_rules! generate_nullable {
    ($($type:ty $(, $parameter:ident)?);*) => {$(
        impl $(<$parameter: Generate>)? Generate for Option<$type> {
            fn generate(source: &mut Source<'_>, shape: Shape) -> Self {
                nullable(source, shape)
            }
        }
    )*};
}
generate_nullable!(String; Bytes; Records; Vec<T>, T);
