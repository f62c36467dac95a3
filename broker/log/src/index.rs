//! The sparse indexes of one segment: offset to position, and timestamp to offset.
//!
//! Called by: `segment` (building), `view` (look-ups), `recovery` (rebuilding). Calls: nothing.
//! Invariant: entries only grow, in both columns; encoded they are byte for byte Kafka's `.index`
//! and `.timeindex`. Knows no file and no batch.
//!
//! ```text
//! .log        |batch 0 .. 9|batch 10 .. 14|batch 15 .. 40|
//! position     0            300            450
//! .index                    (14, 300)      (40, 450)      the LAST offset of the batch at that position
//! ```

/// Bytes of one `.index` entry: relative offset i32, position i32.
pub const OFFSET_ENTRY_BYTES: usize = 8;
/// Bytes of one `.timeindex` entry: timestamp i64, relative offset i32.
pub const TIME_ENTRY_BYTES: usize = 12;

/// One entry of the offset index, offsets relative to the segment's base offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetEntry {
    /// Last offset of the batch that starts at `position`, minus the base offset.
    pub last_offset_delta: u32,
    /// Where that batch starts in the `.log` file.
    pub position: u32,
}

/// The offset index of one segment, whole in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffsetIndex {
    entries: Vec<OffsetEntry>,
}

/// One entry of the time index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeEntry {
    /// Greatest timestamp of the segment up to and with the batch that ends at the offset.
    pub timestamp: i64,
    /// Last offset of the batch that holds the timestamp, minus the base offset.
    pub last_offset_delta: u32,
}

/// The time index of one segment, whole in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeIndex {
    entries: Vec<TimeEntry>,
}

/// The bytes of an index are not those of an index: a length that is no multiple of the entry, or
/// entries that fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("index is damaged at entry {entry}")]
pub struct IndexDamage {
    /// Number of the first entry that cannot be right.
    pub entry: usize,
}

impl OffsetIndex {
    /// Adds an entry; entries that do not grow are ignored, as the segment adds one per batch at
    /// most and starts anew after truncation.
    pub fn push(&mut self, entry: OffsetEntry) {
        if self.entries.last().is_none_or(|last| {
            last.last_offset_delta < entry.last_offset_delta && last.position < entry.position
        }) {
            self.entries.push(entry);
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Position of a batch boundary from which a scan finds the batch that holds `offset_delta`:
    /// the greatest entry at or below it, or the segment's start.
    pub fn floor_by_offset(&self, offset_delta: u32) -> u32 {
        let after = self.entries.partition_point(|entry| entry.last_offset_delta <= offset_delta);
        after.checked_sub(1).and_then(|at| self.entries.get(at)).map_or(0, |entry| entry.position)
    }

    /// The greatest batch boundary that is at most `position` and before which every offset is
    /// below `limit_delta` (exclusive), if the index knows one.
    pub fn floor_by_position(&self, position: u32, limit_delta: u32) -> Option<u32> {
        // All offsets before an entry's batch are below the entry's last offset.
        let after = self.entries.partition_point(|entry| {
            entry.position <= position && entry.last_offset_delta < limit_delta
        });
        after.checked_sub(1).and_then(|at| self.entries.get(at)).map(|entry| entry.position)
    }

    /// Kafka's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len().saturating_mul(OFFSET_ENTRY_BYTES));
        for entry in &self.entries {
            bytes.extend_from_slice(&entry.last_offset_delta.to_be_bytes());
            bytes.extend_from_slice(&entry.position.to_be_bytes());
        }
        bytes
    }

    /// Reads Kafka's bytes back.
    ///
    /// # Errors
    /// [`IndexDamage`] when they cannot be an index; the caller rebuilds it from the log.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexDamage> {
        let (chunks, rest) = bytes.as_chunks::<OFFSET_ENTRY_BYTES>();
        let mut index = Self { entries: Vec::with_capacity(chunks.len()) };
        for (number, chunk) in chunks.iter().enumerate() {
            let [a, b, c, d, e, f, g, h] = *chunk;
            index.push(OffsetEntry {
                last_offset_delta: u32::from_be_bytes([a, b, c, d]),
                position: u32::from_be_bytes([e, f, g, h]),
            });
            if index.entries.len() != number.saturating_add(1) {
                return Err(IndexDamage { entry: number });
            }
        }
        if rest.is_empty() { Ok(index) } else { Err(IndexDamage { entry: chunks.len() }) }
    }
}

impl TimeIndex {
    /// Adds an entry if its timestamp is above the last one's.
    pub fn push(&mut self, entry: TimeEntry) {
        if self.entries.last().is_none_or(|last| {
            last.timestamp < entry.timestamp && last.last_offset_delta <= entry.last_offset_delta
        }) {
            self.entries.push(entry);
        }
    }

