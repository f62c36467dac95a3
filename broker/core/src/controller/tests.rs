//! The controller's rules (safety.md B3, B5, C1-C5, D6), each against literal effects.

mod growth;
mod moving;
mod preferred;
mod seat;

use std::collections::BTreeMap;

use client_protocol::ErrorCode;

use super::election::{Decision, Facts, Standing};
use super::tenure::{Leaving, Reports};
use super::*;
use crate::ids::{
    BrokerEpoch, BrokerId, ControllerEpoch, DirectoryId, Incarnation, LeaderEpoch, Offset,
    PartitionEpoch, PartitionId, TopicId, TopicPartition, Zxid,
};
use crate::image::{
    Applied, BrokerRegistration, FeedEvent, Identity, Image, ImageFeed, Item, ItemKind,
    PartitionState, Stat, TopicNode, json, path,
};
use crate::partition::ReplicaReport;
use crate::store::{Op, WriteOutcome};

fn id(n: i32) -> BrokerId {
    BrokerId::new(n)
}

fn topic_id(n: u8) -> TopicId {
    TopicId::from_bytes([n; 16])
}

fn key(partition: i32) -> TopicPartition {
    TopicPartition { topic: topic_id(1), partition: PartitionId::new(partition) }
}

/// A cluster's znodes, written one zxid at a time.
struct Nodes {
    feed: ImageFeed,
    zxid: i64,
    versions: BTreeMap<String, (i64, i32)>,
    applied: Applied,
}

impl Nodes {
    fn new() -> Self {
        let mut feed = ImageFeed::default();
        feed.apply(FeedEvent::SnapshotBegin { zxid: Zxid::new(1) });
        let applied = feed.apply(FeedEvent::SnapshotEnd { zxid: Zxid::new(1) }).expect("whole");
        Self { feed, zxid: 1, versions: BTreeMap::new(), applied }
    }

    fn image(&self) -> &Image {
        self.feed.image()
    }

    /// All in one zxid; no data: delete.
    fn put(&mut self, nodes: &[(String, Option<Vec<u8>>)]) -> &Applied {
        self.zxid += 1;
        let zxid = self.zxid;
        let items = nodes
            .iter()
            .map(|(path, data)| {
                let known = self.versions.get(path).copied();
                let Some(data) = data else {
                    self.versions.remove(path);
                    let (path, stat) = (path.clone(), Stat::default());
                    return Item { kind: ItemKind::Deleted, path, data: vec![], stat };
                };
                let (czxid, version) = known.map_or((zxid, 0), |(c, v)| (c, v + 1));
                self.versions.insert(path.clone(), (czxid, version));
                let stat = Stat { czxid: Zxid::new(czxid), mzxid: Zxid::new(zxid), version };
                let kind = if known.is_some() { ItemKind::Changed } else { ItemKind::Created };
                Item { kind, path: path.clone(), data: data.clone(), stat }
            })
            .collect();
        let event = FeedEvent::Changes { zxid: Zxid::new(zxid), items };
        self.applied = self.feed.apply(event).expect("new");
        self.feed.image().check();
        &self.applied
    }

    /// Replaces the registration, as a start does.
    fn register(&mut self, n: i32, lost: bool) -> &Applied {
        let registration = BrokerRegistration { endpoints: vec![], rack: None, timestamp_ms: 1 };
        let stored = self.image().identity(id(n)).cloned();
        let former = stored.as_ref().map(|s| s.identity.clone());
        let identity = Identity {
            incarnation: former.as_ref().map_or(Incarnation::new(1), |f| f.incarnation.next()),
            directories: vec![DirectoryId::new([u8::try_from(n).expect("small"); 16])],
            lost,
            lost_zxid: stored.map_or(Zxid::new(0), |s| s.lost_at()),
            boot_changed: false,
            boot_changed_zxid: Zxid::new(0),
        };
        let broker = path::broker(id(n));
        self.versions.remove(&broker);
        self.put(&[
            (path::identity(id(n)), Some(identity.encode())),
            (broker.clone(), None),
            (broker, Some(registration.encode())),
        ])
    }

    fn die(&mut self, n: i32) -> &Applied {
        self.put(&[(path::broker(id(n)), None)])
    }

    fn topic(&mut self, partitions: &[&[i32]]) -> &Applied {
        let assignment: BTreeMap<_, Vec<_>> = (0..)
            .zip(partitions)
            .map(|(p, r)| (PartitionId::new(p), r.iter().map(|&n| id(n)).collect()))
            .collect();
        let node = TopicNode { id: topic_id(1), partitions: assignment.clone() };
        let mut nodes = vec![(path::topic("t"), Some(node.encode()))];
        for (partition, replicas) in assignment {
            let state = state(Some(replicas[0].get()), 0, &ids(&replicas));
            nodes.push((path::state("t", partition), Some(state.encode())));
        }
        self.put(&nodes)
    }

    fn set_state(&mut self, partition: i32, state: &PartitionState) -> &Applied {
        self.put(&[(path::state("t", PartitionId::new(partition)), Some(state.encode()))])
    }
}

fn ids(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|b| b.get()).collect()
}

fn state(leader: Option<i32>, epoch: i32, isr: &[i32]) -> PartitionState {
    PartitionState {
        leader: leader.map(id),
        leader_epoch: LeaderEpoch::new(epoch),
        controller_epoch: ControllerEpoch::new(1),
        isr: isr.iter().map(|&n| id(n)).collect(),
        recovering: false,
    }
}

