//! Operators who wait for a snapshot that they asked for.
//!
//! Called by: the core's task. Calls: nothing.
//! Invariant: who asks is told of a snapshot that holds at least what was applied then; so many wait at most.
//! Does not know: how a snapshot is written.

use std::path::PathBuf;

use coordinator_protocol::Zxid;
use tokio::sync::oneshot;

/// Operators that wait at once.
const WAITERS_MAX: usize = 16;

/// A snapshot on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotTaken {
    /// Its file.
    pub file: PathBuf,
    /// The file's length.
    pub bytes: u64,
    /// Last log index inside.
    pub index: u64,
    /// Last zxid inside.
    pub zxid: Zxid,
}

/// Where it is told; an error says why there is none.
pub type Answer = oneshot::Sender<Result<SnapshotTaken, String>>;

/// Those who wait, and what is on its way.
#[derive(Default)]
pub struct AskedSnapshots {
    waiters: Vec<(u64, Answer)>,
    saving: Option<(u64, Zxid)>,
}

impl AskedSnapshots {
    /// Waits for one that holds everything up to `index`. False if nobody more may wait, or there is nothing to save.
    pub fn wait(&mut self, index: u64, answer: Answer) -> bool {
        let refusal = match (index, self.waiters.len()) {
            (0, _) => "nothing was written yet",
            (_, WAITERS_MAX..) => "too many wait for a snapshot already",
            _ => {
                self.waiters.push((index, answer));
                return true;
            }
        };
        // Who asked may have gone.
        let _ = answer.send(Err(refusal.to_owned()));
        false
    }

    /// One begins to be written.
    pub fn begin(&mut self, index: u64, zxid: Zxid) {
        self.saving = Some((index, zxid));
    }

    /// The one as of `index` is on the disk, or is not: `found` looks at the file.
    pub fn end(&mut self, index: u64, found: impl FnOnce() -> Result<(PathBuf, u64), String>) {
        let Some((_, zxid)) = self.saving.take_if(|(saving, _)| *saving == index) else { return };
        if self.waiters.iter().all(|(wanted, _)| *wanted > index) {
            return;
        }
        let outcome = found().map(|(file, bytes)| SnapshotTaken { file, bytes, index, zxid });
        let (done, waiting) =
            std::mem::take(&mut self.waiters).into_iter().partition(|(wanted, _)| *wanted <= index);
        self.waiters = waiting;
        let done: Vec<(u64, Answer)> = done;
        for (_, answer) in done {
            let _ = answer.send(outcome.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Result<(PathBuf, u64), String> {
        Ok(("snapshot".into(), 7))
    }

    #[test]
    fn waiters_are_told_of_the_first_that_holds_what_they_want() {
        let mut asked = AskedSnapshots::default();
        let [mut early, mut late] = [5, 6].map(|index| {
            let (answer, told) = oneshot::channel();
            assert!(asked.wait(index, answer));
            told
        });
        asked.begin(5, Zxid::new(9));
        asked.end(4, || panic!("it is another's"));
        asked.end(5, file);
        let taken =
            SnapshotTaken { file: "snapshot".into(), bytes: 7, index: 5, zxid: Zxid::new(9) };
        assert_eq!(early.try_recv().unwrap(), Ok(taken));
        assert!(late.try_recv().is_err());
        asked.begin(8, Zxid::new(10));
        asked.end(8, || Err("full".into()));
        assert_eq!(late.try_recv().unwrap(), Err("full".into()));
    }

    #[test]
    fn so_many_may_wait_and_one_more_is_told_so() {
        let mut asked = AskedSnapshots::default();
        let mut told = Vec::new();
        for number in 0..=WAITERS_MAX {
            let (answer, waits) = oneshot::channel();
            assert_eq!(asked.wait(1, answer), number < WAITERS_MAX);
            told.push(waits);
        }
        assert!(told.pop().unwrap().try_recv().unwrap().is_err());
        let (answer, mut waits) = oneshot::channel();
        assert!(!AskedSnapshots::default().wait(0, answer));
        assert!(waits.try_recv().unwrap().is_err());
    }
}
