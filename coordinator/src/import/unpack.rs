//! Snapshots that ZooKeeper packed (`snapshot.compression.method`).
//!
//! Called by: `snapshot`. Calls: flate2, snap.
//! Invariant: memory is bounded by one block, however much the file unpacks to.
//! Does not know: what is packed.
//!
//! Java's snappy streams have a header of their own, and blocks with their length before each:
//! ```text
//! | 0x82 "SNAPPY" 0 | version: 4 | compatible with: 4 | length: 4 | block | length: 4 | block | ...
//! ```

use std::io::{self, Read};

use super::folder::Packing;

const SNAPPY_MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
/// A packed block. Java packs 32 KiB at a time unless it is told otherwise.
const BLOCK_BYTES_MAX: usize = 32 << 20;

/// What `bytes` unpack to.
pub fn unpack<'a>(packing: Packing, bytes: Box<dyn Read + 'a>) -> Box<dyn Read + 'a> {
    match packing {
        Packing::Plain => bytes,
        Packing::Gzip => Box::new(io::BufReader::new(flate2::read::MultiGzDecoder::new(bytes))),
        Packing::Snappy => Box::new(Snappy::new(bytes)),
    }
}

struct Snappy<'a> {
    packed: Box<dyn Read + 'a>,
    began: bool,
    block: io::Cursor<Vec<u8>>,
}

impl<'a> Snappy<'a> {
    fn new(packed: Box<dyn Read + 'a>) -> Snappy<'a> {
        Snappy { packed, began: false, block: io::Cursor::new(Vec::new()) }
    }

    /// Unpacks the next block; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        if !self.began {
            let mut header = [0; 16];
            self.packed.read_exact(&mut header)?;
            if header[..8] != SNAPPY_MAGIC {
                return Err(wrong("not a snappy stream of Java's"));
            }
            self.began = true;
        }
        let mut length = [0; 4];
        let first = self.packed.read(&mut length[..1])?;
        if first == 0 {
            return Ok(false);
        }
        self.packed.read_exact(&mut length[1..])?;
        let length = u32::from_be_bytes(length) as usize;
        if length > BLOCK_BYTES_MAX {
            return Err(wrong("a block that is too long"));
        }
        let mut packed = Vec::new();
        (&mut self.packed).take(length as u64).read_to_end(&mut packed)?;
        if packed.len() < length {
            return Err(wrong("the stream ends within a block"));
        }
        let unpacked = snap::raw::decompress_len(&packed).map_err(io::Error::other)?;
        if unpacked > BLOCK_BYTES_MAX {
            return Err(wrong("a block that unpacks to too much"));
        }
        let block = snap::raw::Decoder::new().decompress_vec(&packed).map_err(io::Error::other)?;
        self.block = io::Cursor::new(block);
        Ok(true)
    }
}

impl Read for Snappy<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.block.read(buffer)?;
            if count > 0 || buffer.is_empty() || !self.advance()? {
                return Ok(count);
            }
        }
    }
}

fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(blocks: &[&[u8]]) -> Vec<u8> {
        let mut bytes = [&SNAPPY_MAGIC[..], &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
        for block in blocks {
            let block = snap::raw::Encoder::new().compress_vec(block).expect("packs");
            bytes.extend(u32::try_from(block.len()).expect("short").to_be_bytes());
            bytes.extend(block);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        unpack(Packing::Snappy, Box::new(bytes)).read_to_end(&mut all)?;
        Ok(all)
    }

    #[test]
    fn snappy_blocks_come_one_after_the_other() {
        let bytes = packed(&[b"one", b"", &[7; 100_000]]);
        let all = read(&bytes).expect("unpacks");
        assert_eq!(all, [&b"one"[..], &[7; 100_000]].concat());
    }

    #[test]
    fn cut_or_foreign_snappy_is_an_error() {
        let bytes = packed(&[b"some data", &[7; 1000]]);
        let whole = read(&bytes).expect("unpacks").len();
        for end in 0..bytes.len() {
            // Between blocks a cut is not seen here: the snapshot's own end is missing then.
            let outcome = read(&bytes[..end]);
            assert!(outcome.is_err() || outcome.is_ok_and(|all| all.len() < whole), "{end}");
        }
        assert!(read(b"PK\x03\x04 and something else").is_err());
        let mut long = bytes;
        long[16] = 0xff;
        assert!(read(&long).is_err());
    }
}
