//! Elections that were asked for, against literal effects.

use super::*;

/// One partition of replicas 1, 2 and 3 with this state, the controller in office, all brokers there.
fn with_state(state: &PartitionState) -> (Nodes, Controller) {
    let (mut nodes, mut controller) = office(&[&[1, 2, 3]]);
    let applied = nodes.set_state(0, state).clone();
    assert_eq!(apply(&mut controller, &applied), vec![]);
    (nodes, controller)
}

/// The same, and nobody leads: 3, the only one in sync, went away.
fn offline() -> (Nodes, Controller) {
    let (mut nodes, mut controller) = office(&[&[1, 2, 3]]);
    let applied = nodes
        .put(&[
            (path::state("t", PartitionId::new(0)), Some(state(None, 3, &[3]).encode())),
            (path::broker(id(3)), None),
        ])
        .clone();
    assert_eq!(apply(&mut controller, &applied), vec![]);
    (nodes, controller)
}

fn balance(controller: &mut Controller, percentage: u32) -> Vec<Effect> {
    let mut effects = Vec::new();
    controller.balance(percentage, &mut effects);
    controller.check();
    effects
}

fn elect(
    controller: &mut Controller,
    kind: ElectionKind,
    asked: Option<&[(&str, i32)]>,
) -> Vec<Effect> {
    let named = |&(topic, number): &(&str, i32)| (topic.to_owned(), PartitionId::new(number));
    let asked = asked.map(|asked| asked.iter().map(named).collect());
    let mut effects = Vec::new();
    controller.elect_leaders(8, kind, asked, &mut effects);
    controller.check();
    effects
}

