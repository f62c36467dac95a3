//! Packs and unpacks the records of a batch as Kafka's clients do.
//!
//! *Called by* the client before a batch is sent and when one was fetched, and the log's cleaner. *Calls* the codecs'
//! crates.
//!
//! Invariant: unpacking gives at most [`UNPACKED_BYTES_MAX`] bytes, whatever a batch claims. Knows no record.

use std::io::{Read, Write};

use crate::records::Compression;
use bytes::Bytes;

/// The most that the records of one batch may unpack to: a hundred times what a broker takes by default.
pub const UNPACKED_BYTES_MAX: usize = 128 << 20;

/// What Java puts before its Snappy blocks: magic, version and lowest compatible version.
const XERIAL_HEADER: [u8; 16] =
    [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];

/// What goes into one Snappy block.
const XERIAL_BLOCK_BYTES: usize = 32 << 10;

/// Why records cannot be unpacked. Not retriable: the batch is what it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// Bits that no codec is known for.
    #[error("packed with an unknown codec")]
    UnknownCodec,
    /// The codec does not understand them.
    #[error("cannot be unpacked as {codec:?}: {reason}")]
    Damaged {
        /// The codec.
        codec: Compression,
        /// In its own words.
        reason: String,
    },
    /// They would take more than [`UNPACKED_BYTES_MAX`].
    #[error("unpack to more than {UNPACKED_BYTES_MAX} bytes")]
    TooLarge,
}

/// Packs records. Gives them back as they are when packing makes them no smaller: see which by the result's codec.
#[must_use]
pub fn pack(codec: Compression, records: &Bytes) -> (Compression, Bytes) {
    let packed = match codec {
        Compression::None => None,
        Compression::Gzip => gzip(records),
        Compression::Snappy => snappy(records),
        Compression::Lz4 => lz4(records),
        Compression::Zstd => Some(ruzstd::encoding::compress_to_vec(
            records.as_ref(),
            ruzstd::encoding::CompressionLevel::Fastest,
        )),
    };
    match packed {
        Some(packed) if packed.len() < records.len() => (codec, Bytes::from(packed)),
        Some(_) | None => (Compression::None, records.clone()),
    }
}

fn gzip(records: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(records).ok()?;
    encoder.finish().ok()
}

fn lz4(records: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(records).ok()?;
    encoder.finish().ok()
}

fn snappy(records: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = snap::raw::Encoder::new();
    let mut packed = XERIAL_HEADER.to_vec();
    for block in records.chunks(XERIAL_BLOCK_BYTES) {
        let block = encoder.compress_vec(block).ok()?;
        packed.extend_from_slice(&u32::try_from(block.len()).ok()?.to_be_bytes());
        packed.extend_from_slice(&block);
    }
    Some(packed)
}

/// Unpacks records.
///
/// # Errors
/// [`UnpackError`]; none can be retried.
pub fn unpack(codec: Option<Compression>, packed: &Bytes) -> Result<Bytes, UnpackError> {
    unpack_within(codec, packed, UNPACKED_BYTES_MAX)
}

fn unpack_within(
    codec: Option<Compression>,
    packed: &Bytes,
    bytes_max: usize,
) -> Result<Bytes, UnpackError> {
    let codec = codec.ok_or(UnpackError::UnknownCodec)?;
    let source = packed.as_ref();
    let records = match codec {
        Compression::None => return Ok(packed.clone()),
        Compression::Gzip => limited(codec, flate2::read::MultiGzDecoder::new(source), bytes_max),
        Compression::Snappy => unsnap(packed, bytes_max),
        Compression::Lz4 => limited(codec, lz4_flex::frame::FrameDecoder::new(source), bytes_max),
        Compression::Zstd => {
            let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
            let decoder =
                ruzstd::decoding::StreamingDecoder::new_with_max_window_size(source, limit);
            limited(codec, decoder.map_err(|error| damaged(codec, &error))?, bytes_max)
        }
    };
    records.map(Bytes::from)
}

fn damaged(codec: Compression, error: &dyn std::fmt::Display) -> UnpackError {
    UnpackError::Damaged { codec, reason: error.to_string() }
}

fn limited(
    codec: Compression,
    source: impl Read,
    bytes_max: usize,
) -> Result<Vec<u8>, UnpackError> {
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    let mut records = Vec::new();
    let mut source = source.take(limit.saturating_add(1));
    source.read_to_end(&mut records).map_err(|error| damaged(codec, &error))?;
    if records.len() > bytes_max { Err(UnpackError::TooLarge) } else { Ok(records) }
}

