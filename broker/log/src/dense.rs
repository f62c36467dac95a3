//! The end positions of the latest batches, so that a read near the log's end needs no scan.
//!
//! Called by: `view`. Calls: nothing.
//! Invariant: entries are the last batches of the active segment, contiguous, at most
//! [`DENSE_BATCHES_MAX`]; offsets and positions are relative to that segment.
//!
//! ```text
//! file     ....|batch a|batch b|batch c|
//! entries      (last offset of a, position of a) (b) (c)     end_position = behind c
//! ```

use std::collections::VecDeque;

/// Batches remembered per log; older ones are found through the sparse index.
pub const DENSE_BATCHES_MAX: usize = 8192;

#[derive(Clone, Copy, Debug)]
struct Entry {
    last_delta: u32,
    position: u32,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct DenseTail {
    entries: VecDeque<Entry>,
    end_position: u32,
    /// Last offset (as delta) before the first entry, below which this cannot answer.
    before_delta: Option<u32>,
}

/// Whole batches in the segment's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub position: u32,
    /// Bytes; 0 when nothing fits.
    pub length: u32,
    /// Whether batches below the limit follow.
    pub more: bool,
}

impl DenseTail {
    /// For a segment whose batches up to `last_delta` (inclusive), ending at `end_position`, are
    /// not remembered; `None` for an empty one.
    pub fn starting_behind(last_delta: Option<u32>, end_position: u32) -> Self {
        Self { entries: VecDeque::new(), end_position, before_delta: last_delta }
    }

    /// Adds the next batch.
    pub fn push(&mut self, last_delta: u32, position: u32, size_bytes: u32) {
        debug_assert_eq!(position, self.end_position, "batches are contiguous");
        if self.entries.len() >= DENSE_BATCHES_MAX
            && let Some(oldest) = self.entries.pop_front()
        {
            self.before_delta = Some(oldest.last_delta);
        }
        self.entries.push_back(Entry { last_delta, position });
        self.end_position = position.saturating_add(size_bytes);
    }

    /// The batches from the one that holds `offset` on, all below `limit` (exclusive) and within
    /// `bytes_max`; `None` when `offset` lies before what is remembered.
    pub fn span(
        &self,
        offset: u32,
        limit: u32,
        bytes_max: u32,
        at_least_one: bool,
    ) -> Option<Span> {
        if self.before_delta.is_some_and(|before| offset <= before) {
            return None;
        }
        let first = self.entries.partition_point(|entry| entry.last_delta < offset);
        let position = self.entries.get(first)?.position;
        let below_limit = self.entries.partition_point(|entry| entry.last_delta < limit);
        let reach = position.saturating_add(bytes_max);
        let within = if self.end_position <= reach {
            self.entries.len()
        } else {
            // The last entry at or below the reach begins there; those before it end there.
            self.entries.partition_point(|entry| entry.position <= reach).saturating_sub(1)
        };
        let minimum = if at_least_one { first.saturating_add(1) } else { first };
        let last = within.max(minimum).min(below_limit).max(first);
        let end = self.entries.get(last).map_or(self.end_position, |entry| entry.position);
        let length = end.saturating_sub(position);
        Some(Span { position, length, more: last < below_limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> DenseTail {
        let mut tail = DenseTail::default();
        tail.push(9, 0, 300);
        tail.push(14, 300, 150);
        tail.push(40, 450, 50);
        tail
    }

    fn check(
        offset: u32,
        limit: u32,
        bytes_max: u32,
        at_least_one: bool,
        expected: (u32, u32, bool),
    ) {
        let span = three().span(offset, limit, bytes_max, at_least_one).unwrap();
        assert_eq!((span.position, span.length, span.more), expected);
    }

    #[test]
    fn span_ends_on_a_batch() {
        check(0, 41, 1000, true, (0, 500, false));
        check(0, 41, 499, true, (0, 450, true));
        check(0, 41, 450, true, (0, 450, true));
        check(5, 41, 449, true, (0, 300, true));
        check(10, 41, 1000, true, (300, 200, false));
        check(40, 41, 1000, true, (450, 50, false));
    }

    #[test]
    fn first_batch_is_given_whole_or_not_at_all() {
        check(0, 41, 10, true, (0, 300, true));
        check(0, 41, 10, false, (0, 0, true));
    }

    #[test]
    fn limit_leaves_out_batches_above_it() {
        check(0, 15, 1000, true, (0, 450, false));
        check(0, 14, 1000, true, (0, 300, false));
        check(11, 14, 1000, true, (300, 0, false));
    }

    #[test]
    fn forgotten_batches_are_not_answered_for() {
        let mut tail = DenseTail::starting_behind(Some(9), 300);
        assert_eq!(tail.span(9, 100, 100, true), None);
        for number in 0..=DENSE_BATCHES_MAX as u32 {
            tail.push(10 + number, 300 + number * 10, 10);
        }
        assert_eq!(tail.span(10, u32::MAX, 10, true), None);
        assert_eq!(tail.span(11, u32::MAX, 10, true).map(|span| span.position), Some(310));
    }
}