fn results(effects: &[Effect]) -> Vec<(i32, ErrorCode)> {
    match effects {
        [Effect::Answer { request: 8, answer: Answer::Elected(Ok(results)) }] => {
            results.iter().map(|one| (one.partition.get(), one.error)).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// The write that makes 1 the leader of what 2 led.
fn brought_back() -> Vec<Effect> {
    let ops = vec![
        epoch_check(),
        identity_check(1, 0),
        identity_check(2, 0),
        set(0, 1, &state(Some(1), 4, &[2, 1])),
    ];
    vec![Effect::Write { id: 1, ops }]
}

#[test]
fn a_preferred_leader_in_sync_comes_back() {
    let (mut nodes, mut controller) = with_state(&state(Some(2), 3, &[2, 1]));
    assert_eq!(balance(&mut controller, 10), brought_back());
    let done = done(&mut controller, 1, nodes.zxid + 1);
    assert_eq!(done, vec![]);
    let applied = nodes.set_state(0, &state(Some(1), 4, &[2, 1])).clone();
    assert_eq!(apply(&mut controller, &applied), vec![]);
    assert_eq!(balance(&mut controller, 10), vec![], "it leads");
}

#[test]
fn one_that_is_not_in_sync_does_not() {
    let (_, mut controller) = with_state(&state(Some(2), 3, &[2, 3]));
    assert_eq!(balance(&mut controller, 0), vec![]);
}

#[test]
fn one_that_came_back_since_waits_until_it_is_in_sync_again() {
    let (mut nodes, mut controller) = office(&[&[1, 2, 3]]);
    apply(&mut controller, nodes.die(1));
    let led = state(Some(2), 1, &[2, 3]);
    let applied = nodes.set_state(0, &led).clone();
    apply(&mut controller, &applied);
    done(&mut controller, 1, nodes.zxid);
    apply(&mut controller, nodes.register(1, false));
    assert_eq!(balance(&mut controller, 10), vec![]);
    let applied = nodes.set_state(0, &state(Some(2), 1, &[2, 3, 1])).clone();
    apply(&mut controller, &applied);
    let effects = balance(&mut controller, 10);
    let [Effect::Write { ops, .. }] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(ops.last(), Some(&set(0, 2, &state(Some(1), 2, &[2, 3, 1]))));
}

#[test]
fn a_little_imbalance_is_left_alone() {
    let partitions: Vec<&[i32]> = vec![&[1, 2]; 10];
    let (mut nodes, mut controller) = office(&partitions);
    let applied = nodes.set_state(0, &state(Some(2), 3, &[2, 1])).clone();
    apply(&mut controller, &applied);
    assert_eq!(balance(&mut controller, 10), vec![], "one of ten");
    assert!(matches!(balance(&mut controller, 9).as_slice(), [Effect::Write { .. }]));
}

#[test]
fn nothing_is_brought_back_to_a_broker_that_shuts_down() {
    let (nodes, mut controller) = with_state(&state(Some(2), 3, &[2, 1]));
    let epoch = nodes.image().broker(id(1)).expect("there").epoch;
    let mut effects = Vec::new();
    controller.controlled_shutdown(6, id(1), epoch, &mut effects);
    assert_eq!(balance(&mut controller, 10), vec![]);
}

#[test]
fn a_preferred_election_is_answered_when_it_shows() {
    let (mut nodes, mut controller) = with_state(&state(Some(2), 3, &[2, 1]));
    let asked = elect(&mut controller, ElectionKind::Preferred, Some(&[("t", 0)]));
    assert_eq!(asked, brought_back());
    assert_eq!(done(&mut controller, 1, nodes.zxid + 1), vec![], "not seen yet");
    let applied = nodes.set_state(0, &state(Some(1), 4, &[2, 1])).clone();
    assert_eq!(results(&apply(&mut controller, &applied)), [(0, ErrorCode::None)]);
}

#[test]
fn what_cannot_or_need_not_be_elected_is_told_with_kafkas_codes() {
    let preferred = |state: &PartitionState, asked: &[(&str, i32)]| {
        let (_, mut controller) = with_state(state);
        results(&elect(&mut controller, ElectionKind::Preferred, Some(asked)))
    };
    let led = state(Some(1), 3, &[1, 2]);
    assert_eq!(preferred(&led, &[("t", 0)]), [(0, ErrorCode::ElectionNotNeeded)]);
    let unknown = ErrorCode::UnknownTopicOrPartition;
    assert_eq!(preferred(&led, &[("t", 1), ("u", 0)]), [(1, unknown), (0, unknown)]);
    let elsewhere = state(Some(2), 3, &[2, 3]);
    let refused = [(0, ErrorCode::PreferredLeaderNotAvailable)];
    assert_eq!(preferred(&elsewhere, &[("t", 0)]), refused);
    let (_, mut controller) = with_state(&led);
    let all = elect(&mut controller, ElectionKind::Preferred, None);
    assert_eq!(results(&all), [], "of all, only what was done");
    let unclean = elect(&mut controller, ElectionKind::Unclean, Some(&[("t", 0)]));
    assert_eq!(results(&unclean), [(0, ErrorCode::ElectionNotNeeded)]);
}

#[test]
fn an_operator_may_have_one_partition_elected_uncleanly_once() {
    let (mut nodes, mut controller) = offline();
    let effects = elect(&mut controller, ElectionKind::Unclean, Some(&[("t", 0)]));
    assert_eq!(asked(&effects).len(), 2, "{effects:?}");
    let mut effects = Vec::new();
    for n in [1, 2] {
        let epoch = nodes.image().broker(id(n)).expect("there").epoch;
        let report = PartitionReport { partition: key(0), report: Some(report(false)) };
        controller.described(id(n), epoch, &[report], &mut effects);
    }
    let write = effects.iter().find_map(|effect| match effect {
        Effect::Write { ops, .. } => ops.last().cloned(),
        _ => None,
    });
    assert_eq!(write, Some(set(0, 1, &state(Some(1), 4, &[1]))));
    let mut effects = done(&mut controller, 1, nodes.zxid + 1);
    let applied = nodes.set_state(0, &state(Some(1), 4, &[1])).clone();
    effects.extend(apply(&mut controller, &applied));
    assert_eq!(results(&effects), [(0, ErrorCode::None)]);
}

#[test]
fn without_anybody_there_an_unclean_election_finds_nobody() {
    let (mut nodes, mut controller) = offline();
    for n in 1..=2 {
        apply(&mut controller, nodes.die(n));
    }
    let effects = elect(&mut controller, ElectionKind::Unclean, Some(&[("t", 0)]));
    assert_eq!(results(&effects), [(0, ErrorCode::EligibleLeadersNotAvailable)]);
}

#[test]
fn the_brokers_word_on_unclean_elections_holds_where_the_topic_has_none() {
    for unclean in [false, true] {
        let (nodes, _) = offline();
        let config = ControllerConfig { partitions: 1, replication_factor: 3, unclean };
        let mut controller = Controller::new(config);
        apply(&mut controller, &nodes.applied);
        let zxid = nodes.image().complete_to();
        let mut effects = Vec::new();
        let epoch = ControllerEpoch::new(1);
        controller.elected(Election { epoch, epoch_version: 7, zxid }, &mut effects);
        assert_eq!(asked(&effects).len(), if unclean { 2 } else { 0 }, "{effects:?}");
    }
}