/// Java's blocks, or a single one without a frame, as other clients send it.
fn unsnap(packed: &[u8], bytes_max: usize) -> Result<Vec<u8>, UnpackError> {
    let mut records = Vec::new();
    let Some(mut rest) = packed.strip_prefix(&XERIAL_HEADER[..8]).and_then(|rest| rest.get(8..))
    else {
        unsnap_block(packed, bytes_max, &mut records)?;
        return Ok(records);
    };
    let cut = || damaged(Compression::Snappy, &"a block is cut short");
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let (block, after) = after.split_at_checked(length).ok_or_else(cut)?;
        unsnap_block(block, bytes_max, &mut records)?;
        rest = after;
    }
    if rest.is_empty() { Ok(records) } else { Err(cut()) }
}

fn unsnap_block(block: &[u8], bytes_max: usize, records: &mut Vec<u8>) -> Result<(), UnpackError> {
    let refused = |error: snap::Error| damaged(Compression::Snappy, &error);
    let length = snap::raw::decompress_len(block).map_err(refused)?;
    if records.len().saturating_add(length) > bytes_max {
        return Err(UnpackError::TooLarge);
    }
    // The format packs no more than some twenty to one: a block that claims more lies.
    if length > block.len().saturating_mul(64).saturating_add(64) {
        return Err(damaged(Compression::Snappy, &"a block claims more than it can hold"));
    }
    let unpacked = snap::raw::Decoder::new().decompress_vec(block).map_err(refused)?;
    records.extend_from_slice(&unpacked);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODECS: [Compression; 4] =
        [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    fn text(bytes: usize) -> Bytes {
        let mut text = Vec::new();
        let mut number = 7u32;
        while text.len() < bytes {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text.extend_from_slice(format!("record {} of the order book;", number % 97).as_bytes());
        }
        text.truncate(bytes);
        Bytes::from(text)
    }

    #[test]
    fn every_codec_gives_back_what_it_packed() {
        for codec in CODECS {
            for bytes in [100, 32 << 10, (32 << 10) + 1, 1 << 20] {
                let records = text(bytes);
                let (used, packed) = pack(codec, &records);
                assert_eq!(used, codec);
                assert!(packed.len() < records.len());
                assert!(unpack(Some(used), &packed).unwrap() == records, "{codec:?} {bytes}");
            }
        }
    }

    #[test]
    fn what_does_not_shrink_is_left_as_it_is() {
        for codec in CODECS {
            let records = Bytes::from_static(b"x");
            assert_eq!(pack(codec, &records), (Compression::None, records));
        }
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        for codec in CODECS {
            let (_, packed) = pack(codec, &text(10_000));
            for cut in [0, 1, packed.len() / 2] {
                let cut = unpack(Some(codec), &packed.slice(..cut));
                assert!(cut != Ok(text(10_000)), "{codec:?}");
            }
            for at in (0..packed.len()).step_by(7) {
                let mut damaged = packed.to_vec();
                damaged[at] ^= 0x55;
                // Not every codec notices, but the checksum of the batch does before it comes to this.
                let _either = unpack(Some(codec), &Bytes::from(damaged));
            }
        }
        assert_eq!(unpack(None, &Bytes::new()), Err(UnpackError::UnknownCodec));
    }

    #[test]
    fn a_small_batch_cannot_unpack_to_any_size() {
        let bytes_max = 1 << 20;
        let zeros = Bytes::from(vec![0; bytes_max + 1]);
        for codec in CODECS {
            let unpacked = |records: &Bytes| {
                let (_, packed) = pack(codec, records);
                unpack_within(Some(codec), &packed, bytes_max).map(|records| records.len())
            };
            assert_eq!(unpacked(&zeros), Err(UnpackError::TooLarge), "{codec:?}");
            assert_eq!(unpacked(&zeros.slice(1..)), Ok(bytes_max), "{codec:?}");
        }
        let claim = Bytes::from_static(&[0xff, 0xff, 0xff, 0x0f, 0]);
        assert!(unpack(Some(Compression::Snappy), &claim).is_err());
    }

    #[test]
    fn snappy_without_javas_frame_is_read() {
        let packed = snap::raw::Encoder::new().compress_vec(&text(500)).unwrap();
        assert_eq!(unpack(Some(Compression::Snappy), &Bytes::from(packed)).unwrap(), text(500));
    }
}
