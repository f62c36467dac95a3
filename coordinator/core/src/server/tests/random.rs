//! Random kills, cuts and pauses under load: what was answered stays, once and in order.

use std::collections::BTreeMap;

use coordinator_protocol::{Request, Response, Xid};

use super::create;
use super::ensemble::{Ensemble, connect_request, member};
use crate::ConnectionId;

/// More of them when looking for trouble: 200 have passed.
const SEEDS: u64 = 5;

/// A small generator of our own: the seed is the whole test.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// One client: its sequential creates, in order.
#[derive(Default)]
struct Writer {
    connection: Option<ConnectionId>,
    sent: Vec<Xid>,
}

struct Story {
    ensemble: Ensemble,
    dice: Dice,
    down: Option<u64>,
    cut: Option<(u64, u64)>,
    frozen: Option<u64>,
    writers: Vec<Writer>,
    /// Paths answered, by writer, in order.
    answered: BTreeMap<usize, Vec<String>>,
}

impl Story {
    fn new(seed: u64) -> Self {
        // In every other run entries leave the memory before a snapshot has them.
        let ensemble = Ensemble::with(
            3,
            match seed % 2 {
                0 => |config| {
                    config.snapshot_entries = 40;
                    config.log_entries_kept = 5;
                    config.snapshot_chunk_bytes = 600;
                },
                _ => |config| {
                    config.snapshot_entries = 400;
                    (config.log_bytes_kept, config.log_bytes_kept_since) = (1_000, 1_000);
                    config.snapshot_chunk_bytes = 600;
                },
            },
        );
        let mut story = Self {
            ensemble,
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            down: None,
            cut: None,
            frozen: None,
            writers: (0..3).map(|_| Writer::default()).collect(),
            answered: BTreeMap::new(),
        };
        let leader = story.ensemble.await_leader();
        let id = story.ensemble.connect(leader, 10_000);
        for writer in 0..3 {
            story.ensemble.ask(id, create(&format!("/w{writer}"), 0)).unwrap();
        }
        story
    }

    fn trouble(&mut self) {
        match self.dice.roll(24) {
            0 if self.down.is_none() && self.frozen.is_none() => {
                let victim = self.dice.roll(3) + 1;
                self.ensemble.crash(member(victim));
                self.down = Some(victim);
            }
            1..=3 => self.restart(),
            4 if self.cut.is_none() && self.down.is_none() => {
                let a = self.dice.roll(3) + 1;
                let b = a % 3 + 1;
                let noticed = self.dice.roll(2) == 0;
                self.ensemble.cut_peers(member(a), member(b), noticed);
                self.cut = Some((a, b));
            }
            5..=7 => self.mend(),
            8 if self.frozen.is_none() && self.down.is_none() => {
                let victim = self.dice.roll(3) + 1;
                self.ensemble.freeze(member(victim), true);
                self.frozen = Some(victim);
            }
            9..=11 => self.thaw(),
            _ => {}
        }
    }

    fn restart(&mut self) {
        if let Some(id) = self.down.take() {
            self.ensemble.start(member(id));
        }
    }

    fn mend(&mut self) {
        if let Some((a, b)) = self.cut.take()
            && self.down.is_none()
        {
            self.ensemble.connect_peers(member(a), member(b));
        }
    }

    fn thaw(&mut self) {
        if let Some(id) = self.frozen.take() {
            self.ensemble.freeze(member(id), false);
        }
    }

    fn write(&mut self) {
        let number = usize::try_from(self.dice.roll(3)).unwrap();
        let home = self.dice.roll(3) + 1;
        let writer = &mut self.writers[number];
        let open = |id: &ConnectionId| !self.ensemble.clients[id].is_closed();
        match writer.connection.filter(open) {
            None => {
                self.collect(number);
                if self.down != Some(home) && self.frozen != Some(home) {
                    let id = self.ensemble.dial(member(home), connect_request(20_000));
                    self.writers[number].connection = Some(id);
                }
            }
            Some(id) if self.ensemble.clients[&id].got.is_empty() => {}
            Some(id)
                if self.frozen.is_none_or(|at| self.ensemble.clients[&id].server != member(at)) =>
            {
                let xid = self.ensemble.send(id, create(&format!("/w{number}/n"), 2));
                self.writers[number].sent.push(xid);
            }
            Some(_) => {}
        }
    }

    /// Takes down what a connection was answered, which must be a beginning of what it asked.
    fn collect(&mut self, number: usize) {
        let writer = std::mem::take(&mut self.writers[number]);
        let Some(id) = writer.connection else { return };
        let client = &self.ensemble.clients[&id];
        let answers: Vec<_> = writer.sent.iter().map(|xid| client.reply(*xid)).collect();
        let known = answers.iter().take_while(|answer| answer.is_some()).count();
        assert!(answers[known..].iter().all(Option::is_none), "an answer was skipped");
        for answer in answers.into_iter().flatten() {
            match answer {
                Ok(Response::Path(path)) => self.answered.entry(number).or_default().push(path),
                other => panic!("{other:?}"),
            }
        }
    }

    fn finish(mut self) {
        self.restart();
        self.mend();
        self.thaw();
        for (a, b) in [(1, 2), (2, 3), (3, 1)] {
            self.ensemble.connect_peers(member(a), member(b));
        }
        self.ensemble.run_ms(5_000);
        let leader = self.ensemble.await_leader();
        let id = self.ensemble.connect(leader, 10_000);
        self.ensemble.ask(id, Request::Sync("/".into())).unwrap();
        self.ensemble.run_ms(500);
        for number in 0..3 {
            self.collect(number);
        }
        let first = self.ensemble.server(member(1)).state().encode_snapshot();
        for other in [2, 3].map(member) {
            assert_eq!(self.ensemble.server(other).state().encode_snapshot(), first);
        }
        let tree = self.ensemble.server(leader).state().tree();
        for paths in self.answered.values() {
            assert!(paths.is_sorted(), "a session's writes changed places");
            for path in paths {
                assert!(tree.contains(path), "{path} was answered and is gone");
            }
        }
        assert_eq!(self.ensemble.halted, vec![]);
    }
}

#[test]
fn random_failures_lose_repeat_and_reorder_nothing() {
    for seed in 1..=SEEDS {
        println!("seed {seed}");
        let mut story = Story::new(seed);
        for _ in 0..400 {
            story.trouble();
            for _ in 0..story.dice.roll(4) {
                story.write();
            }
            let pause = story.dice.roll(40);
            story.ensemble.run_ms(pause);
        }
        story.finish();
    }
}
