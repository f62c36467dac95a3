//! What a leader writes beside the shares that it gives out, for static members that come back to theirs.
//!
//! *Called by* `request` and `answer`. *Calls* nothing. A static member that is started anew is given its former share
//! without a rebalance, and knows of the generation only what stands there. Other clients leave these bytes aside.
//!
//! ```text
//! "TGS" | version: 1 byte | flags: 1 | topics: 4 | then of each: length: 2, name, partitions: 4      big-endian
//! ```

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::assign::PartitionCounts;

const MAGIC: &[u8] = b"TGS\x01";
const IS_PARTIAL: u8 = 1;
const HAS_COUNTS: u8 = 2;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Note {
    /// Partitions wait for members that still have them: whoever lets them go joins again, and they are given out.
    pub is_partial: bool,
    /// In the leader's own share: how many partitions the topics had.
    pub shared_by: Option<PartitionCounts>,
}

impl Note {
    /// Its bytes; `None` when there is nothing to say.
    pub fn encode(&self) -> Option<Bytes> {
        if *self == Note::default() {
            return None;
        }
        let mut bytes = BytesMut::from(MAGIC);
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        bytes
            .put_u8(flag(self.is_partial, IS_PARTIAL) | flag(self.shared_by.is_some(), HAS_COUNTS));
        if let Some(counts) = &self.shared_by {
            bytes.put_u32(u32::try_from(counts.len()).ok()?);
            for (topic, count) in counts {
                bytes.put_u16(u16::try_from(topic.len()).ok()?);
                bytes.put_slice(topic.as_bytes());
                bytes.put_u32(u32::try_from(*count).ok()?);
            }
        }
        Some(bytes.freeze())
    }

    /// Reads them; nothing is known where they are another client's.
    pub fn decode(bytes: &[u8]) -> Note {
        read(bytes).unwrap_or_default()
    }
}

fn read(bytes: &[u8]) -> Option<Note> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let flags = rest.try_get_u8().ok()?;
    let mut note = Note { is_partial: flags & IS_PARTIAL != 0, shared_by: None };
    if flags & HAS_COUNTS != 0 {
        let mut counts = PartitionCounts::new();
        for _ in 0..rest.try_get_u32().ok()? {
            let (name, after) = {
                let length = usize::from(rest.try_get_u16().ok()?);
                rest.split_at_checked(length)?
            };
            rest = after;
            let count = usize::try_from(rest.try_get_u32().ok()?).ok()?;
            counts.insert(Arc::from(std::str::from_utf8(name).ok()?), count);
        }
        note.shared_by = Some(counts);
    }
    Some(note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back_as_they_were_written() {
        let counts = PartitionCounts::from([(Arc::from("a"), 3), (Arc::from("ä.b"), 0)]);
        for is_partial in [false, true] {
            for shared_by in [None, Some(PartitionCounts::new()), Some(counts.clone())] {
                let note = Note { is_partial, shared_by };
                let bytes = note.encode();
                assert_eq!(bytes.is_none(), note == Note::default());
                assert_eq!(Note::decode(&bytes.unwrap_or_default()), note);
            }
        }
    }

    #[test]
    fn bytes_of_others_say_nothing() {
        let note = Note {
            is_partial: true,
            shared_by: Some(PartitionCounts::from([(Arc::from("topic"), 3)])),
        };
        let whole = note.encode().unwrap();
        for end in 0..whole.len() {
            assert_eq!(Note::decode(&whole[..end]), Note::default(), "cut at {end}");
        }
        for bytes in [&b"partial"[..], &[0xff; 40], b"TGS\x01\x02\xff\xff\xff\xff"] {
            assert_eq!(Note::decode(bytes), Note::default());
        }
    }
}
