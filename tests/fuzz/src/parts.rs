//! An input that is several: each with its length before it, so that changes of one leave the others alone.
//!
//! Called by: targets. Calls: the checksum of envelopes.

/// In envelopes, before the payload.
const HEADER_BYTES: usize = 16;

/// One input of `parts`.
pub fn joined<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut all = Vec::new();
    for part in parts {
        let length = u32::try_from(part.len()).expect("a seed is short");
        all.extend_from_slice(&length.to_le_bytes());
        all.extend_from_slice(part);
    }
    all
}

/// The parts of `input`, whatever its bytes are: a length that reaches behind the end means the rest.
pub fn split(input: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = input;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (part, after) = after.split_at(length.min(after.len()));
        parts.push(part);
        rest = after;
    }
    parts
}

/// An envelope of that kind around `input`, whose first byte is the schema's version: with a sound checksum, which no change of an
/// input would come past.
pub fn sealed(kind: u16, input: &[u8]) -> Vec<u8> {
    let (version, payload) = input.split_first().unwrap_or((&0, &[]));
    let length = u32::try_from(payload.len()).expect("an input is short");
    let mut bytes = b"TGEV".to_vec();
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&u16::from(*version).to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes);
    hasher.update(payload);
    bytes.extend_from_slice(&hasher.finalize().to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// What [`sealed`] makes `envelope` of.
pub fn opened(envelope: &[u8]) -> Vec<u8> {
    [&envelope[6..7], &envelope[HEADER_BYTES..]].concat()
}