/// Brokers 1 to 3, one topic, the controller in office.
fn office(partitions: &[&[i32]]) -> (Nodes, Controller) {
    let mut nodes = Nodes::new();
    for n in 1..=3 {
        nodes.register(n, true);
    }
    nodes.topic(partitions);
    let mut controller =
        Controller::new(ControllerConfig { partitions: 1, replication_factor: 3, unclean: false });
    let mut effects = Vec::new();
    controller.image_applied(&nodes.applied, &mut effects);
    let zxid = nodes.image().complete_to();
    controller
        .elected(Election { epoch: ControllerEpoch::new(1), epoch_version: 7, zxid }, &mut effects);
    assert_eq!(effects, vec![]);
    assert!(controller.is_active());
    (nodes, controller)
}

fn epoch_check() -> Op {
    Op::Check { path: "/controller_epoch".to_owned(), version: 7 }
}

fn identity_check(n: i32, version: i32) -> Op {
    Op::Check { path: format!("/tidegate/brokers/{n}"), version }
}

fn set(partition: i32, version: i32, state: &PartitionState) -> Op {
    let path = format!("/brokers/topics/t/partitions/{partition}/state");
    Op::SetData { path, data: state.encode(), version }
}

fn apply(controller: &mut Controller, applied: &Applied) -> Vec<Effect> {
    let mut effects = Vec::new();
    controller.image_applied(applied, &mut effects);
    controller.check();
    effects
}

fn done(controller: &mut Controller, id: u64, zxid: i64) -> Vec<Effect> {
    let mut effects = Vec::new();
    controller.write_done(id, WriteOutcome::Done { zxid: Zxid::new(zxid) }, &mut effects);
    controller.check();
    effects
}

#[test]
fn broker_failure_elects_from_the_isr_in_one_multi() {
    let (mut nodes, mut controller) = office(&[&[1, 2, 3], &[2, 3, 1], &[3, 1]]);
    let effects = apply(&mut controller, nodes.die(1));
    assert_eq!(
        effects,
        vec![Effect::Write {
            id: 1,
            ops: vec![
                epoch_check(),
                identity_check(2, 0),
                identity_check(3, 0),
                set(0, 0, &state(Some(2), 1, &[2, 3])),
                set(1, 0, &state(Some(2), 0, &[2, 3])),
                set(2, 0, &state(Some(3), 0, &[3])),
            ],
        }]
    );
}

#[test]
fn a_partition_under_way_is_decided_again_only_when_the_image_shows_the_write() {
    let (mut nodes, mut controller) = office(&[&[1, 2, 3]]);
    assert_eq!(apply(&mut controller, nodes.die(1)).len(), 1);
    assert_eq!(apply(&mut controller, nodes.die(2)), vec![]);
    let written = nodes.zxid + 1;
    assert_eq!(done(&mut controller, 1, written), vec![]);
    let effects = apply(&mut controller, nodes.set_state(0, &state(Some(2), 1, &[2, 3])));
    assert_eq!(nodes.zxid, written);
    assert_eq!(
        effects,
        vec![Effect::Write {
            id: 2,
            ops: vec![epoch_check(), identity_check(3, 0), set(0, 1, &state(Some(3), 2, &[3])),],
        }]
    );
}

#[test]
fn a_conflict_is_taken_out_and_the_rest_sent_again_at_once() {
    let (mut nodes, mut controller) = office(&[&[1, 2, 3], &[1, 3, 2]]);
    apply(&mut controller, nodes.die(1));
    let mut effects = Vec::new();
    // Operations: epoch, identities of 2 and 3, state 0, state 1.
    let conflict = WriteOutcome::Conflict { at: 3, zxid: Zxid::new(nodes.zxid + 1) };
    controller.write_done(1, conflict, &mut effects);
    controller.check();
    let second = state(Some(3), 1, &[3, 2]);
    assert_eq!(
        effects,
        vec![Effect::Write {
            id: 2,
            ops: vec![
                epoch_check(),
                identity_check(2, 0),
                identity_check(3, 0),
                set(1, 0, &second)
            ],
        }]
    );
    // The one that conflicted is decided alone, from what it is now.
    let effects = apply(&mut controller, nodes.set_state(0, &state(Some(1), 0, &[1, 3])));
    assert_eq!(
        effects,
        vec![Effect::Write {
            id: 3,
            ops: vec![epoch_check(), identity_check(3, 0), set(0, 1, &state(Some(3), 1, &[3]))],
        }]
    );
}

#[test]
fn another_controllers_epoch_ends_the_office() {
    let (mut nodes, mut controller) = office(&[&[1, 2, 3]]);
    apply(&mut controller, nodes.die(1));
    let mut effects = Vec::new();
    controller.write_done(1, WriteOutcome::Conflict { at: 0, zxid: Zxid::new(99) }, &mut effects);
    assert_eq!(effects, vec![Effect::Resign]);
    assert!(!controller.is_elected());
}

