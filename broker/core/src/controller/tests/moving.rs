//! What is said of topics under way when the controller moves: asked again is only what was not done.

use super::*;

fn outcomes(effects: &[Effect]) -> Vec<(&str, ErrorCode)> {
    let answer = effects.iter().find_map(|effect| match effect {
        Effect::Answer { answer, .. } => Some(answer),
        _ => None,
    });
    fn codes<T>(topics: &[(String, Result<T, TopicRefusal>)]) -> Vec<(&str, ErrorCode)> {
        let code = |result: &Result<T, TopicRefusal>| match result {
            Ok(_) => ErrorCode::None,
            Err(refused) => refused.error,
        };
        topics.iter().map(|(name, result)| (name.as_str(), code(result))).collect()
    }
    match answer {
        Some(Answer::Created(topics)) => codes(topics),
        Some(Answer::Deleted(topics)) => codes(topics),
        other => panic!("{other:?}"),
    }
}

fn deposed(controller: &mut Controller) -> Vec<Effect> {
    let mut effects = Vec::new();
    controller.deposed(&mut effects);
    controller.check();
    effects
}

fn create(controller: &mut Controller, names: &[&str]) {
    let topics = names.iter().zip(7..).map(|(name, number)| {
        let mut topic = new_topic(name, 1, 1);
        topic.id = topic_id(number);
        topic
    });
    controller.create_topics(5, topics.collect(), false, &mut Vec::new());
}

fn meant(name: &str, id: Option<TopicId>) -> MeantTopic {
    MeantTopic { name: name.to_owned(), id }
}

#[test]
fn what_is_under_way_is_not_to_be_asked_again() {
    let (_, mut controller) = office(&[&[1]]);
    create(&mut controller, &["a"]);
    let effects = deposed(&mut controller);
    assert_eq!(outcomes(&effects), [("a", ErrorCode::RequestTimedOut)]);

    let (nodes, mut controller) = office(&[&[1]]);
    controller.delete_topics(5, vec![meant("t", None)], &mut Vec::new());
    let unknown = WriteOutcome::Unknown { zxid: Zxid::new(nodes.zxid + 1) };
    controller.write_done(1, unknown, &mut Vec::new());
    let effects = deposed(&mut controller);
    assert_eq!(outcomes(&effects), [("t", ErrorCode::RequestTimedOut)]);
}

#[test]
fn what_nothing_was_done_of_may_be_asked_again() {
    let (_, mut controller) = office(&[&[1]]);
    create(&mut controller, &["a"]);
    let mut effects = Vec::new();
    let conflict = WriteOutcome::Conflict { at: 0, zxid: Zxid::new(99) };
    controller.write_done(1, conflict, &mut effects);
    assert_eq!(outcomes(&effects), [("a", ErrorCode::NotController)]);
    assert_eq!(effects.last(), Some(&Effect::Resign));
    effects.clear();
    controller.delete_topics(6, vec![meant("t", None)], &mut effects);
    assert_eq!(outcomes(&effects), [("t", ErrorCode::NotController)]);
}

#[test]
fn of_a_request_that_is_half_done_nothing_is_to_be_asked_again() {
    let (nodes, mut controller) = office(&[&[1]]);
    create(&mut controller, &["a", "b"]);
    assert_eq!(done(&mut controller, 1, nodes.zxid + 1), vec![]);
    let mut effects = Vec::new();
    let conflict = WriteOutcome::Conflict { at: 0, zxid: Zxid::new(99) };
    controller.write_done(2, conflict, &mut effects);
    let expected = [("a", ErrorCode::None), ("b", ErrorCode::RequestTimedOut)];
    assert_eq!(outcomes(&effects), expected);

    let (_, mut controller) = office(&[&[1]]);
    create(&mut controller, &["a", "b"]);
    effects.clear();
    controller.write_done(2, conflict, &mut effects);
    let expected = [("a", ErrorCode::RequestTimedOut), ("b", ErrorCode::RequestTimedOut)];
    assert_eq!(outcomes(&effects), expected);
}

#[test]
fn a_namesake_of_the_topic_that_is_meant_is_not_deleted() {
    let (nodes, mut controller) = office(&[&[1]]);
    let mut effects = Vec::new();
    let former = Some(topic_id(9));
    let topics = vec![meant("t", former), meant("x", former)];
    controller.delete_topics(5, topics, &mut effects);
    let unknown = ErrorCode::UnknownTopicId;
    assert_eq!(outcomes(&effects), [("t", unknown), ("x", unknown)]);
    assert_eq!(effects.len(), 1, "nothing is written");
    effects.clear();
    // In whatever order it is named beside its id, the id counts.
    let topics = vec![meant("t", Some(topic_id(1))), meant("t", None)];
    controller.delete_topics(6, topics, &mut effects);
    assert!(matches!(effects.as_slice(), [Effect::Write { id: 1, .. }]), "{effects:?}");
    let effects = done(&mut controller, 1, nodes.zxid + 1);
    assert_eq!(outcomes(&effects), [("t", ErrorCode::None)]);
}
