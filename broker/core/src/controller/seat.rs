//! A broker's way into the office and out of it: stands when nobody is controller, gives up what it holds and does not know of.
//!
//! *Called by* the shell's controller loop and the simulator; one for each session. *Calls* [`Controller`]. Invariants: it stands only while the
//! image shows its own registration, and only once the image shows what became of the last time; it is in office only while `/controller` is
//! the node of its own election. What nobody knows is not looked up: the image shows it, and an office that this broker holds without
//! knowing how is given up and stood for anew, so no two elections have one epoch.

use crate::ids::{BrokerEpoch, BrokerId, ControllerEpoch, Millis, SessionId, Zxid};
use crate::image::{Applied, Image, json, path};
use crate::store::{Ask, Nodes, Op, WriteOutcome};

use super::message::{Effect, Election};
use super::tenure::{Controller, ControllerConfig};

/// How long after its election a controller looks for leaders to bring back.
const FIRST_BALANCE_MS: u64 = 5_000;

/// How leaders are brought back by themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Balance {
    /// `leader.imbalance.check.interval.seconds`, in milliseconds.
    pub interval_ms: u64,
    /// `leader.imbalance.per.broker.percentage`
    pub percentage: u32,
}

/// Who sits here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sitter {
    /// The broker.
    pub broker: BrokerId,
    /// The session that this seat is for.
    pub session: SessionId,
    /// The registration under it.
    pub epoch: BrokerEpoch,
}

/// What was asked of the ensemble and is not answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Idle,
    /// The election was sent: with the epoch it raises to, and the node's version after it.
    Standing(ControllerEpoch, i32),
    /// `/controller` is read, to give it up.
    ReadingHolder,
    GivingUp,
}

/// The controller of a broker and its way into office.
#[derive(Clone, Debug)]
pub struct Seat {
    controller: Controller,
    balance: Option<Balance>,
    balance_at: Millis,
    /// What `/controller` says of when it was written, for humans: milliseconds since 1970.
    wall_ms: i64,
    image: Image,
    sitter: Option<Sitter>,
    elected_at: Zxid,
    /// Nothing is asked before the image has come so far.
    after: Zxid,
    step: Step,
    /// It was said that there is no epoch to raise.
    misses_epoch: bool,
}

impl Seat {
    /// Nobody sits here yet.
    #[must_use]
    pub fn new(config: ControllerConfig, balance: Option<Balance>) -> Self {
        Self {
            controller: Controller::new(config),
            balance,
            balance_at: Millis::default(),
            wall_ms: 0,
            image: Image::default(),
            sitter: None,
            elected_at: Zxid::default(),
            after: Zxid::default(),
            step: Step::Idle,
            misses_epoch: false,
        }
    }

    /// The controller itself, to be looked at.
    #[must_use]
    pub const fn controller(&self) -> &Controller {
        &self.controller
    }

    /// The controller itself, for requests and answers to its own effects.
    pub const fn controller_mut(&mut self) -> &mut Controller {
        &mut self.controller
    }

    /// The session has a registration: from here on the broker stands.
    pub fn registered(&mut self, sitter: Sitter, effects: &mut Vec<Effect>) {
        self.sitter = Some(sitter);
        self.consider(effects);
    }

    /// The session is over, and with it the office. What was asked is answered by nobody any more.
    pub fn session_over(&mut self, effects: &mut Vec<Effect>) {
        self.controller.deposed(effects);
        self.sitter = None;
        self.step = Step::Idle;
        self.after = Zxid::default();
    }

    /// The image moved on.
    pub fn image_applied(&mut self, applied: &Applied, effects: &mut Vec<Effect>) {
        self.image = applied.image.clone();
        self.controller.image_applied(applied, effects);
        let held = self.image.controller().is_some_and(|node| node.czxid == self.elected_at);
        // Somebody deleted the node: nobody is in office, this broker least of all.
        if self.controller.is_elected() && !held && self.image.complete_to() >= self.elected_at {
            self.controller.deposed(effects);
            effects.push(Effect::Resign);
        }
        self.consider(effects);
    }

    /// Time passes: what could not be asked is asked again, and leaders are brought back when it is time.
    pub fn tick(&mut self, now: Millis, wall_ms: i64, effects: &mut Vec<Effect>) {
        self.wall_ms = wall_ms;
        if !self.controller.is_active() {
            self.balance_at = now.plus(FIRST_BALANCE_MS);
        } else if let Some(balance) = self.balance
            && now >= self.balance_at
        {
            self.balance_at = now.plus(balance.interval_ms);
            self.controller.balance(balance.percentage, effects);
        }
        self.consider(effects);
    }