#[test]
fn nothing_is_decided_before_the_image_reaches_the_election() {
    let mut nodes = Nodes::new();
    for n in 1..=3 {
        nodes.register(n, true);
    }
    nodes.topic(&[&[1, 2, 3]]);
    nodes.die(1);
    let mut controller =
        Controller::new(ControllerConfig { partitions: 1, replication_factor: 3, unclean: false });
    assert_eq!(apply(&mut controller, &nodes.applied), vec![]);
    let zxid = Zxid::new(nodes.zxid + 1);
    let mut effects = Vec::new();
    controller
        .elected(Election { epoch: ControllerEpoch::new(1), epoch_version: 7, zxid }, &mut effects);
    assert_eq!(effects, vec![]);
    controller.alter_partitions(5, alter(2, &nodes, 0, 0, &[2]), &mut effects);
    let refused = Answer::Altered(Err(ErrorCode::NotController));
    assert_eq!(effects, vec![Effect::Answer { request: 5, answer: refused }]);
    let effects = apply(&mut controller, nodes.put(&[]));
    assert!(matches!(effects.as_slice(), [Effect::Write { id: 1, .. }]));
}

#[test]
fn an_identity_that_changed_makes_every_decision_anew() {
    let (mut nodes, mut controller) = office(&[&[1, 2, 3], &[1, 3, 2]]);
    apply(&mut controller, nodes.die(1));
    let mut effects = Vec::new();
    let zxid = Zxid::new(nodes.zxid + 1);
    controller.write_done(1, WriteOutcome::Conflict { at: 1, zxid }, &mut effects);
    assert_eq!(effects, vec![]);
    // Broker 2 registered again and lost what it held.
    let effects = apply(&mut controller, nodes.register(2, true));
    assert_eq!(
        effects,
        vec![Effect::Write {
            id: 2,
            ops: vec![
                epoch_check(),
                identity_check(3, 0),
                set(0, 0, &state(Some(3), 1, &[3])),
                set(1, 0, &state(Some(3), 1, &[3])),
            ],
        }]
    );
}

#[test]
fn an_unknown_outcome_is_decided_from_what_the_image_shows_later() {
    let (mut nodes, mut controller) = office(&[&[1, 2, 3]]);
    apply(&mut controller, nodes.die(1));
    let mut effects = Vec::new();
    let zxid = Zxid::new(nodes.zxid + 2);
    controller.write_done(1, WriteOutcome::Unknown { zxid }, &mut effects);
    assert_eq!(effects, vec![]);
    let written = state(Some(2), 1, &[2, 3]);
    assert_eq!(apply(&mut controller, nodes.set_state(0, &written)), vec![]);
    assert_eq!(apply(&mut controller, nodes.put(&[])), vec![], "it was written: nothing to do");
}

#[test]
fn a_new_life_of_the_leader_bumps_the_leader_epoch() {
    // B5: others stayed, one of them leads; the broker joins again by catching up.
    let (mut nodes, mut controller) = office(&[&[1, 2, 3]]);
    let effects = apply(&mut controller, nodes.register(1, false));
    assert_eq!(
        effects,
        vec![Effect::Write {
            id: 1,
            ops: vec![
                epoch_check(),
                identity_check(2, 0),
                identity_check(3, 0),
                set(0, 0, &state(Some(2), 1, &[2, 3])),
            ],
        }]
    );
}

fn report(cut: bool) -> ReplicaReport {
    ReplicaReport {
        last_epoch: Some(LeaderEpoch::new(0)),
        end_offset: Offset::new(9),
        durable_end: Offset::new(9),
        cut_below_mark: cut,
    }
}

fn facts<'a>(nodes: &'a Nodes, reports: &'a Reports, leaving: &'a Leaving) -> Facts<'a> {
    Facts {
        image: nodes.image(),
        reports,
        leaving,
        memory: false,
        unclean: false,
        #[cfg(planted)]
        planted: None,
    }
}

#[test]
fn a_replica_that_came_back_is_asked_before_it_is_elected() {
    // C5, and B5 for the only replica.
    let (mut nodes, mut controller) = office(&[&[1]]);
    let effects = apply(&mut controller, nodes.register(1, false));
    let epoch = BrokerEpoch::new(nodes.zxid);
    let ask = Effect::Describe { broker: id(1), epoch, partitions: vec![key(0)] };
    assert_eq!(effects, vec![ask]);
    let mut effects = Vec::new();
    let reports = [PartitionReport { partition: key(0), report: Some(report(false)) }];
    controller.described(id(1), BrokerEpoch::new(1), &reports, &mut effects);
    assert_eq!(effects, vec![], "an answer of a former life does not count");
    controller.described(id(1), epoch, &reports, &mut effects);
    let elected = set(0, 0, &state(Some(1), 1, &[1]));
    assert_eq!(
        effects,
        vec![Effect::Write { id: 1, ops: vec![epoch_check(), identity_check(1, 1), elected] }]
    );
}

#[test]
fn a_replica_that_cut_below_its_mark_is_not_elected() {
    let (mut nodes, mut controller) = office(&[&[1]]);
    apply(&mut controller, nodes.register(1, false));
    let epoch = BrokerEpoch::new(nodes.zxid);
    let mut effects = Vec::new();
    let reports = [PartitionReport { partition: key(0), report: Some(report(true)) }];
    controller.described(id(1), epoch, &reports, &mut effects);
    assert_eq!(effects, vec![]);
}

