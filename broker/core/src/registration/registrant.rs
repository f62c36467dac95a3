//! The registration: one multi that replaces whatever a broker's number was (safety.md B1, B2).
//!
//! *Called by* the shell and the simulator, with every new session; locked and recovered directories come before it. *Calls* [`plan()`].
//! Invariants: the intended incarnation is in every directory, synced, before the multi is sent, and confirmed there before the broker is
//! called registered. A multi of which nobody knows whether it was done is looked up: it was when the node is this session's.

use crate::ids::{BrokerEpoch, BrokerId, Incarnation, SessionId};
use crate::image::{Identity, StoredIdentity, path};
use crate::store::{Ask, Node, Nodes, Op, WriteOutcome};

use super::plan::{DirectoryRecord, Held, Plan, SecondBroker, plan};

/// Why a broker may not be a member. Not to be tried again without a human.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Its number is taken.
    Second(SecondBroker),
    /// The identity node cannot be read, and says why: what the directories may be trusted with is unknown.
    Identity(String),
}

/// What is to be done next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Ask the ensemble; tell [`Registrant::found`] or [`Registrant::written`].
    Ask(Ask),
    /// Write this into every directory, synced; tell [`Registrant::recorded`].
    Record(DirectoryRecord),
    /// The broker is a member.
    Registered(BrokerEpoch),
}

#[derive(Clone, Debug)]
enum Step {
    /// What the ensemble holds is read. `sent`: a multi with this incarnation was sent, and nobody knows whether it was done.
    Reading {
        sent: Option<Incarnation>,
    },
    Recording {
        incarnation: Incarnation,
        ops: Vec<Op>,
    },
    Writing {
        incarnation: Incarnation,
    },
    Confirming {
        epoch: BrokerEpoch,
    },
}

/// One registration, under one session.
#[derive(Clone, Debug)]
pub struct Registrant {
    broker: BrokerId,
    session: SessionId,
    /// Content of `/brokers/ids/N`.
    registration: Vec<u8>,
    step: Step,
}

impl Registrant {
    /// Nothing is done yet; begin with [`Self::begin`].
    #[must_use]
    pub fn new(broker: BrokerId, session: SessionId, registration: Vec<u8>) -> Self {
        Self { broker, session, registration, step: Step::Reading { sent: None } }
    }

    /// Begins, or begins anew after a read that was not answered.
    #[must_use]
    pub fn begin(&self) -> Next {
        Next::Ask(Ask::Read(vec![
            path::identity(self.broker),
            path::broker(self.broker),
            path::CONTROLLER.to_owned(),
            path::CONTROLLER_EPOCH.to_owned(),
        ]))
    }

    /// The nodes were read.
    ///
    /// # Errors
    /// [`Refusal`]: this broker may not be a member.
    pub fn found(&mut self, nodes: &Nodes, held: &Held) -> Result<Next, Refusal> {
        let Step::Reading { sent } = self.step else { return Ok(self.again()) };
        let stored = nodes.get(&path::identity(self.broker)).map(stored_identity).transpose()?;
        let registered = nodes.get(&path::broker(self.broker));
        let incarnation = stored.as_ref().map(|stored| stored.identity.incarnation);
        let ours = registered.filter(|node| node.owner == Some(self.session));
        if let (Some(sent), Some(node)) = (sent, ours)
            && incarnation == Some(sent)
        {
            return Ok(self.confirm(sent, BrokerEpoch::new(node.czxid.get())));
        }
        let plan = plan(stored.as_ref(), held, registered.is_some()).map_err(Refusal::Second)?;
        let ops = self.ops(&plan, registered, nodes);
        self.step = Step::Recording { incarnation: plan.identity.incarnation, ops };
        Ok(Next::Record(plan.record))
    }

    /// What was to be written into the directories is there.
    pub fn recorded(&mut self) -> Next {
        match &mut self.step {
            Step::Recording { incarnation, ops } => {
                let (incarnation, ops) = (*incarnation, std::mem::take(ops));
                self.step = Step::Writing { incarnation };
                Next::Ask(Ask::Write(ops))
            }
            Step::Confirming { epoch } => Next::Registered(*epoch),
            Step::Reading { .. } | Step::Writing { .. } => self.again(),
        }
    }