    /// What was read. `zxid`: it is as new as this.
    pub fn found(&mut self, nodes: &Nodes, zxid: Zxid, effects: &mut Vec<Effect>) {
        if self.step == Step::ReadingHolder {
            self.give_up(nodes, zxid, effects);
        }
    }

    /// The multi ended.
    pub fn written(&mut self, outcome: WriteOutcome, effects: &mut Vec<Effect>) {
        let step = std::mem::replace(&mut self.step, Step::Idle);
        match (step, outcome) {
            (Step::Standing(epoch, epoch_version), WriteOutcome::Done { zxid }) => {
                let election = Election { epoch, epoch_version, zxid };
                (self.elected_at, self.after) = (zxid, zxid);
                effects.push(Effect::Won(election));
                self.controller.elected(election, effects);
            }
            (
                Step::Standing(..) | Step::GivingUp,
                WriteOutcome::Done { zxid }
                | WriteOutcome::Conflict { zxid, .. }
                | WriteOutcome::Unknown { zxid },
            ) => {
                self.after = zxid;
                self.consider(effects);
            }
            (Step::Idle | Step::ReadingHolder, _) => {}
        }
    }

    /// What was asked could not be: it is considered anew with the next image or tick.
    pub fn put_off(&mut self) {
        self.step = Step::Idle;
    }

    /// This broker can no longer tell what became of the controller's writes: better begun anew, here or elsewhere.
    pub fn leave(&mut self, effects: &mut Vec<Effect>) {
        self.controller.deposed(effects);
        self.step = Step::Idle;
        self.consider(effects);
    }

    fn consider(&mut self, effects: &mut Vec<Effect>) {
        let Some(sitter) = self.sitter else { return };
        let shown = self.image.broker(sitter.broker).map(|broker| broker.epoch);
        if self.step != Step::Idle
            || self.controller.is_elected()
            || shown != Some(sitter.epoch)
            || self.image.complete_to() < self.after
        {
            return;
        }
        match self.image.controller() {
            None => self.stand(sitter, effects),
            // Nobody else can take it while this session lives.
            Some(node) if node.broker == sitter.broker => {
                self.step = Step::ReadingHolder;
                effects.push(Effect::Ask(Ask::Read(vec![path::CONTROLLER.to_owned()])));
            }
            Some(_) => {}
        }
    }

    fn stand(&mut self, sitter: Sitter, effects: &mut Vec<Effect>) {
        // Where it is missing or cannot be read, somebody has to mend it; the image shows that.
        let Some((last, version)) = self.image.controller_epoch() else {
            if !std::mem::replace(&mut self.misses_epoch, true) {
                effects.push(Effect::EpochMissing);
            }
            return;
        };
        self.misses_epoch = false;
        let epoch = ControllerEpoch::new(last.get().saturating_add(1));
        self.step = Step::Standing(epoch, version.saturating_add(1));
        let ops = vec![
            Op::CreateEphemeral {
                path: path::CONTROLLER.to_owned(),
                data: json::encode_controller(sitter.broker, self.wall_ms),
            },
            Op::SetData {
                path: path::CONTROLLER_EPOCH.to_owned(),
                data: json::encode_controller_epoch(epoch),
                version,
            },
        ];
        effects.push(Effect::Ask(Ask::Write(ops)));
    }

    fn give_up(&mut self, nodes: &Nodes, zxid: Zxid, effects: &mut Vec<Effect>) {
        self.step = Step::Idle;
        let Some(sitter) = self.sitter else { return };
        let held = nodes.get(path::CONTROLLER);
        let Some(held) = held.filter(|node| node.owner == Some(sitter.session)) else {
            self.after = zxid;
            return;
        };
        self.step = Step::GivingUp;
        let op = Op::Delete { path: path::CONTROLLER.to_owned(), version: Some(held.version) };
        effects.push(Effect::Ask(Ask::Write(vec![op])));
    }

    /// Its inequalities.
    ///
    /// # Panics
    /// When one does not hold.
    pub fn check(&self) {
        self.controller.check();
        assert!(
            !self.controller.is_elected() || self.sitter.is_some(),
            "nobody is in office without a session"
        );
    }
}