#[test]
fn a_wiped_broker_is_ineligible_and_stays_so_over_restarts() {
    // B3.
    let (mut nodes, mut controller) = office(&[&[1]]);
    assert_eq!(apply(&mut controller, nodes.register(1, true)), vec![]);
    assert_eq!(apply(&mut controller, nodes.register(1, false)), vec![]);
    let stored = nodes.image().state("t", PartitionId::new(0)).expect("there");
    let (reports, leaving) = (Reports::default(), Leaving::new());
    let facts = facts(&nodes, &reports, &leaving);
    assert_eq!(facts.standing(key(0), id(1), stored), Standing::Void);
}

#[test]
fn the_last_in_sync_replica_goes_offline_and_comes_back() {
    let (mut nodes, mut controller) = office(&[&[1, 2]]);
    nodes.set_state(0, &state(Some(2), 4, &[2]));
    apply(&mut controller, &nodes.applied.clone());
    let effects = apply(&mut controller, nodes.die(2));
    let offline = state(None, 5, &[2]);
    assert_eq!(
        effects,
        vec![Effect::Write {
            id: 1,
            ops: vec![epoch_check(), identity_check(2, 0), set(0, 1, &offline)]
        }]
    );
    done(&mut controller, 1, nodes.zxid + 1);
    assert_eq!(apply(&mut controller, nodes.set_state(0, &offline)), vec![]);
    let effects = apply(&mut controller, nodes.register(2, false));
    assert!(matches!(effects.as_slice(), [Effect::Describe { broker, .. }] if *broker == id(2)));
}

#[test]
fn offline_without_eligible_member_is_left_alone() {
    let (mut nodes, _) = office(&[&[1, 2]]);
    nodes.set_state(0, &state(Some(2), 4, &[2]));
    nodes.register(2, true);
    let stored = nodes.image().state("t", PartitionId::new(0)).expect("there").clone();
    let (reports, leaving) = (Reports::default(), Leaving::new());
    let facts = facts(&nodes, &reports, &leaving);
    assert_eq!(facts.decide(key(0), &stored, &[id(1), id(2)]), Decision::Keep);
}

#[test]
fn a_changed_boot_voids_memory_topics_only() {
    let (mut nodes, _) = office(&[&[1]]);
    let stored = nodes.image().identity(id(1)).cloned().expect("there");
    let identity = Identity {
        incarnation: stored.identity.incarnation.next(),
        lost: false,
        lost_zxid: stored.lost_at(),
        boot_changed: true,
        ..stored.identity
    };
    nodes.put(&[(path::identity(id(1)), Some(identity.encode()))]);
    let stored = nodes.image().state("t", PartitionId::new(0)).expect("there");
    let (reports, leaving) = (Reports::default(), Leaving::new());
    for (memory, expected) in [(false, Standing::Stayed), (true, Standing::Void)] {
        let facts = Facts { memory, ..facts(&nodes, &reports, &leaving) };
        assert_eq!(facts.standing(key(0), id(1), stored), expected);
    }
}

