//! The partition of `__consumer_offsets` as a shard's shell sees it, with replicas that may lose what they
//! have not all got.
//!
//! Called by: `world`. Calls: nothing. Invariant: only the leader of the newest epoch appends; what is
//! committed stays, in its order; of the rest a failover keeps a part from the front.

use broker_core::group::{LogRecord, WriteId};

use crate::sim::random::Random;

/// One batch in the log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Leader epoch under which it was written.
    pub epoch: u32,
    /// The shard's number of it.
    pub write: WriteId,
    /// What it holds.
    pub records: Vec<LogRecord>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Log {
    entries: Vec<Entry>,
    committed: usize,
    epoch: u32,
}

impl Log {
    /// The epoch of the leader that may append.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Appends, unless the writer's time is over.
    pub fn append(&mut self, epoch: u32, write: WriteId, records: Vec<LogRecord>) -> bool {
        if epoch == self.epoch {
            self.entries.push(Entry { epoch, write, records });
        }
        epoch == self.epoch
    }

    /// The replicas have some more of it; yields what is committed by that, in its order.
    pub fn replicate(&mut self, random: &mut Random) -> &[Entry] {
        let waiting = self.entries.len() - self.committed;
        let more = usize::try_from(random.below(waiting as u64 + 1)).expect("a small number");
        let before = self.committed;
        self.committed += more;
        &self.entries[before..self.committed]
    }

    /// Another replica leads: it has all that is committed, and perhaps some of the rest, which counts
    /// from now on.
    pub fn fail_over(&mut self, random: &mut Random) -> u32 {
        let waiting = self.entries.len() - self.committed;
        let kept = usize::try_from(random.below(waiting as u64 + 1)).expect("a small number");
        self.entries.truncate(self.committed + kept);
        self.committed = self.entries.len();
        self.epoch += 1;
        self.epoch
    }

    /// All that is committed.
    pub fn committed(&self) -> &[Entry] {
        &self.entries[..self.committed]
    }

    /// Something waits for the replicas.
    pub fn is_behind(&self) -> bool {
        self.committed < self.entries.len()
    }
}
