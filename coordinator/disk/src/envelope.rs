//! The envelope around every value that we encode for ourselves: on disk and between servers.
//!
//! Called by: the coordinator's log, snapshots and peer messages; the broker's checkpoints. Calls: bincode, of which
//! this is the only user.
//! Invariant: a value decodes only from exactly the bytes it was encoded to: same kind, same schema version, whole,
//! with nothing behind it. Memory spent on decoding is bounded by the bytes at hand (some 256 times as much), not by a number
//! in them; but serde reserves up to 1 MiB for a sequence before it reads the first item.
//! Does not know: what the kinds are; each owner declares its own.
//!
//! ```text
//! 0      4      6         8        12      16
//! | TGEV | kind | version | length | crc32 | payload (length bytes) |
//! ```
//! Numbers are little-endian; the CRC-32 (IEEE) covers bytes 0 to 12 and the payload.

use serde::Serialize;
use serde::de::DeserializeOwned;

const MAGIC: [u8; 4] = *b"TGEV";
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 16;
/// Largest payload that is encoded or decoded.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// The decoder's budget, in bytes of decoded fixed-size values and of texts, for each byte of payload: a variable-length number
/// of one byte counts as up to 16.
const BUDGET_FACTOR: usize = 16;
/// The decoder's budget is a constant of its type. So there is one for payloads up to each of these sizes: a text is allocated
/// as long as it says that it is if the budget allows that, before it shows that the bytes are not there.
const TINY_BYTES: usize = 256;
const SMALL_BYTES: usize = 4 << 10;
const MIDDLE_BYTES: usize = 64 << 10;
const LARGE_BYTES: usize = 1 << 20;

/// Which value an envelope holds, and in which of its forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// Number of the type, never used again for another one.
    pub kind: u16,
    /// Number of the form; raised with every change of the type's fields.
    pub version: u16,
}

/// Why bytes are not the envelope that was asked for. None of them goes away by trying again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The bytes end before the header or the payload does.
    #[error("envelope cut short: {found} bytes of {needed}")]
    Short {
        /// Bytes at hand.
        found: usize,
        /// Bytes the envelope needs.
        needed: usize,
    },
    /// The bytes begin with something else.
    #[error("not an envelope: it begins with {found:02x?}")]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The checksum differs: the bytes changed since they were written.
    #[error("envelope damaged: checksum {found:08x}, stored {stored:08x}")]
    Checksum {
        /// Computed now.
        found: u32,
        /// Written then.
        stored: u32,
    },
    /// A whole envelope, of another type or form.
    #[error("envelope of kind {} version {} where kind {} version {} belongs", found.kind, found.version, expected.kind, expected.version)]
    Schema {
        /// What the bytes hold.
        found: Schema,
        /// What was asked for.
        expected: Schema,
    },
    /// More payload than [`PAYLOAD_BYTES_MAX`].
    #[error("envelope of {length} bytes, at most {PAYLOAD_BYTES_MAX}")]
    Large {
        /// Declared or encoded length.
        length: usize,
    },
    /// Bytes follow where the value or the envelope ends.
    #[error("{count} bytes behind the end of the envelope's value")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// The payload is not a value of the type.
    #[error("envelope's value cannot be read: {reason}")]
    Value {
        /// The decoder's words.
        reason: String,
    },
}

/// Encodes `value` into a whole envelope.
///
/// # Errors
/// [`EnvelopeError::Large`] over [`PAYLOAD_BYTES_MAX`]; [`EnvelopeError::Value`] for a type that cannot be encoded
/// (a sequence of unknown length).
pub fn encode<T: Serialize>(schema: Schema, value: &T) -> Result<Vec<u8>, EnvelopeError> {
    let mut bytes = Vec::with_capacity(128);
    encode_into(schema, value, &mut bytes)?;
    Ok(bytes)
}