/// Topic `t` with replicas 1, 2 and 3 and these settings, led by 1, which alone is in sync.
fn led_alone(settings: &str) -> (Nodes, Controller) {
    let (mut nodes, mut controller) = office(&[&[1, 2, 3]]);
    let config = format!(r#"{{"version":1,"config":{{{settings}}}}}"#);
    nodes.put(&[(path::topic_config("t"), Some(config.into_bytes()))]);
    apply(&mut controller, &nodes.applied.clone());
    nodes.set_state(0, &state(Some(1), 4, &[1]));
    apply(&mut controller, &nodes.applied.clone());
    (nodes, controller)
}

fn asked(effects: &[Effect]) -> Vec<(BrokerId, BrokerEpoch)> {
    let asked = |effect: &Effect| match effect {
        Effect::Describe { broker, epoch, .. } => Some((*broker, *epoch)),
        _ => None,
    };
    effects.iter().filter_map(asked).collect()
}

fn describe(
    controller: &mut Controller,
    (broker, epoch): (BrokerId, BrokerEpoch),
    last_epoch: i32,
    end_offset: i64,
) -> Vec<Effect> {
    let report = ReplicaReport {
        last_epoch: Some(LeaderEpoch::new(last_epoch)),
        end_offset: Offset::new(end_offset),
        ..report(false)
    };
    let mut effects = Vec::new();
    let reports = [PartitionReport { partition: key(0), report: Some(report) }];
    controller.described(broker, epoch, &reports, &mut effects);
    controller.check();
    effects
}

fn elected(effects: &[Effect]) -> Option<(&PartitionId, i64, Vec<u8>)> {
    let [Effect::UncleanElection { partition, report, .. }, Effect::Write { ops, .. }] = effects
    else {
        return None;
    };
    let Some(Op::SetData { data, .. }) = ops.last() else { return None };
    Some((partition, report.end_offset.get(), data.clone()))
}

const UNCLEAN: &str = r#""unclean.leader.election.enable":"true""#;

#[test]
fn unclean_election_takes_the_greatest_epoch_then_end_of_those_who_live() {
    let (mut nodes, mut controller) = led_alone(UNCLEAN);
    let effects = apply(&mut controller, nodes.die(1));
    let asked = asked(&effects);
    assert_eq!(asked.iter().map(|a| a.0.get()).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(describe(&mut controller, asked[0], 2, 90), vec![], "waits for the other answer");
    let effects = describe(&mut controller, asked[1], 3, 10);
    let expected = state(Some(3), 5, &[3]).encode();
    assert_eq!(elected(&effects), Some((&PartitionId::new(0), 10, expected)));
}

#[test]
fn a_topic_that_may_not_waits_until_its_settings_allow_it() {
    let (mut nodes, mut controller) = led_alone("");
    let effects = apply(&mut controller, nodes.die(1));
    assert!(asked(&effects).is_empty());
    let offline = state(None, 5, &[1]);
    assert!(
        matches!(&effects[..], [Effect::Write { ops, .. }] if *ops.last().unwrap() == set(0, 1, &offline))
    );
    done(&mut controller, 1, nodes.zxid + 1);
    assert_eq!(apply(&mut controller, nodes.set_state(0, &offline)), vec![]);
    let config = format!(r#"{{"version":1,"config":{{{UNCLEAN}}}}}"#).into_bytes();
    let effects = apply(&mut controller, nodes.put(&[(path::topic_config("t"), Some(config))]));
    let asked = asked(&effects);
    describe(&mut controller, asked[0], 4, 7);
    let effects = describe(&mut controller, asked[1], 4, 7);
    let expected = state(Some(2), 6, &[2]).encode();
    assert_eq!(elected(&effects), Some((&PartitionId::new(0), 7, expected)), "the first of equals");
}

#[test]
fn clean_elections_come_first_where_unclean_ones_are_allowed() {
    let (mut nodes, mut controller) = led_alone(UNCLEAN);
    nodes.set_state(0, &state(Some(1), 4, &[1, 3]));
    apply(&mut controller, &nodes.applied.clone());
    let effects = apply(&mut controller, nodes.die(1));
    assert!(matches!(&effects[..], [Effect::Write { ops, .. }]
        if *ops.last().unwrap() == set(0, 2, &state(Some(3), 5, &[3]))));
}

/// Broker `n` starts anew in a machine that was booted.
fn reboot(nodes: &mut Nodes, n: i32) {
    nodes.register(n, false);
    let stored = nodes.image().identity(id(n)).cloned().expect("there");
    let identity = Identity { boot_changed: true, ..stored.identity };
    nodes.put(&[(path::identity(id(n)), Some(identity.encode()))]);
}

#[test]
fn memory_topic_waits_for_all_that_were_in_sync_and_takes_the_greatest() {
    let (mut nodes, mut controller) = led_alone(r#""durability":"memory""#);
    let stored = state(Some(1), 4, &[1, 2]);
    nodes.set_state(0, &stored);
    apply(&mut controller, &nodes.applied.clone());
    // The power went for both, and one is back.
    nodes.put(&[(path::broker(id(1)), None), (path::broker(id(2)), None)]);
    nodes.versions.remove(&path::broker(id(1)));
    reboot(&mut nodes, 2);
    let image = nodes.image().clone();
    let (reports, leaving) = (Reports::default(), Leaving::new());
    let facts = |image, reports| Facts {
        image,
        reports,
        leaving: &leaving,
        memory: true,
        unclean: false,
        #[cfg(planted)]
        planted: None,
    };
    let replicas = [id(1), id(2), id(3)];
    let waiting = image.state("t", PartitionId::new(0)).expect("there").clone();
    assert_eq!(facts(&image, &reports).decide(key(0), &waiting, &replicas), Decision::Keep);
    reboot(&mut nodes, 1);
    let image = nodes.image().clone();
    let Decision::Ask(asked) = facts(&image, &reports).decide(key(0), &waiting, &replicas) else {
        panic!("all are back");
    };
    assert_eq!(asked.iter().map(|a| a.0.get()).collect::<Vec<_>>(), [1, 2]);
    let effects = apply(&mut controller, &nodes.applied.clone());
    assert_eq!(effects.len(), 2, "both are asked: {effects:?}");
    describe(&mut controller, asked[0], 4, 20);
    let effects = describe(&mut controller, asked[1], 4, 30);
    let expected = state(Some(2), 5, &[2]).encode();
    assert_eq!(elected(&effects), Some((&PartitionId::new(0), 30, expected)));
}

fn alter(
    broker: i32,
    nodes: &Nodes,
    leader_epoch: i32,
    partition_epoch: i32,
    isr: &[i32],
) -> AlterPartitions {
    let epoch = |n: i32| nodes.image().broker(id(n)).map_or(BrokerEpoch::new(0), |b| b.epoch);
    AlterPartitions {
        broker: id(broker),
        broker_epoch: epoch(broker),
        items: vec![AlterItem {
            partition: key(0),
            leader_epoch: LeaderEpoch::new(leader_epoch),
            partition_epoch: PartitionEpoch::new(partition_epoch),
            isr: isr.iter().map(|&n| (id(n), epoch(n))).collect(),
            recovering: false,
        }],
    }
}

fn altered(error: ErrorCode) -> Vec<Effect> {
    let answer = Answer::Altered(Ok(vec![AlteredPartition { partition: key(0), error }]));
    vec![Effect::Answer { request: 5, answer }]
}

#[test]
fn alter_partition_is_validated_in_kafkas_order() {
    let (mut nodes, mut controller) = office(&[&[1, 2, 3]]);
    let now = state(Some(1), 3, &[1, 2]);
    nodes.set_state(0, &state(Some(1), 3, &[1, 2, 3]));
    nodes.set_state(0, &now);
    apply(&mut controller, &nodes.applied.clone());
    let mut ask = |request: AlterPartitions| {
        let mut effects = Vec::new();
        controller.alter_partitions(5, request, &mut effects);
        controller.check();
        effects
    };
    let mut stale = alter(1, &nodes, 3, 2, &[1]);
    stale.broker_epoch = BrokerEpoch::new(1);
    let refused = Answer::Altered(Err(ErrorCode::StaleBrokerEpoch));
    assert_eq!(ask(stale), vec![Effect::Answer { request: 5, answer: refused }]);
    assert_eq!(ask(alter(1, &nodes, 3, 3, &[1])), altered(ErrorCode::NotController));
    assert_eq!(ask(alter(1, &nodes, 4, 2, &[1])), altered(ErrorCode::NotController));
    assert_eq!(ask(alter(1, &nodes, 2, 2, &[1])), altered(ErrorCode::FencedLeaderEpoch));
    assert_eq!(ask(alter(2, &nodes, 3, 2, &[2])), altered(ErrorCode::InvalidRequest));
    assert_eq!(ask(alter(1, &nodes, 3, 1, &[2, 1])), altered(ErrorCode::None), "again");
    assert_eq!(ask(alter(1, &nodes, 3, 1, &[1])), altered(ErrorCode::InvalidUpdateVersion));
    assert_eq!(ask(alter(1, &nodes, 3, 2, &[1, 9])), altered(ErrorCode::InvalidRequest));
    assert_eq!(ask(alter(1, &nodes, 3, 2, &[2])), altered(ErrorCode::InvalidRequest));
    let mut dead = alter(1, &nodes, 3, 2, &[1, 2, 3]);
    dead.items[0].isr[2].1 = BrokerEpoch::new(1);
    assert_eq!(ask(dead), altered(ErrorCode::IneligibleReplica));
    let mut unknown = alter(1, &nodes, 3, 2, &[1]);
    unknown.items[0].partition.topic = topic_id(9);
    let answer = Answer::Altered(Ok(vec![AlteredPartition {
        partition: unknown.items[0].partition,
        error: ErrorCode::UnknownTopicId,
    }]));
    assert_eq!(ask(unknown), vec![Effect::Answer { request: 5, answer }]);
}

#[test]
fn a_granted_change_is_written_and_answered_by_code_only() {
    let (mut nodes, mut controller) = office(&[&[1, 2, 3]]);
    let mut effects = Vec::new();
    controller.alter_partitions(5, alter(1, &nodes, 0, 0, &[1, 3]), &mut effects);
    // While it is under way the next one waits.
    controller.alter_partitions(6, alter(1, &nodes, 0, 0, &[1]), &mut effects);
    assert_eq!(
        effects,
        vec![Effect::Write {
            id: 1,
            ops: vec![
                epoch_check(),
                identity_check(1, 0),
                identity_check(3, 0),
                set(0, 0, &state(Some(1), 0, &[1, 3])),
            ],
        }]
    );
    assert_eq!(done(&mut controller, 1, nodes.zxid + 1), altered(ErrorCode::None));
    let effects = apply(&mut controller, nodes.set_state(0, &state(Some(1), 0, &[1, 3])));
    let late = AlteredPartition { partition: key(0), error: ErrorCode::InvalidUpdateVersion };
    let answer = Answer::Altered(Ok(vec![late]));
    assert_eq!(effects, vec![Effect::Answer { request: 6, answer }]);
}

#[test]
fn the_present_state_at_the_present_version_is_written_again() {
    let (nodes, mut controller) = office(&[&[1, 2, 3]]);
    let mut effects = Vec::new();
    controller.alter_partitions(5, alter(1, &nodes, 0, 0, &[1, 2, 3]), &mut effects);
    assert!(matches!(effects.as_slice(), [Effect::Write { id: 1, ops }] if ops.len() == 5));
}

#[test]
fn a_leader_that_shuts_down_hands_over_and_leaves_the_isrs() {
    let (mut nodes, mut controller) = office(&[&[1, 2, 3], &[2, 1, 3], &[1]]);
    let epoch = nodes.image().broker(id(1)).expect("there").epoch;
    let mut effects = Vec::new();
    controller.controlled_shutdown(5, id(1), BrokerEpoch::new(1), &mut effects);
    let refused = Answer::ShutDown(Err(ErrorCode::StaleBrokerEpoch));
    assert_eq!(effects, vec![Effect::Answer { request: 5, answer: refused }]);
    effects.clear();
    controller.controlled_shutdown(6, id(1), epoch, &mut effects);
    let (first, second) = (state(Some(2), 1, &[2, 3]), state(Some(2), 0, &[2, 3]));
    assert_eq!(
        effects,
        vec![Effect::Write {
            id: 1,
            ops: vec![
                epoch_check(),
                identity_check(2, 0),
                identity_check(3, 0),
                set(0, 0, &first),
                set(1, 0, &second),
            ],
        }]
    );
    let both = vec![
        (path::state("t", PartitionId::new(0)), Some(first.encode())),
        (path::state("t", PartitionId::new(1)), Some(second.encode())),
    ];
    assert_eq!(apply(&mut controller, nodes.put(&both)), vec![]);
    // The only replica cannot move and is not counted.
    let answer = Answer::ShutDown(Ok(vec![]));
    assert_eq!(done(&mut controller, 1, nodes.zxid), vec![Effect::Answer { request: 6, answer }]);
}

fn new_topic(name: &str, partitions: i32, replication_factor: i16) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        id: topic_id(7),
        partitions: Some(partitions),
        replication_factor: Some(replication_factor),
        assignment: BTreeMap::new(),
        config: BTreeMap::new(),
    }
}

#[test]
fn a_topic_is_created_in_one_multi() {
    let (_, mut controller) = office(&[&[1, 2, 3]]);
    let mut effects = Vec::new();
    controller.create_topics(5, vec![new_topic("new", 1, 2)], false, &mut effects);
    let created = state(Some(2), 0, &[2, 1]);
    let node = TopicNode {
        id: topic_id(7),
        partitions: [(PartitionId::new(0), vec![id(2), id(1)])].into(),
    };
    let create = |path: &str, data: Vec<u8>| Op::Create { path: path.to_owned(), data };
    assert_eq!(
        effects,
        vec![Effect::Write {
            id: 1,
            ops: vec![
                epoch_check(),
                create("/config/topics/new", br#"{"version":1,"config":{}}"#.to_vec()),
                create("/brokers/topics/new", node.encode()),
                create("/brokers/topics/new/partitions", vec![]),
                create("/brokers/topics/new/partitions/0", vec![]),
                create("/brokers/topics/new/partitions/0/state", created.encode()),
            ],
        }]
    );
    let topic = CreatedTopic { id: topic_id(7), partitions: node.partitions };
    let answer = Answer::Created(vec![("new".to_owned(), Ok(topic))]);
    assert_eq!(done(&mut controller, 1, 99), vec![Effect::Answer { request: 5, answer }]);
}

#[test]
fn topics_that_cannot_be_are_refused() {
    let (_, mut controller) = office(&[&[1, 2, 3]]);
    let mut refused = |new: NewTopic| {
        let mut effects = Vec::new();
        controller.create_topics(5, vec![new], true, &mut effects);
        match effects.as_slice() {
            [Effect::Answer { answer: Answer::Created(topics), .. }] => {
                topics[0].1.as_ref().err().map(|refusal| refusal.error)
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(new_topic("fine", 3, 3)), None);
    assert_eq!(refused(new_topic("t", 1, 1)), Some(ErrorCode::TopicAlreadyExists));
    for name in ["", ".", "..", "a b", "a/b", "ä", &"x".repeat(250)] {
        let error = refused(new_topic(name, 1, 1));
        assert_eq!(error, Some(ErrorCode::InvalidTopicException), "{name}");
    }
    assert_eq!(refused(new_topic(&"x".repeat(249), 1, 1)), None);
    for partitions in [0, -1, 2_001] {
        let error = refused(new_topic("n", partitions, 1));
        assert_eq!(error, Some(ErrorCode::InvalidPartitions), "{partitions}");
    }
    assert_eq!(refused(new_topic("n", 2_000, 1)), None);
    for factor in [0, -2, 4] {
        let error = refused(new_topic("n", 1, factor));
        assert_eq!(error, Some(ErrorCode::InvalidReplicationFactor), "{factor}");
    }
    let mut config = new_topic("n", 1, 1);
    config.config.insert("durability".to_owned(), "tape".to_owned());
    assert_eq!(refused(config), Some(ErrorCode::InvalidConfig));
    let mut assigned = new_topic("n", 1, 1);
    assigned.assignment.insert(PartitionId::new(0), vec![id(1)]);
    assert_eq!(refused(assigned.clone()), Some(ErrorCode::InvalidRequest));
    assigned.partitions = None;
    assigned.replication_factor = None;
    assert_eq!(refused(assigned.clone()), None);
    assigned.assignment.insert(PartitionId::new(2), vec![id(1)]);
    assert_eq!(refused(assigned.clone()), Some(ErrorCode::InvalidReplicaAssignment));
    assigned.assignment = [(PartitionId::new(0), vec![id(1), id(1)])].into();
    assert_eq!(refused(assigned.clone()), Some(ErrorCode::InvalidReplicaAssignment));
    assigned.assignment = [(PartitionId::new(0), vec![id(9)])].into();
    assert_eq!(refused(assigned), Some(ErrorCode::InvalidReplicaAssignment));
}

#[test]
fn names_that_differ_in_dots_and_underscores_only_collide() {
    let (mut nodes, mut controller) = office(&[&[1]]);
    let node = TopicNode { id: topic_id(2), partitions: BTreeMap::new() };
    let applied = nodes.put(&[(path::topic("a.b"), Some(node.encode()))]).clone();
    apply(&mut controller, &applied);
    let mut effects = Vec::new();
    controller.create_topics(5, vec![new_topic("a_b", 1, 1)], true, &mut effects);
    let [Effect::Answer { answer: Answer::Created(topics), .. }] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    let error = topics[0].1.as_ref().err().map(|refusal| refusal.error);
    assert_eq!(error, Some(ErrorCode::InvalidTopicException));
}

#[test]
fn topics_of_one_request_are_spread_as_a_whole() {
    let (_, mut controller) = office(&[&[1, 2, 3]]);
    let topics = (0..31).map(|number| new_topic(&format!("new-{number}"), 1, 1)).collect();
    let mut effects = Vec::new();
    controller.create_topics(5, topics, true, &mut effects);
    let [Effect::Answer { answer: Answer::Created(topics), .. }] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    let mut leaders: BTreeMap<BrokerId, usize> = BTreeMap::new();
    for (_, created) in topics {
        let created = created.as_ref().expect("made");
        *leaders.entry(created.partitions[&PartitionId::new(0)][0]).or_default() += 1;
    }
    // Broker 1 leads one already; the others may differ by one.
    let leaders: Vec<_> = leaders.into_values().collect();
    assert_eq!(leaders, [10, 11, 10], "one broker leads the next request's too");
}

#[test]
fn assignment_spreads_leaders_and_replicas() {
    let (nodes, _) = office(&[&[1, 2, 3], &[1, 2, 3]]);
    let assignment = {
        let mut loads = assignment::Loads::of(nodes.image());
        assignment::assign(&mut loads, &BTreeMap::new(), 7, 2)
    };
    let mut leaders: BTreeMap<BrokerId, usize> = BTreeMap::new();
    let mut replicas: BTreeMap<BrokerId, usize> = BTreeMap::new();
    for partition in assignment.values() {
        *leaders.entry(partition[0]).or_default() += 1;
        assert_eq!(partition.len(), 2);
        assert_ne!(partition[0], partition[1]);
        for &replica in partition {
            *replicas.entry(replica).or_default() += 1;
        }
    }
    // Broker 1 leads two partitions of another topic already: the odd one goes elsewhere.
    assert_eq!(leaders.into_values().collect::<Vec<_>>(), vec![2, 3, 2]);
    let mut replicas: Vec<_> = replicas.into_values().collect();
    replicas.sort_unstable();
    assert_eq!(replicas, vec![4, 5, 5]);
}

#[test]
fn a_topic_goes_in_one_multi() {
    let (nodes, mut controller) = office(&[&[1, 2, 3]]);
    let mut effects = Vec::new();
    let named = |name: &str| MeantTopic { name: name.to_owned(), id: None };
    controller.delete_topics(5, vec![named("t"), named("x")], &mut effects);
    let delete = |path: &str| Op::Delete { path: path.to_owned(), version: None };
    assert_eq!(
        effects,
        vec![Effect::Write {
            id: 1,
            ops: vec![
                epoch_check(),
                delete("/brokers/topics/t/partitions/0/state"),
                delete("/brokers/topics/t/partitions/0"),
                delete("/brokers/topics/t/partitions"),
                delete("/brokers/topics/t"),
            ],
        }]
    );
    let effects = done(&mut controller, 1, nodes.zxid + 1);
    let [Effect::Answer { request: 5, answer: Answer::Deleted(topics) }] = effects.as_slice()
    else {
        panic!("{effects:?}")
    };
    assert_eq!(topics[0].0, "x");
    let unknown = topics[0].1.as_ref().err().map(|refusal| refusal.error);
    assert_eq!(unknown, Some(ErrorCode::UnknownTopicOrPartition));
    assert_eq!(topics[1], ("t".to_owned(), Ok(topic_id(1))));
}

#[test]
fn a_deletion_mark_deletes_the_topic_and_itself() {
    let (mut nodes, mut controller) = office(&[&[1]]);
    let applied = nodes.put(&[(path::deletion("t"), Some(vec![]))]).clone();
    let effects = apply(&mut controller, &applied);
    let [Effect::Write { id: 1, ops }] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(
        ops.last(),
        Some(&Op::Delete { path: "/admin/delete_topics/t".to_owned(), version: None })
    );
}

#[test]
fn a_creation_whose_reply_was_lost_is_not_made_twice() {
    let (mut nodes, mut controller) = office(&[&[1]]);
    let mut effects = Vec::new();
    controller.create_topics(5, vec![new_topic("new", 1, 1)], false, &mut effects);
    effects.clear();
    let zxid = Zxid::new(nodes.zxid + 1);
    controller.write_done(1, WriteOutcome::Unknown { zxid }, &mut effects);
    assert_eq!(effects, vec![]);
    let node =
        TopicNode { id: topic_id(7), partitions: [(PartitionId::new(0), vec![id(2)])].into() };
    let applied = nodes.put(&[(path::topic("new"), Some(node.encode()))]).clone();
    let effects = apply(&mut controller, &applied);
    assert!(matches!(effects.as_slice(), [Effect::Answer { request: 5, .. }]), "{effects:?}");
}

#[test]
fn losing_the_office_answers_everything_that_is_open() {
    let (mut nodes, mut controller) = office(&[&[1, 2, 3]]);
    let mut effects = Vec::new();
    controller.create_topics(4, vec![new_topic("new", 1, 1)], false, &mut effects);
    controller.alter_partitions(5, alter(1, &nodes, 0, 0, &[1, 3]), &mut effects);
    let epoch = nodes.image().broker(id(3)).expect("there").epoch;
    controller.controlled_shutdown(6, id(3), epoch, &mut effects);
    let more = MorePartitions { name: "t".to_owned(), count: 2, assignment: None };
    controller.create_partitions(7, vec![more], false, &mut effects);
    let applied = nodes
        .put(&[(path::CONTROLLER.to_owned(), Some(json::encode_controller(id(2), 1)))])
        .clone();
    let effects = apply(&mut controller, &applied);
    let requests: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Answer { request, .. } => Some(*request),
            _ => None,
        })
        .collect();
    assert_eq!(requests, vec![5, 4, 7, 6]);
    assert_eq!(effects.last(), Some(&Effect::Resign));
}
