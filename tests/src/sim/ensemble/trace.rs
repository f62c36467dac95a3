//! What happened in a run, as one number: equal for equal runs.
//!
//! Called by: `world`. Calls: nothing.
//! Invariant: every event and every effect goes in, with its time.

use super::schedule::Time;

/// Digest of a run (in the manner of FNV-1a, eight bytes at a time), and lines for people if wanted.
#[derive(Debug)]
pub struct Trace {
    digest: u64,
    events: u64,
    print: bool,
}

impl Trace {
    /// An empty run; `print` writes a line per event to standard output.
    pub fn new(print: bool) -> Self {
        Self { digest: 0xcbf2_9ce4_8422_2325, events: 0, print }
    }

    /// Takes note of an event.
    pub fn note(&mut self, time: Time, what: &str, numbers: &[u64], bytes: &[u8]) {
        self.events += 1;
        self.word(time);
        self.bytes(what.as_bytes());
        for number in numbers {
            self.word(*number);
        }
        self.bytes(bytes);
        if self.print {
            println!(
                "{:>9}.{:03} {what} {numbers:?} {} bytes",
                time / 1000,
                time % 1000,
                bytes.len()
            );
        }
    }

    /// A line for people only.
    pub fn say(&self, time: Time, line: impl FnOnce() -> String) {
        if self.print {
            println!("{:>9}.{:03} {}", time / 1000, time % 1000, line());
        }
    }

    /// The digest so far.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Takes what belongs to an event: it counts, and is no event of its own.
    pub fn take(&mut self, bytes: &[u8]) {
        self.bytes(bytes);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.word(u64::from_le_bytes(chunk.try_into().expect("eight bytes")));
        }
        let mut last = [0; 8];
        let rest = chunks.remainder();
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last) ^ bytes.len() as u64);
    }

    fn word(&mut self, word: u64) {
        self.digest = (self.digest ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }
}