/// Encodes `value` into a whole envelope at the end of `bytes`.
///
/// # Errors
/// As [`encode`]; `bytes` is then as it was.
pub fn encode_into<T: Serialize>(
    schema: Schema,
    value: &T,
    bytes: &mut Vec<u8>,
) -> Result<(), EnvelopeError> {
    let start = bytes.len();
    bytes.resize(start + HEADER_BYTES, 0);
    let written = bincode::serde::encode_into_std_write(value, bytes, bincode::config::standard());
    let length = bytes.len() - start - HEADER_BYTES;
    let outcome = match written {
        Err(error) => Err(EnvelopeError::Value { reason: error.to_string() }),
        Ok(_) if length > PAYLOAD_BYTES_MAX => Err(EnvelopeError::Large { length }),
        Ok(_) => Ok(()),
    };
    if outcome.is_err() {
        bytes.truncate(start);
        return outcome;
    }
    let length = u32::try_from(length).expect("at most PAYLOAD_BYTES_MAX");
    let envelope = &mut bytes[start..];
    envelope[0..4].copy_from_slice(&MAGIC);
    envelope[4..6].copy_from_slice(&schema.kind.to_le_bytes());
    envelope[6..8].copy_from_slice(&schema.version.to_le_bytes());
    envelope[8..12].copy_from_slice(&length.to_le_bytes());
    let crc = checksum(&envelope[..12], &envelope[HEADER_BYTES..]);
    envelope[12..16].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// Decodes a value from `bytes`, which must be one whole envelope and nothing more.
///
/// # Errors
/// Every [`EnvelopeError`]; the input is then of no use.
pub fn decode<T: DeserializeOwned>(schema: Schema, bytes: &[u8]) -> Result<T, EnvelopeError> {
    let (found, payload) = open(bytes)?;
    if found != schema {
        return Err(EnvelopeError::Schema { found, expected: schema });
    }
    let budgeted = match payload.len() {
        length if length <= TINY_BYTES => decode_within::<{ BUDGET_FACTOR * TINY_BYTES }, T>,
        length if length <= SMALL_BYTES => decode_within::<{ BUDGET_FACTOR * SMALL_BYTES }, T>,
        length if length <= MIDDLE_BYTES => decode_within::<{ BUDGET_FACTOR * MIDDLE_BYTES }, T>,
        length if length <= LARGE_BYTES => decode_within::<{ BUDGET_FACTOR * LARGE_BYTES }, T>,
        _ => decode_within::<{ BUDGET_FACTOR * PAYLOAD_BYTES_MAX }, T>,
    };
    match budgeted(payload) {
        Err(error) => Err(EnvelopeError::Value { reason: error.to_string() }),
        Ok((_, used)) if used < payload.len() => {
            Err(EnvelopeError::Trailing { count: payload.len() - used })
        }
        Ok((value, _)) => Ok(value),
    }
}

fn decode_within<const BUDGET: usize, T: DeserializeOwned>(
    payload: &[u8],
) -> Result<(T, usize), bincode::error::DecodeError> {
    bincode::serde::decode_from_slice(payload, bincode::config::standard().with_limit::<BUDGET>())
}

/// Which value the envelope in `bytes` holds: for readers that know more than one form.
///
/// # Errors
/// As [`decode`], as far as the envelope itself goes.
pub fn schema_of(bytes: &[u8]) -> Result<Schema, EnvelopeError> {
    open(bytes).map(|(schema, _)| schema)
}

/// Checks the envelope around the payload.
fn open(bytes: &[u8]) -> Result<(Schema, &[u8]), EnvelopeError> {
    let Some((header, payload)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(EnvelopeError::Short { found: bytes.len(), needed: HEADER_BYTES });
    };
    let [m0, m1, m2, m3, k0, k1, v0, v1, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    let magic = [m0, m1, m2, m3];
    if magic != MAGIC {
        return Err(EnvelopeError::Magic { found: magic });
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length > PAYLOAD_BYTES_MAX {
        return Err(EnvelopeError::Large { length });
    }
    if payload.len() < length {
        return Err(EnvelopeError::Short { found: bytes.len(), needed: HEADER_BYTES + length });
    }
    if payload.len() > length {
        return Err(EnvelopeError::Trailing { count: payload.len() - length });
    }
    let stored = u32::from_le_bytes([c0, c1, c2, c3]);
    let found = checksum(&header[..12], payload);
    if found != stored {
        return Err(EnvelopeError::Checksum { found, stored });
    }
    let schema =
        Schema { kind: u16::from_le_bytes([k0, k1]), version: u16::from_le_bytes([v0, v1]) };
    Ok((schema, payload))
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Value {
        Empty,
        Full { number: i64, text: String, list: Vec<u32> },
    }

    const SCHEMA: Schema = Schema { kind: 7, version: 2 };

    fn full() -> Value {
        Value::Full { number: -3, text: "tide".into(), list: vec![1, 300, 70_000] }
    }

    /// These bytes stand in files of running systems: a change here is a new schema version.
    #[test]
    fn golden_bytes_stay() {
        let expected = [
            0x54, 0x47, 0x45, 0x56, 0x07, 0x00, 0x02, 0x00, 0x11, 0x00, 0x00, 0x00,
            // CRC-32, computed by another implementation (zlib)
            0xfa, 0x14, 0x0c, 0xb6, // variant, number -3, "tide", three numbers
            0x01, 0x05, 0x04, b't', b'i', b'd', b'e', 0x03, 0x01, 0xfb, 0x2c, 0x01, 0xfc, 0x70,
            0x11, 0x01, 0x00,
        ];
        assert_eq!(encode(SCHEMA, &full()).unwrap(), expected);
        assert_eq!(decode::<Value>(SCHEMA, &expected), Ok(full()));
        assert_eq!(schema_of(&expected), Ok(SCHEMA));
    }

    #[test]
    fn value_survives_the_round_trip() {
        for value in [Value::Empty, full()] {
            assert_eq!(decode::<Value>(SCHEMA, &encode(SCHEMA, &value).unwrap()), Ok(value));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let bytes = encode(SCHEMA, &full()).unwrap();
        for index in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[index] ^= 1 << bit;
                assert!(decode::<Value>(SCHEMA, &bad).is_err(), "bit {bit} of byte {index}");
            }
            assert!(decode::<Value>(SCHEMA, &bytes[..index]).is_err(), "cut at {index}");
        }
    }

    #[test]
    fn another_kind_version_or_tail_is_refused() {
        let mut bytes = encode(SCHEMA, &full()).unwrap();
        for other in [Schema { kind: 8, ..SCHEMA }, Schema { version: 1, ..SCHEMA }] {
            assert_eq!(
                decode::<Value>(other, &bytes),
                Err(EnvelopeError::Schema { found: SCHEMA, expected: other })
            );
        }
        bytes.push(0);
        assert_eq!(decode::<Value>(SCHEMA, &bytes), Err(EnvelopeError::Trailing { count: 1 }));
        let wider = encode(SCHEMA, &(full(), 9u8)).unwrap();
        assert_eq!(decode::<Value>(SCHEMA, &wider), Err(EnvelopeError::Trailing { count: 1 }));
    }

    #[test]
    fn declared_length_is_not_believed() {
        // A string that says it is 4 GiB long, in a payload of 6 bytes with a right checksum.
        let bytes = encode(SCHEMA, &(0xfcu8, 0xffu8, 0xffu8, 0xffu8, 0xffu8)).unwrap();
        assert!(matches!(decode::<String>(SCHEMA, &bytes), Err(EnvelopeError::Value { .. })));
    }

    #[test]
    fn text_beyond_the_budget_of_so_few_bytes_is_not_even_allocated() {
        let declares = |length: u32, payload_bytes: usize| {
            let mut payload = vec![0xfc];
            payload.extend(length.to_le_bytes());
            payload.resize(payload_bytes, b'x');
            let bytes = encode(SCHEMA, &Raw(&payload)).unwrap();
            match decode::<String>(SCHEMA, &bytes) {
                Err(EnvelopeError::Value { reason }) => reason,
                other => panic!("{other:?}"),
            }
        };
        for size in [TINY_BYTES, SMALL_BYTES, MIDDLE_BYTES, LARGE_BYTES] {
            let budget = u32::try_from(BUDGET_FACTOR * size).unwrap();
            assert!(declares(budget, size).contains("LimitExceeded"), "{size}");
            assert!(declares(budget, size + 1).contains("UnexpectedEnd"), "{size}");
        }
    }

    #[test]
    fn numbers_of_one_byte_fit_the_budget_at_every_size() {
        for count in [1, 250, 256, 300, 4 << 10, 5 << 10, 64 << 10, 70 << 10, 1 << 20, 2 << 20] {
            let value = vec![7_u128; count];
            assert_eq!(decode::<Vec<u128>>(SCHEMA, &encode(SCHEMA, &value).unwrap()), Ok(value));
        }
    }

    /// Bytes as they are, without a length before them.
    struct Raw<'a>(&'a [u8]);

    impl Serialize for Raw<'_> {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeTuple;
            let mut tuple = serializer.serialize_tuple(self.0.len())?;
            self.0.iter().try_for_each(|byte| tuple.serialize_element(byte))?;
            tuple.end()
        }
    }
}
