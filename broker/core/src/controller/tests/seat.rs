//! The way into office and out of it.

use super::*;
use crate::ids::{Millis, SessionId};
use crate::store::{Ask, Node, Nodes as Found};

const OURS: SessionId = SessionId::new(7);
const CONTROLLER: &str = "/controller";
const EPOCH: &str = "/controller_epoch";

/// Broker 1 sits here, of three that are registered.
struct Scene {
    nodes: Nodes,
    seat: Seat,
}

impl Scene {
    fn new() -> Self {
        let mut nodes = Nodes::new();
        nodes.put(&[(EPOCH.to_owned(), Some(b"4".to_vec()))]);
        for n in 1..=3 {
            nodes.register(n, true);
        }
        let config = ControllerConfig { partitions: 1, replication_factor: 3, unclean: false };
        let balance = Balance { interval_ms: 60_000, percentage: 10 };
        Self { nodes, seat: Seat::new(config, Some(balance)) }
    }

    fn step(&mut self, act: impl FnOnce(&mut Seat, &mut Vec<Effect>)) -> Vec<Effect> {
        let mut effects = Vec::new();
        act(&mut self.seat, &mut effects);
        self.seat.check();
        effects
    }

    fn show(&mut self) -> Vec<Effect> {
        let applied = self.nodes.applied.clone();
        self.step(|seat, effects| seat.image_applied(&applied, effects))
    }

    fn put(&mut self, path: &str, data: Option<Vec<u8>>) -> Vec<Effect> {
        self.nodes.put(&[(path.to_owned(), data)]);
        self.show()
    }

    /// Broker `n` takes the office, as the ensemble has it.
    fn takes_office(&mut self, n: i32, epoch: i32) -> Vec<Effect> {
        self.nodes.put(&[
            (CONTROLLER.to_owned(), Some(json::encode_controller(id(n), 0))),
            (EPOCH.to_owned(), Some(epoch.to_string().into_bytes())),
        ]);
        self.show()
    }

    fn sit(&mut self) -> Vec<Effect> {
        let epoch = self.nodes.image().broker(id(1)).expect("registered").epoch;
        let sitter = Sitter { broker: id(1), session: OURS, epoch };
        self.step(|seat, effects| seat.registered(sitter, effects))
    }

    fn written(&mut self, outcome: WriteOutcome) -> Vec<Effect> {
        self.step(|seat, effects| seat.written(outcome, effects))
    }

    fn tick(&mut self, now: u64) -> Vec<Effect> {
        self.step(|seat, effects| seat.tick(Millis::new(now), 0, effects))
    }

    /// What it found when it read `/controller`.
    fn holder(&mut self, owner: Option<SessionId>) -> Vec<Effect> {
        let node = owner.map(|owner| Node {
            data: json::encode_controller(id(1), 0),
            version: 0,
            czxid: Zxid::new(self.nodes.zxid),
            mzxid: Zxid::new(self.nodes.zxid),
            owner: Some(owner),
        });
        let found: Found = node.map(|node| (CONTROLLER.to_owned(), node)).into_iter().collect();
        let zxid = Zxid::new(self.nodes.zxid);
        self.step(|seat, effects| seat.found(&found, zxid, effects))
    }

    /// In office, with the image showing it.
    fn elected() -> Self {
        let mut scene = Self::new();
        scene.show();
        assert_eq!(scene.sit(), [stand(5, 0)]);
        let zxid = Zxid::new(scene.nodes.zxid + 1);
        let won = Election { epoch: ControllerEpoch::new(5), epoch_version: 1, zxid };
        assert_eq!(scene.written(WriteOutcome::Done { zxid }), [Effect::Won(won)]);
        assert_eq!(scene.takes_office(1, 5), []);
        assert!(scene.seat.controller().is_active());
        scene
    }
}

/// The election that raises the epoch to `epoch`, from the node's version.
fn stand(epoch: i32, version: i32) -> Effect {
    let data = json::encode_controller(id(1), 0);
    Effect::Ask(Ask::Write(vec![
        Op::CreateEphemeral { path: CONTROLLER.to_owned(), data },
        Op::SetData { path: EPOCH.to_owned(), data: epoch.to_string().into_bytes(), version },
    ]))
}

fn look() -> Effect {
    Effect::Ask(Ask::Read(vec![CONTROLLER.to_owned()]))
}

fn give_up() -> Effect {
    Effect::Ask(Ask::Write(vec![Op::Delete { path: CONTROLLER.to_owned(), version: Some(0) }]))
}