    /// The multi ended.
    pub fn written(&mut self, outcome: WriteOutcome) -> Next {
        let Step::Writing { incarnation } = self.step else { return self.again() };
        match outcome {
            WriteOutcome::Done { zxid } => self.confirm(incarnation, BrokerEpoch::new(zxid.get())),
            // Somebody wrote in between: an ephemeral went, or a second broker came.
            WriteOutcome::Conflict { .. } => self.again(),
            WriteOutcome::Unknown { .. } => {
                self.step = Step::Reading { sent: Some(incarnation) };
                self.begin()
            }
        }
    }

    fn again(&mut self) -> Next {
        self.step = Step::Reading { sent: None };
        self.begin()
    }

    fn confirm(&mut self, incarnation: Incarnation, epoch: BrokerEpoch) -> Next {
        self.step = Step::Confirming { epoch };
        Next::Record(DirectoryRecord { confirmed: incarnation, intended: incarnation })
    }

    fn ops(&self, plan: &Plan, registered: Option<&Node>, nodes: &Nodes) -> Vec<Op> {
        let identity = (path::identity(self.broker), plan.identity.encode());
        let mut ops = vec![match (identity, plan.expected_version) {
            ((path, data), Some(version)) => Op::SetData { path, data, version },
            ((path, data), None) => Op::Create { path, data },
        }];
        let broker = path::broker(self.broker);
        if let Some(old) = registered {
            ops.push(Op::Delete { path: broker.clone(), version: Some(old.version) });
            // The office went with its life.
            let held = nodes.get(path::CONTROLLER).filter(|held| is_owner(held, old));
            if let (Some(held), Some(epoch)) = (held, nodes.get(path::CONTROLLER_EPOCH)) {
                let path = path::CONTROLLER_EPOCH.to_owned();
                ops.push(Op::Check { path, version: epoch.version });
                let path = path::CONTROLLER.to_owned();
                ops.push(Op::Delete { path, version: Some(held.version) });
            }
        }
        ops.push(Op::CreateEphemeral { path: broker, data: self.registration.clone() });
        ops
    }
}

fn is_owner(held: &Node, by: &Node) -> bool {
    held.owner.is_some() && held.owner == by.owner
}

fn stored_identity(node: &Node) -> Result<StoredIdentity, Refusal> {
    let identity =
        Identity::decode(&node.data).map_err(|malformed| Refusal::Identity(malformed.0))?;
    Ok(StoredIdentity { identity, version: node.version, mzxid: node.mzxid })
}

#[cfg(test)]
mod tests {
    use crate::ids::{DirectoryId, Zxid};

    use super::*;

    const BROKER: BrokerId = BrokerId::new(2);
    const OURS: SessionId = SessionId::new(7);
    const FORMER: SessionId = SessionId::new(6);

    fn directory() -> DirectoryId {
        DirectoryId::new([1; 16])
    }

    fn held(confirmed: u64, intended: u64) -> Held {
        Held {
            directories: [(directory(), Some(record(confirmed, intended)))].into(),
            boot_changed: false,
        }
    }

    fn record(confirmed: u64, intended: u64) -> DirectoryRecord {
        let [confirmed, intended] = [confirmed, intended].map(Incarnation::new);
        DirectoryRecord { confirmed, intended }
    }

    fn identity(incarnation: u64, directory: DirectoryId) -> Identity {
        Identity {
            incarnation: Incarnation::new(incarnation),
            directories: vec![directory],
            lost: false,
            lost_zxid: Zxid::default(),
            boot_changed: false,
            boot_changed_zxid: Zxid::default(),
        }
    }

    fn node(data: Vec<u8>, (version, zxid): (i32, i64), owner: Option<SessionId>) -> Node {
        Node { data, version, czxid: Zxid::new(zxid), mzxid: Zxid::new(zxid), owner }
    }

    /// The identity of the start before, with its registration if its session is there still.
    fn standing(registered: Option<SessionId>) -> Nodes {
        let mut nodes = Nodes::new();
        nodes
            .insert(path::identity(BROKER), node(identity(4, directory()).encode(), (3, 40), None));
        nodes.insert(path::CONTROLLER_EPOCH.to_owned(), node(b"9".to_vec(), (8, 30), None));
        if let Some(owner) = registered {
            nodes.insert(path::broker(BROKER), node(Vec::new(), (0, 41), Some(owner)));
        }
        nodes
    }

    fn registrant() -> Registrant {
        Registrant::new(BROKER, OURS, b"here".to_vec())
    }

    fn create() -> Op {
        Op::CreateEphemeral { path: path::broker(BROKER), data: b"here".to_vec() }
    }