    /// An offset (as delta) from which a scan finds the first batch whose greatest timestamp is at
    /// least `timestamp`: every batch up to and with the entry's is below it.
    pub fn floor_by_timestamp(&self, timestamp: i64) -> u32 {
        let after = self.entries.partition_point(|entry| entry.timestamp < timestamp);
        after
            .checked_sub(1)
            .and_then(|at| self.entries.get(at))
            .map_or(0, |entry| entry.last_offset_delta)
    }

    /// Kafka's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len().saturating_mul(TIME_ENTRY_BYTES));
        for entry in &self.entries {
            bytes.extend_from_slice(&entry.timestamp.to_be_bytes());
            bytes.extend_from_slice(&entry.last_offset_delta.to_be_bytes());
        }
        bytes
    }

    /// Reads Kafka's bytes back.
    ///
    /// # Errors
    /// [`IndexDamage`] when they cannot be an index; the caller rebuilds it from the log.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexDamage> {
        let (chunks, rest) = bytes.as_chunks::<TIME_ENTRY_BYTES>();
        let mut index = Self { entries: Vec::with_capacity(chunks.len()) };
        for (number, chunk) in chunks.iter().enumerate() {
            let [a, b, c, d, e, f, g, h, i, j, k, l] = *chunk;
            index.push(TimeEntry {
                timestamp: i64::from_be_bytes([a, b, c, d, e, f, g, h]),
                last_offset_delta: u32::from_be_bytes([i, j, k, l]),
            });
            if index.entries.len() != number.saturating_add(1) {
                return Err(IndexDamage { entry: number });
            }
        }
        if rest.is_empty() { Ok(index) } else { Err(IndexDamage { entry: chunks.len() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> OffsetIndex {
        let mut index = OffsetIndex::default();
        index.push(OffsetEntry { last_offset_delta: 14, position: 300 });
        index.push(OffsetEntry { last_offset_delta: 40, position: 450 });
        index
    }

    #[test]
    fn offset_look_up_starts_at_or_before_the_batch() {
        let index = sample();
        for (offset, position) in [(0, 0), (13, 0), (14, 300), (39, 300), (40, 450), (90, 450)] {
            assert_eq!(index.floor_by_offset(offset), position, "offset {offset}");
        }
    }

    #[test]
    fn position_look_up_stays_below_the_limit_offset() {
        let index = sample();
        assert_eq!(index.floor_by_position(299, 100), None);
        assert_eq!(index.floor_by_position(300, 100), Some(300));
        assert_eq!(index.floor_by_position(10_000, 100), Some(450));
        assert_eq!(index.floor_by_position(10_000, 40), Some(300));
        assert_eq!(index.floor_by_position(10_000, 14), None);
    }

    #[test]
    fn encoded_indexes_are_kafkas_bytes() {
        let index = sample();
        assert_eq!(index.encode(), [0, 0, 0, 14, 0, 0, 1, 44, 0, 0, 0, 40, 0, 0, 1, 194]);
        assert_eq!(OffsetIndex::decode(&index.encode()), Ok(index));
        let mut time = TimeIndex::default();
        time.push(TimeEntry { timestamp: 258, last_offset_delta: 14 });
        assert_eq!(time.encode(), [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 14]);
        assert_eq!(TimeIndex::decode(&time.encode()), Ok(time));
    }

    #[test]
    fn damaged_indexes_are_refused() {
        let mut bytes = sample().encode();
        bytes.pop();
        assert_eq!(OffsetIndex::decode(&bytes), Err(IndexDamage { entry: 1 }));
        let zeros = [0u8; 16];
        assert_eq!(OffsetIndex::decode(&zeros), Err(IndexDamage { entry: 1 }));
        assert_eq!(TimeIndex::decode(&[0u8; 24]), Err(IndexDamage { entry: 1 }));
    }

    #[test]
    fn time_look_up_skips_only_older_batches() {
        let mut index = TimeIndex::default();
        index.push(TimeEntry { timestamp: 100, last_offset_delta: 9 });
        index.push(TimeEntry { timestamp: 200, last_offset_delta: 19 });
        index.push(TimeEntry { timestamp: 150, last_offset_delta: 29 });
        assert_eq!(index.entries.len(), 2);
        for (timestamp, delta) in [(50, 0), (100, 0), (101, 9), (200, 9), (201, 19)] {
            assert_eq!(index.floor_by_timestamp(timestamp), delta, "timestamp {timestamp}");
        }
    }
}