#[test]
fn broker_stands_once_the_image_shows_its_registration_and_nobody_in_office() {
    let mut scene = Scene::new();
    assert_eq!(scene.sit(), [], "the image shows nothing");
    assert_eq!(scene.show(), [stand(5, 0)]);
    assert_eq!(scene.tick(0), [], "one election at a time");

    let mut scene = Scene::new();
    scene.takes_office(2, 5);
    assert_eq!(scene.sit(), [], "somebody is in office");
    assert_eq!(scene.put(CONTROLLER, None), [stand(6, 1)]);

    let mut scene = Scene::new();
    scene.show();
    let former = BrokerEpoch::new(1);
    let sitter = Sitter { broker: id(1), session: OURS, epoch: former };
    let effects = scene.step(|seat, effects| seat.registered(sitter, effects));
    assert_eq!(effects, [], "the registration in the image is another one");
}

#[test]
fn who_lost_waits_until_the_image_shows_why() {
    let mut scene = Scene::new();
    scene.show();
    scene.sit();
    let zxid = Zxid::new(scene.nodes.zxid + 2);
    assert_eq!(scene.written(WriteOutcome::Conflict { at: 1, zxid }), []);
    assert_eq!(scene.tick(0), []);
    // Somebody was in office, and went.
    assert_eq!(scene.takes_office(2, 5), []);
    assert_eq!(scene.put(CONTROLLER, None), [stand(6, 1)]);
}

#[test]
fn office_that_nobody_knows_of_is_given_up_and_stood_for_anew() {
    let mut scene = Scene::new();
    scene.show();
    scene.sit();
    let zxid = Zxid::new(scene.nodes.zxid + 1);
    assert_eq!(scene.written(WriteOutcome::Unknown { zxid }), []);
    // It went through.
    assert_eq!(scene.takes_office(1, 5), [look()]);
    assert!(!scene.seat.controller().is_elected());
    assert_eq!(scene.holder(Some(OURS)), [give_up()]);
    let zxid = Zxid::new(scene.nodes.zxid + 1);
    assert_eq!(scene.written(WriteOutcome::Done { zxid }), []);
    assert_eq!(scene.put(CONTROLLER, None), [stand(6, 1)]);
}

#[test]
fn office_of_another_session_is_not_given_up() {
    for owner in [None, Some(SessionId::new(6))] {
        let mut scene = Scene::new();
        scene.takes_office(1, 5);
        assert_eq!(scene.sit(), [look()]);
        assert_eq!(scene.holder(owner), []);
    }
}

#[test]
fn what_could_not_be_asked_is_asked_again() {
    let mut scene = Scene::new();
    scene.show();
    scene.sit();
    scene.seat.put_off();
    assert_eq!(scene.tick(0), [stand(5, 0)]);
}

#[test]
fn office_ends_when_its_node_is_deleted() {
    let mut scene = Scene::elected();
    // As operators do who want another controller.
    assert_eq!(scene.put(CONTROLLER, None), [Effect::Resign, stand(6, 1)]);
    assert!(!scene.seat.controller().is_elected());
}

#[test]
fn office_that_is_left_is_given_up() {
    let mut scene = Scene::elected();
    assert_eq!(scene.step(Seat::leave), [look()]);
    assert_eq!(scene.holder(Some(OURS)), [give_up()]);
}

#[test]
fn session_that_ends_takes_everything_with_it() {
    let mut scene = Scene::elected();
    assert_eq!(scene.step(Seat::session_over), []);
    assert!(!scene.seat.controller().is_elected());
    assert_eq!(scene.put(CONTROLLER, None), [], "nobody sits here");
    // Answers to what the former session asked.
    let zxid = Zxid::new(99);
    assert_eq!(scene.written(WriteOutcome::Done { zxid }), []);
    assert_eq!(scene.holder(Some(OURS)), []);
    assert_eq!(scene.sit(), [stand(6, 1)]);
}

#[test]
fn unreadable_epoch_is_left_to_who_mends_it() {
    let mut nodes = Nodes::new();
    nodes.register(1, true);
    let config = ControllerConfig { partitions: 1, replication_factor: 3, unclean: false };
    let mut scene = Scene { nodes, seat: Seat::new(config, None) };
    scene.show();
    assert_eq!(scene.sit(), [Effect::EpochMissing]);
    assert_eq!(scene.tick(0), [], "it is said once");
    assert_eq!(scene.put(EPOCH, Some(b"8".to_vec())), [stand(9, 0)]);
}

#[test]
fn leaders_are_brought_back_some_time_after_the_election_and_then_at_intervals() {
    let mut scene = Scene::new();
    scene.nodes.topic(&[&[2, 1, 3]]);
    scene.nodes.set_state(0, &state(Some(1), 3, &[1, 2, 3]));
    scene.tick(1_000);
    let zxid = Zxid::new(scene.nodes.zxid + 1);
    scene.show();
    scene.sit();
    scene.written(WriteOutcome::Done { zxid });
    scene.takes_office(1, 5);
    assert_eq!(scene.tick(5_999), []);
    let effects = scene.tick(6_000);
    assert!(matches!(effects.as_slice(), [Effect::Write { .. }]), "{effects:?}");
    assert_eq!(scene.tick(6_001), []);
}
