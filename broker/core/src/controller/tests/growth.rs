//! More partitions for a topic, against literal effects.

use super::*;
use crate::controller::growth::TOPIC_PARTITIONS_MAX;

fn wish(count: i32, assignment: Option<&[&[i32]]>) -> MorePartitions {
    let assigned = |chosen: &[&[i32]]| {
        chosen.iter().map(|replicas| replicas.iter().map(|&n| id(n)).collect()).collect()
    };
    MorePartitions { name: "t".to_owned(), count, assignment: assignment.map(assigned) }
}

fn grow(controller: &mut Controller, wish: MorePartitions) -> Vec<Effect> {
    let mut effects = Vec::new();
    controller.create_partitions(9, vec![wish], false, &mut effects);
    controller.check();
    effects
}

fn answered(effects: &[Effect]) -> ErrorCode {
    match effects {
        [Effect::Answer { request: 9, answer: Answer::Grown(topics) }] => match &topics[..] {
            [(name, Ok(()))] if name == "t" => ErrorCode::None,
            [(name, Err(refused))] if name == "t" => refused.error,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn grown_node(partitions: &[&[i32]]) -> Vec<u8> {
    let partitions = (0..)
        .zip(partitions)
        .map(|(p, r)| (PartitionId::new(p), r.iter().map(|&n| id(n)).collect()))
        .collect();
    TopicNode { id: topic_id(1), partitions }.encode()
}

#[test]
fn partitions_are_added_in_one_multi_that_rests_on_the_topic_node() {
    let (nodes, mut controller) = office(&[&[1, 2], &[2, 3]]);
    let effects = grow(&mut controller, wish(3, None));
    // Broker 3 leads nothing of the topic yet, and 1 holds less of it than 2.
    let state = state(Some(3), 0, &[3, 1]);
    let create = |path: String, data| Op::Create { path, data };
    let folder = "/brokers/topics/t/partitions/2";
    let ops = vec![
        epoch_check(),
        Op::SetData {
            path: "/brokers/topics/t".to_owned(),
            data: grown_node(&[&[1, 2], &[2, 3], &[3, 1]]),
            version: 0,
        },
        create(folder.to_owned(), vec![]),
        create(format!("{folder}/state"), state.encode()),
    ];
    assert_eq!(effects, vec![Effect::Write { id: 1, ops }]);
    assert_eq!(answered(&done(&mut controller, 1, nodes.zxid + 1)), ErrorCode::None);
}

#[test]
fn chosen_replicas_are_taken_in_the_order_of_the_new_partitions() {
    let (_, mut controller) = office(&[&[1, 2]]);
    let effects = grow(&mut controller, wish(3, Some(&[&[3, 1], &[2, 3]])));
    let [Effect::Write { ops, .. }] = effects.as_slice() else { panic!("{effects:?}") };
    let Op::SetData { data, .. } = &ops[1] else { panic!("{ops:?}") };
    assert_eq!(*data, grown_node(&[&[1, 2], &[3, 1], &[2, 3]]));
}

#[test]
fn what_is_no_growth_is_refused_with_kafkas_codes() {
    fn check(wish: MorePartitions, code: ErrorCode) {
        let (_, mut controller) = office(&[&[1, 2], &[2, 1]]);
        assert_eq!(answered(&grow(&mut controller, wish.clone())), code, "{wish:?}");
        let mut effects = Vec::new();
        controller.create_partitions(9, vec![wish], true, &mut effects);
        assert_eq!(answered(&effects), code, "only validated");
    }
    let limit = i32::try_from(TOPIC_PARTITIONS_MAX).expect("small");
    let at_once = i32::try_from(topic::NEW_PARTITIONS_MAX).expect("small");
    check(wish(2, None), ErrorCode::InvalidPartitions);
    check(wish(1, None), ErrorCode::InvalidPartitions);
    check(wish(-1, None), ErrorCode::InvalidPartitions);
    check(wish(limit + 1, None), ErrorCode::InvalidPartitions);
    check(wish(2 + at_once + 1, None), ErrorCode::InvalidPartitions);
    for assignment in
        [&[&[1, 2][..], &[2, 1]][..], &[], &[&[1, 1]], &[&[1]], &[&[1, 2, 3]], &[&[1, 9]]]
    {
        check(wish(3, Some(assignment)), ErrorCode::InvalidReplicaAssignment);
    }
    let unknown = MorePartitions { name: "u".to_owned(), ..wish(3, None) };
    let (_, mut controller) = office(&[&[1, 2]]);
    let effects = grow(&mut controller, unknown);
    let [Effect::Answer { answer: Answer::Grown(topics), .. }] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert!(
        matches!(&topics[..], [(_, Err(no))] if no.error == ErrorCode::UnknownTopicOrPartition)
    );
}

#[test]
fn what_makes_a_multi_too_large_for_the_coordinator_is_refused() {
    let created = |name: &str, partitions| {
        let (_, mut controller) = office(&[&[1, 2]]);
        let mut effects = Vec::new();
        let new = new_topic(name, partitions, 3);
        controller.create_topics(9, vec![new], false, &mut effects);
        controller.check();
        match effects.as_slice() {
            [Effect::Write { ops, .. }] => {
                assert!(topic::multi_bytes(ops) <= topic::MULTI_BYTES_MAX);
                Ok(())
            }
            [Effect::Answer { answer: Answer::Created(topics), .. }] => match &topics[..] {
                [(_, Err(refused))] => Err(refused.error),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    };
    let long = "n".repeat(topic::TOPIC_NAME_BYTES_MAX);
    assert_eq!(created("short", 2_000), Ok(()));
    assert_eq!(created(&long, 1_200), Ok(()));
    // By the bytes of its creation, and by those of its deletion.
    assert_eq!(created(&long, 1_600), Err(ErrorCode::InvalidPartitions));
    assert_eq!(created(&long, 2_000), Err(ErrorCode::InvalidPartitions));
    // What a topic may grow to is limited so as well.
    assert!(topic::can_be_deleted("t", 2_002) && !topic::can_be_deleted("t", TOPIC_PARTITIONS_MAX));
}

#[test]
fn as_many_as_fit_are_taken() {
    let at_once = i32::try_from(topic::NEW_PARTITIONS_MAX).expect("small");
    let (_, mut controller) = office(&[&[1, 2], &[2, 1]]);
    let effects = grow(&mut controller, wish(2 + at_once, None));
    assert!(matches!(effects.as_slice(), [Effect::Write { .. }]));
}

#[test]
fn growth_that_is_only_validated_writes_nothing() {
    let (_, mut controller) = office(&[&[1, 2]]);
    let mut effects = Vec::new();
    controller.create_partitions(9, vec![wish(4, None)], true, &mut effects);
    assert_eq!(answered(&effects), ErrorCode::None);
}

#[test]
fn too_few_brokers_for_the_topics_replicas_are_named() {
    let (mut nodes, mut controller) = office(&[&[1, 2, 3]]);
    apply(&mut controller, nodes.die(3));
    let refused = grow(&mut controller, wish(2, None));
    assert_eq!(answered(&refused), ErrorCode::InvalidReplicationFactor);
}

#[test]
fn a_growth_whose_reply_was_lost_is_not_made_twice() {
    let (mut nodes, mut controller) = office(&[&[1, 2]]);
    let effects = grow(&mut controller, wish(2, Some(&[&[2, 3]])));
    assert!(matches!(effects.as_slice(), [Effect::Write { id: 1, .. }]));
    let mut effects = Vec::new();
    let zxid = Zxid::new(nodes.zxid + 1);
    controller.write_done(1, WriteOutcome::Unknown { zxid }, &mut effects);
    assert_eq!(effects, vec![]);
    let grown = grown_node(&[&[1, 2], &[2, 3]]);
    let applied = nodes.put(&[(path::topic("t"), Some(grown))]).clone();
    assert_eq!(answered(&apply(&mut controller, &applied)), ErrorCode::None);
}

#[test]
fn a_growth_that_lost_against_another_one_is_judged_anew() {
    let (mut nodes, mut controller) = office(&[&[1, 2]]);
    grow(&mut controller, wish(2, Some(&[&[2, 3]])));
    let mut effects = Vec::new();
    let zxid = Zxid::new(nodes.zxid + 1);
    controller.write_done(1, WriteOutcome::Conflict { at: 1, zxid }, &mut effects);
    // Somebody else's tool gave it a second partition, elsewhere.
    let other = grown_node(&[&[1, 2], &[3, 1]]);
    let applied = nodes.put(&[(path::topic("t"), Some(other))]).clone();
    let refused = apply(&mut controller, &applied);
    assert_eq!(answered(&refused), ErrorCode::InvalidPartitions);
}

#[test]
fn a_growth_that_another_one_overtook_goes_on_behind_it() {
    let (mut nodes, mut controller) = office(&[&[1, 2]]);
    grow(&mut controller, wish(4, None));
    let mut effects = Vec::new();
    let zxid = Zxid::new(nodes.zxid + 1);
    controller.write_done(1, WriteOutcome::Conflict { at: 1, zxid }, &mut effects);
    let other = grown_node(&[&[1, 2], &[3, 1], &[2, 3]]);
    let applied = nodes.put(&[(path::topic("t"), Some(other))]).clone();
    let effects = apply(&mut controller, &applied);
    let [Effect::Write { ops, .. }] = effects.as_slice() else { panic!("{effects:?}") };
    let Op::SetData { data, version, .. } = &ops[1] else { panic!("{ops:?}") };
    assert_eq!(*version, 1);
    let node = TopicNode::decode(data).expect("a node");
    assert_eq!(node.partitions[&PartitionId::new(1)], vec![id(3), id(1)], "left alone");
    assert_eq!(node.partitions.len(), 4);
}

#[test]
fn a_topic_deleted_meanwhile_is_unknown() {
    let (mut nodes, mut controller) = office(&[&[1, 2]]);
    grow(&mut controller, wish(2, None));
    let mut effects = Vec::new();
    let zxid = Zxid::new(nodes.zxid + 1);
    controller.write_done(1, WriteOutcome::Conflict { at: 1, zxid }, &mut effects);
    let gone = [(path::state("t", PartitionId::new(0)), None), (path::topic("t"), None)];
    let applied = nodes.put(&gone).clone();
    let refused = apply(&mut controller, &applied);
    assert_eq!(answered(&refused), ErrorCode::UnknownTopicOrPartition);
}

#[test]
fn a_topic_that_grows_can_be_deleted() {
    let (_, mut controller) = office(&[&[1, 2]]);
    grow(&mut controller, wish(2, None));
    let mut effects = Vec::new();
    let topic = MeantTopic { name: "t".to_owned(), id: None };
    controller.delete_topics(10, vec![topic], &mut effects);
    assert!(matches!(effects.as_slice(), [Effect::Write { id: 2, .. }]), "{effects:?}");
}

/// Groups are looked for in the partition that their name hashes to.
#[test]
fn internal_topics_keep_the_number_of_their_partitions() {
    for name in ["__consumer_offsets", "__transaction_state"] {
        let (_, mut controller) = office(&[&[1, 2]]);
        let wish = MorePartitions { name: name.to_owned(), ..wish(4, None) };
        let effects = grow(&mut controller, wish);
        let [Effect::Answer { answer: Answer::Grown(topics), .. }] = &effects[..] else {
            panic!("{effects:?}");
        };
        let refused = topics[0].1.as_ref().map_err(|refused| refused.error);
        assert_eq!(refused, Err(ErrorCode::InvalidRequest), "{name}");
    }
}

#[test]
fn topics_that_grow_in_one_request_are_spread_as_a_whole() {
    let (mut nodes, mut controller) = office(&[&[1, 2]]);
    let names: Vec<String> = (0..30).map(|number| format!("like-{number}")).collect();
    for (name, number) in names.iter().zip(10..) {
        let partitions = BTreeMap::from([(PartitionId::new(0), vec![id(1)])]);
        let node = TopicNode { id: topic_id(number), partitions };
        let state = state(Some(1), 0, &[1]).encode();
        let applied = nodes.put(&[
            (path::topic(name), Some(node.encode())),
            (path::state(name, PartitionId::new(0)), Some(state)),
        ]);
        apply(&mut controller, applied);
    }
    let wishes = names.iter().map(|name| MorePartitions { name: name.clone(), ..wish(2, None) });
    let mut effects = Vec::new();
    controller.create_partitions(9, wishes.collect(), false, &mut effects);
    let mut leaders: BTreeMap<String, usize> = BTreeMap::new();
    for effect in &effects {
        let Effect::Write { ops, .. } = effect else { continue };
        let Some(Op::SetData { data, .. }) = ops.get(1) else { panic!("{ops:?}") };
        let node = TopicNode::decode(data).expect("ours");
        let leader = node.partitions[&PartitionId::new(1)][0];
        *leaders.entry(leader.to_string()).or_default() += 1;
    }
    assert_eq!(leaders.values().sum::<usize>(), 30);
    assert!(leaders.values().all(|led| *led >= 14), "{leaders:?}");
}