    fn write_identity() -> Op {
        let data = identity(5, directory()).encode();
        Op::SetData { path: path::identity(BROKER), data, version: 3 }
    }

    /// To where the multi is sent; what it is.
    fn sent(registrant: &mut Registrant, nodes: &Nodes) -> Vec<Op> {
        let next = registrant.found(nodes, &held(4, 4));
        assert_eq!(next, Ok(Next::Record(record(4, 5))), "before anything is written there");
        let Next::Ask(Ask::Write(ops)) = registrant.recorded() else { panic!("it is recorded") };
        ops
    }

    #[test]
    fn intention_is_recorded_then_written_then_confirmed() {
        let mut registrant = registrant();
        assert_eq!(sent(&mut registrant, &standing(None)), [write_identity(), create()]);
        let next = registrant.written(WriteOutcome::Done { zxid: Zxid::new(50) });
        assert_eq!(next, Next::Record(record(5, 5)));
        assert_eq!(registrant.recorded(), Next::Registered(BrokerEpoch::new(50)));
    }

    #[test]
    fn office_of_the_former_life_goes_with_its_registration() {
        let mut nodes = standing(Some(FORMER));
        nodes.insert(path::CONTROLLER.to_owned(), node(Vec::new(), (2, 42), Some(FORMER)));
        let delete = |path: String, version| Op::Delete { path, version: Some(version) };
        let check = Op::Check { path: path::CONTROLLER_EPOCH.to_owned(), version: 8 };
        let office = delete(path::CONTROLLER.to_owned(), 2);
        let former = delete(path::broker(BROKER), 0);
        let ops = sent(&mut registrant(), &nodes);
        assert_eq!(ops, [write_identity(), former.clone(), check, office, create()]);

        let other = Some(SessionId::new(5));
        nodes.insert(path::CONTROLLER.to_owned(), node(Vec::new(), (2, 42), other));
        assert_eq!(sent(&mut registrant(), &nodes), [write_identity(), former, create()]);
    }

    #[test]
    fn lost_answer_is_looked_up() {
        let mut registrant = registrant();
        sent(&mut registrant, &standing(None));
        let unknown = WriteOutcome::Unknown { zxid: Zxid::new(60) };
        assert_eq!(registrant.written(unknown), registrant.begin());

        // It was done: the registration is this session's, with the incarnation that was sent.
        let mut done = standing(Some(OURS));
        done.insert(path::identity(BROKER), node(identity(5, directory()).encode(), (4, 41), None));
        let mut looked = registrant.clone();
        assert_eq!(looked.found(&done, &held(4, 5)), Ok(Next::Record(record(5, 5))));
        assert_eq!(looked.recorded(), Next::Registered(BrokerEpoch::new(41)));

        // It was not: it is sent again.
        let next = registrant.found(&standing(None), &held(4, 5));
        assert_eq!(next, Ok(Next::Record(record(4, 5))));
    }

    #[test]
    fn registration_of_this_session_that_is_not_the_one_sent_is_replaced() {
        let mut registrant = registrant();
        let ops = sent(&mut registrant, &standing(Some(OURS)));
        let former = Op::Delete { path: path::broker(BROKER), version: Some(0) };
        assert_eq!(ops, [write_identity(), former, create()]);
    }

    #[test]
    fn race_is_decided_by_what_is_there_then() {
        let mut registrant = registrant();
        sent(&mut registrant, &standing(Some(FORMER)));
        let conflict = WriteOutcome::Conflict { at: 1, zxid: Zxid::new(60) };
        assert_eq!(registrant.written(conflict), registrant.begin());
        // A registration that is this session's by chance is not taken for the one that was refused.
        let next = registrant.found(&standing(Some(OURS)), &held(4, 5));
        assert_eq!(next, Ok(Next::Record(record(4, 5))));
    }

    #[test]
    fn unreadable_identity_and_second_broker_are_refused() {
        let mut nodes = standing(Some(FORMER));
        let other = DirectoryId::new([9; 16]);
        nodes.insert(path::identity(BROKER), node(identity(4, other).encode(), (3, 40), None));
        let second = SecondBroker { registered: vec![other] };
        let refused = registrant().found(&nodes, &held(4, 4));
        assert_eq!(refused, Err(Refusal::Second(second)));
        nodes.insert(path::identity(BROKER), node(b"?".to_vec(), (3, 40), None));
        let refused = registrant().found(&nodes, &held(4, 4));
        assert!(matches!(refused, Err(Refusal::Identity(_))), "{refused:?}");
    }
}
