//! The lanes of one topic, and which of them a record takes.
//!
//! *Called by* `producer`. *Calls* `lane`, `partitioner`.
//!
//! Invariant: a record with a key goes where Kafka's own client sends it; records without one go to one partition until
//! its batch is closed, then to another.

use client_protocol::PartitionId;

use super::lane::Lane;
use crate::partitioner::partition_for_key;

#[derive(Debug)]
pub(super) struct Topic<T> {
    lanes: Vec<Lane<T>>,
    sticky: usize,
}

impl<T> Default for Topic<T> {
    fn default() -> Self {
        Self { lanes: Vec::new(), sticky: 0 }
    }
}

impl<T: Clone> Topic<T> {
    pub(super) fn partitions(&self) -> usize {
        self.lanes.len()
    }

    /// Partitions are added, never taken away.
    pub(super) fn grow(&mut self, partitions: usize) {
        let more = partitions.saturating_sub(self.lanes.len());
        self.lanes.extend((0..more).map(|_| Lane::default()));
    }

    pub(super) fn lane(&self, partition: PartitionId) -> Option<&Lane<T>> {
        self.lanes.get(usize::try_from(partition.get()).ok()?)
    }

    pub(super) fn lane_mut(&mut self, partition: PartitionId) -> Option<&mut Lane<T>> {
        self.lanes.get_mut(usize::try_from(partition.get()).ok()?)
    }

    pub(super) fn lanes(&self) -> impl Iterator<Item = &Lane<T>> {
        self.lanes.iter()
    }

    pub(super) fn lanes_mut(&mut self) -> impl Iterator<Item = &mut Lane<T>> {
        self.lanes.iter_mut()
    }

    /// Partitions for which something waits or is under way.
    pub(super) fn used_partitions(&self) -> impl Iterator<Item = PartitionId> {
        let numbered = self.lanes.iter().zip(0i32..);
        numbered.filter(|(lane, _)| !lane.is_empty()).map(|(_, number)| PartitionId::new(number))
    }

    /// The partition for a record of `bytes`, where a batch takes `bytes_max`; `None` when there is no such one.
    pub(super) fn choose(
        &mut self,
        asked: Option<PartitionId>,
        key: Option<&[u8]>,
        (bytes, bytes_max): (usize, usize),
        random: &mut u64,
    ) -> Option<PartitionId> {
        let index = match (asked, key) {
            (Some(partition), _) => usize::try_from(partition.get()).ok()?,
            (None, Some(key)) => {
                let partitions = u32::try_from(self.lanes.len()).ok()?;
                usize::try_from(partition_for_key(key, partitions)).ok()?
            }
            (None, None) => self.sticky((bytes, bytes_max), random),
        };
        (index < self.lanes.len()).then_some(())?;
        i32::try_from(index).ok().map(PartitionId::new)
    }

    fn sticky(&mut self, (bytes, bytes_max): (usize, usize), random: &mut u64) -> usize {
        let lane = self.lanes.get_mut(self.sticky);
        let has_room = |lane: &&mut Lane<T>| {
            let open = lane.open.as_ref();
            open.is_some_and(|open| open.builder.size().saturating_add(bytes) <= bytes_max)
        };
        let Some(full) = lane else { return 0 };
        if !has_room(&full) {
            full.close();
            // xorshift64: any spread will do, as long as a seed repeats it.
            *random ^= *random << 13;
            *random ^= *random >> 7;
            *random ^= *random << 17;
            let lanes = u64::try_from(self.lanes.len()).unwrap_or(1);
            let chosen = random.checked_rem(lanes).and_then(|lane| usize::try_from(lane).ok());
            let chosen = chosen.unwrap_or_default();
            // Not the same one again, where there are others.
            let chosen = if chosen == self.sticky { chosen.saturating_add(1) } else { chosen };
            self.sticky = if chosen < self.lanes.len() { chosen } else { 0 };
        }
        self.sticky
    }
}
