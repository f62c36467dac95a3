//! The numbers that must not be mixed up: each is a type of its own.
//!
//! *Called by* everything. The wire's sentinel -1 ("none") becomes `Option` at the decoder, so a value of
//! these types stands for something that exists. Arithmetic goes through named, checked methods.

use std::fmt;

macro_rules! id {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($inner);

        impl $name {
            /// Wraps the number as it stands on the wire.
            #[must_use]
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The number as it stands on the wire.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// The place of a record in its partition, from 0.
    Offset(i64)
);
id!(
    /// Counts the leaders of a partition; each record batch carries that of the leader that took it.
    LeaderEpoch(i32)
);
id!(
    /// The number of a broker in its cluster.
    BrokerId(i32)
);
id!(
    /// The number of a partition in its topic, from 0.
    PartitionId(i32)
);
id!(
    /// Names an idempotent or transactional producer.
    ProducerId(i64)
);
id!(
    /// Counts the incarnations of one producer id; the higher one fences the lower.
    ProducerEpoch(i16)
);
id!(
    /// Chosen by the client; the response carries it back.
    CorrelationId(i32)
);

impl Offset {
    /// The first offset of an empty log.
    pub const ZERO: Self = Self(0);

    /// The offset after this one; `None` past the end of the number range.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        self.plus_count(1)
    }

    /// The offset `count` records further; `None` past the end of the number range.
    #[must_use]
    pub const fn plus_count(self, count: u32) -> Option<Self> {
        match self.0.checked_add(count as i64) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// How many offsets lie in `base..self`; 0 when `base` is beyond.
    #[must_use]
    pub const fn count_since(self, base: Self) -> u64 {
        if base.0 >= self.0 { 0 } else { self.0.abs_diff(base.0) }
    }
}

impl LeaderEpoch {
    /// The epoch of the next leader; `None` past the end of the number range.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }
}

impl ProducerEpoch {
    /// The epoch of the next incarnation; `None` when the producer id is used up.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }
}

impl CorrelationId {
    /// The id of the next request of a connection; wraps round to 0.
    #[must_use]
    pub const fn next(self) -> Self {
        match self.0.checked_add(1) {
            Some(value) => Self(value),
            None => Self(0),
        }
    }
}

/// A topic's identity: survives nothing, not even deletion and creation under the same name.
///
/// Shown and parsed as Kafka does: URL-safe base64 without padding, 22 characters.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId([u8; 16]);

/// The text is not 22 characters of URL-safe base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a topic id: expected 22 characters of URL-safe base64")]
pub struct InvalidTopicId;

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const TOPIC_ID_CHARS: usize = 22;

impl TopicId {
    /// What the wire sends for "no id"; as `Option<TopicId>` it is `None`.
    pub const ZERO: Self = Self([0; 16]);

    /// Wraps sixteen bytes in wire order.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The sixteen bytes in wire order.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bits = u128::from_be_bytes(self.0);
        let mut text = String::with_capacity(TOPIC_ID_CHARS);
        // 128 bits are 21 groups of six and two bits over, which the last character carries on top.
        for _ in 0..TOPIC_ID_CHARS {
            let index = usize::try_from(bits >> 122).unwrap_or_default();
            text.push(char::from(*BASE64_URL.get(index).unwrap_or(&b'A')));
            bits <<= 6;
        }
        f.write_str(&text)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

impl std::str::FromStr for TopicId {
    type Err = InvalidTopicId;

    fn from_str(text: &str) -> Result<Self, InvalidTopicId> {
        let (head, last) = text.as_bytes().split_at_checked(21).ok_or(InvalidTopicId)?;
        let [last] = last else { return Err(InvalidTopicId) };
        let mut bits = 0u128;
        for byte in head {
            bits = (bits << 6) | sextet(*byte)?;
        }
        let tail = sextet(*last)?;
        if tail & 0b1111 != 0 {
            return Err(InvalidTopicId);
        }
        Ok(Self(((bits << 2) | (tail >> 4)).to_be_bytes()))
    }
}

fn sextet(byte: u8) -> Result<u128, InvalidTopicId> {
    let place = BASE64_URL.iter().position(|known| *known == byte).ok_or(InvalidTopicId)?;
    u128::try_from(place).map_err(|_| InvalidTopicId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_id_text_is_url_safe_base64_without_padding() {
        let check = |bytes: [u8; 16], text: &str| {
            let id = TopicId::from_bytes(bytes);
            assert_eq!(id.to_string(), text);
            assert_eq!(text.parse(), Ok(id));
        };
        check([0; 16], "AAAAAAAAAAAAAAAAAAAAAA");
        check([0xff; 16], "_____________________w");
        check(*b"0123456789abcdef", "MDEyMzQ1Njc4OWFiY2RlZg");
        for bad in
            ["", "MDEyMzQ1Njc4OWFiY2RlZ", "MDEyMzQ1Njc4OWFiY2RlZgA", "MDEyMzQ1Njc4OWFiY2RlZ="]
        {
            assert_eq!(bad.parse::<TopicId>(), Err(InvalidTopicId), "{bad}");
        }
        assert_eq!("MDEyMzQ1Njc4OWFiY2RlZh".parse::<TopicId>(), Err(InvalidTopicId));
    }

    #[test]
    fn offsets_do_not_overflow() {
        assert_eq!(Offset::new(i64::MAX).next(), None);
        assert_eq!(Offset::new(5).plus_count(3), Some(Offset::new(8)));
        assert_eq!(Offset::new(5).count_since(Offset::new(2)), 3);
        assert_eq!(Offset::new(2).count_since(Offset::new(5)), 0);
        assert_eq!(CorrelationId::new(i32::MAX).next(), CorrelationId::new(0));
    }
}
