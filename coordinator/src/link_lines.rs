//! Lines about links that come and go.
//!
//! Called by: the core's task. Calls: tracing.
//! Invariant: so many lines for each peer in a minute; those that are left out are counted, and told of with the next.
//! Does not know: why a link ended.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use coordinator_core::ServerId;
use tracing::info;

/// Lines for one peer...
const LINES_MAX: u32 = 10;
/// ...in this time.
const LINES_TIME: Duration = Duration::from_secs(60);

/// What was told of each peer.
#[derive(Debug, Default)]
pub struct LinkLines(BTreeMap<ServerId, Told>);

#[derive(Debug)]
struct Told {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl LinkLines {
    /// A link works, or does no more.
    pub fn tell(&mut self, peer: ServerId, is_up: bool) {
        let Some(left_out) = self.take(peer, Instant::now()) else { return };
        let state = if is_up { "up" } else { "lost" };
        match left_out {
            0 => info!(%peer, "link to peer is {state}"),
            left_out => {
                info!(%peer, left_out, "link to peer is {state}, after so many changes that are not told");
            }
        }
    }

    /// How many lines about this peer were left out, if there may be one now.
    fn take(&mut self, peer: ServerId, now: Instant) -> Option<u64> {
        let told = self.0.entry(peer).or_insert(Told { since: now, lines: 0, left_out: 0 });
        if now.saturating_duration_since(told.since) >= LINES_TIME {
            (told.since, told.lines) = (now, 0);
        }
        if told.lines == LINES_MAX {
            told.left_out = told.left_out.saturating_add(1);
            return None;
        }
        told.lines += 1;
        Some(std::mem::take(&mut told.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_that_comes_and_goes_all_the_time_is_told_in_part_and_counted() {
        let (mut lines, start) = (LinkLines::default(), Instant::now());
        let [one, two] = [1, 2].map(|id| ServerId::new(id).unwrap());
        let told: Vec<Option<u64>> =
            (0..1_243).map(|ms| lines.take(one, start + Duration::from_millis(ms))).collect();
        assert_eq!(told.iter().flatten().count(), LINES_MAX as usize);
        assert_eq!(lines.take(two, start), Some(0));
        assert_eq!(lines.take(one, start + LINES_TIME), Some(1_233));
        assert_eq!(lines.take(one, start + LINES_TIME), Some(0));
    }
}
