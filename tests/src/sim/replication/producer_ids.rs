//! Who wants to be told apart from all other producers: a process gives out ids, and takes blocks of them.
//!
//! Called by: `process`, `session`. Calls: broker-core's producer ids.
//! Invariant: one block is taken at a time; each id that is given is told to the ledger.

use broker_core::ids::BrokerId;
use broker_core::producer_ids::{Next, ProducerIds};
use broker_core::store::{Ask, Nodes, WriteOutcome};

use super::message::Outbox;
use super::process::Process;
use super::session::Purpose;
use super::settings::Settings;
use crate::sim::random::Random;

/// So few that a block has to be taken often.
const BLOCK_IDS: i64 = 2;

/// What a process knows of them.
pub struct Giving {
    ids: ProducerIds,
    is_taking: bool,
    random: Random,
}

impl Giving {
    pub fn new(id: BrokerId, seed: u64, settings: &Settings) -> Self {
        let ids = ProducerIds::new(id, BLOCK_IDS);
        #[cfg(planted)]
        let ids = ids.planted_with(settings.planted);
        let random = Random::new(seed ^ 0x7069_6473 ^ settings.ensemble_seed);
        Self { ids, is_taking: false, random }
    }
}

impl Process {
    /// At each tick: some producer may begin.
    pub(super) fn give_ids(&mut self, out: &mut Outbox) {
        if !self.settings.gives_ids || !self.giving.random.chance(1, 3) {
            return;
        }
        match self.giving.ids.take() {
            Some(id) => out.producer_ids.push(id),
            None if self.giving.is_taking => {}
            None => {
                self.giving.is_taking = true;
                let next = self.giving.ids.begin();
                self.go_on_taking(next, out);
            }
        }
    }

    pub(super) fn ids_found(&mut self, nodes: &Nodes, out: &mut Outbox) {
        let next = self.giving.ids.found(nodes);
        self.go_on_taking(next, out);
    }

    pub(super) fn ids_written(&mut self, outcome: WriteOutcome, out: &mut Outbox) {
        let next = self.giving.ids.written(outcome);
        self.go_on_taking(next, out);
    }

    /// A question was not answered, and will not be: whoever waits asks again later.
    pub(super) fn stop_taking(&mut self) {
        self.giving.is_taking = false;
    }

    fn go_on_taking(&mut self, next: Next, out: &mut Outbox) {
        match next {
            Next::Ask(ask) => {
                let purpose = Purpose::ProducerIds { writes: matches!(ask, Ask::Write(_)) };
                self.ask(purpose, ask.into(), out);
            }
            Next::Taken => {
                out.decided.push("producer ids Taken");
                self.giving.is_taking = false;
                out.producer_ids.extend(self.giving.ids.take());
            }
            // Others were faster.
            Next::Refused(_) => self.giving.is_taking = false,
        }
    }
}
