//! Wire messages into what the controller is asked, and its answers back.
//!
//! Called by: `handle`, `forward`. Calls: nothing.
//! Invariant: an answer has an entry for everything that was asked.

use std::collections::BTreeMap;

use broker_core::controller::message::AlteredPartition;
use broker_core::controller::{
    AlterItem, AlterPartitions, Answer, CreatedTopic, Elected, ElectionKind, MeantTopic,
    MorePartitions, NewTopic, TopicRefusal,
};
use broker_core::ids::{
    BrokerEpoch, BrokerId, PartitionEpoch, PartitionId, TopicId, TopicPartition,
};
use broker_core::image::Image;
use client_protocol::ErrorCode;
use client_protocol::messages::alter_partition::{
    AlterPartitionPartitionResponse, AlterPartitionTopicResponse,
};
use client_protocol::messages::controlled_shutdown::RemainingPartition;
use client_protocol::messages::create_partitions::{
    CreatePartitionsTopic, CreatePartitionsTopicResult,
};
use client_protocol::messages::create_topics::{CreatableTopic, CreatableTopicResult};
use client_protocol::messages::delete_topics::DeletableTopicResult;
use client_protocol::messages::elect_leaders::{
    ELECTION_PREFERRED, ELECTION_UNCLEAN, ElectTopic, PartitionElectionResult,
    ReplicaElectionResult,
};
use client_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, ControlledShutdownResponse,
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, ElectLeadersRequest, ElectLeadersResponse,
};

use super::random;

/// What the controller's loop is asked.
#[derive(Debug)]
pub(super) enum Ask {
    Create { topics: Vec<NewTopic>, validate_only: bool },
    Grow { wishes: Vec<MorePartitions>, validate_only: bool },
    Delete { names: Vec<MeantTopic> },
    Elect { kind: ElectionKind, asked: Option<Vec<(String, PartitionId)>> },
    Alter(AlterPartitions),
    ShutDown { broker: BrokerId, epoch: BrokerEpoch },
}

pub(super) fn new_topics(request: &CreateTopicsRequest) -> std::io::Result<Ask> {
    let topics = request.topics.iter().map(new_topic).collect::<std::io::Result<_>>()?;
    Ok(Ask::Create { topics, validate_only: request.validate_only })
}

fn new_topic(topic: &CreatableTopic) -> std::io::Result<NewTopic> {
    let assigned = topic.assignments.iter();
    let settings = topic.configs.iter();
    Ok(NewTopic {
        name: topic.name.clone(),
        id: TopicId::from_bytes(random::bytes()?),
        partitions: (topic.num_partitions >= 0).then_some(topic.num_partitions),
        replication_factor: (topic.replication_factor >= 0).then_some(topic.replication_factor),
        assignment: assigned.map(|one| (one.partition_index, one.broker_ids.clone())).collect(),
        config: settings.filter_map(|one| Some((one.name.clone(), one.value.clone()?))).collect(),
    })
}

pub(super) fn created(
    request: &CreateTopicsRequest,
    answer: Option<Answer>,
) -> CreateTopicsResponse {
    let mut results = match answer {
        Some(Answer::Created(results)) => results.into_iter().collect(),
        _ => BTreeMap::new(),
    };
    let result = |topic: &CreatableTopic| match results.remove(&topic.name) {
        Some(Ok(created)) => created_topic(topic, &created),
        Some(Err(refusal)) => not_created(topic, refusal.error, refusal.message),
        None => not_created(topic, ErrorCode::NotController, "no controller".to_owned()),
    };
    let topics = request.topics.iter().map(result).collect();
    CreateTopicsResponse { topics, ..Default::default() }
}

fn created_topic(topic: &CreatableTopic, created: &CreatedTopic) -> CreatableTopicResult {
    let replicas = created.partitions.values().next().map_or(0, Vec::len);
    CreatableTopicResult {
        name: topic.name.clone(),
        topic_id: Some(created.id),
        num_partitions: i32::try_from(created.partitions.len()).unwrap_or(i32::MAX),
        replication_factor: i16::try_from(replicas).unwrap_or(i16::MAX),
        ..Default::default()
    }
}

fn not_created(topic: &CreatableTopic, error_code: ErrorCode, why: String) -> CreatableTopicResult {
    let (name, error_message) = (topic.name.clone(), Some(why));
    CreatableTopicResult { name, error_code, error_message, ..Default::default() }
}

/// All refused for the same reason.
pub(super) fn none_created(
    request: &CreateTopicsRequest,
    error_code: ErrorCode,
    why: &str,
) -> CreateTopicsResponse {
    let refused = |topic| not_created(topic, error_code, why.to_owned());
    CreateTopicsResponse {
        topics: request.topics.iter().map(refused).collect(),
        ..Default::default()
    }
}

pub(super) fn more_partitions(request: &CreatePartitionsRequest) -> Ask {
    let wish = |topic: &CreatePartitionsTopic| {
        let chosen = topic.assignments.as_ref();
        MorePartitions {
            name: topic.name.clone(),
            count: topic.count,
            assignment: chosen
                .map(|chosen| chosen.iter().map(|one| one.broker_ids.clone()).collect()),
        }
    };
    let wishes = request.topics.iter().map(wish).collect();
    Ask::Grow { wishes, validate_only: request.validate_only }
}

pub(super) fn grown(
    request: &CreatePartitionsRequest,
    answer: Option<Answer>,
) -> CreatePartitionsResponse {
    let mut results: BTreeMap<_, _> = match answer {
        Some(Answer::Grown(results)) => results.into_iter().collect(),
        _ => BTreeMap::new(),
    };
    let result = |topic: &CreatePartitionsTopic| {
        let (error_code, error_message) = match results.remove(&topic.name) {
            Some(Ok(())) => (ErrorCode::None, None),
            Some(Err(refusal)) => (refusal.error, Some(refusal.message)),
            None => (ErrorCode::NotController, Some("no controller".to_owned())),
        };
        CreatePartitionsTopicResult { name: topic.name.clone(), error_code, error_message }
    };
    let results = request.topics.iter().map(result).collect();
    CreatePartitionsResponse { results, ..Default::default() }
}

/// A topic to delete, as it was named.
#[derive(Clone, Debug)]
pub(super) struct Named {
    asked_name: Option<String>,
    asked_id: Option<TopicId>,
    /// What it is called; `None` if there is no topic of the id.
    name: Option<String>,
}

pub(super) fn named(request: &DeleteTopicsRequest, image: &Image) -> Vec<Named> {
    let by_name = request.topic_names.iter().map(|name| (Some(name.clone()), None));
    let by_either = request.topics.iter().map(|one| (one.name.clone(), one.topic_id));
    let named = |(asked_name, asked_id): (Option<String>, Option<TopicId>)| {
        let of_id = || Some(image.topic_by_id(asked_id?)?.name.to_string());
        let name = asked_name.clone().or_else(of_id);
        Named { asked_name, asked_id, name }
    };
    by_name.chain(by_either).map(named).collect()
}

pub(super) fn deletions(named: &[Named]) -> Ask {
    let meant = |one: &Named| Some(MeantTopic { name: one.name.clone()?, id: one.asked_id });
    Ask::Delete { names: named.iter().filter_map(meant).collect() }
}

pub(super) fn deleted(named: Vec<Named>, answer: Option<Answer>) -> DeleteTopicsResponse {
    let results: Option<BTreeMap<String, Result<TopicId, TopicRefusal>>> = match answer {
        Some(Answer::Deleted(results)) => Some(results.into_iter().collect()),
        _ => None,
    };
    let result = |one: Named| {
        let known = one.name.as_ref();
        let outcome = match (known, &results) {
            (None, _) => refused(ErrorCode::UnknownTopicId, "there is no topic of this id"),
            (Some(_), None) => refused(ErrorCode::NotController, "no controller"),
            (Some(name), Some(results)) => results.get(name).cloned().unwrap_or_else(|| {
                refused(ErrorCode::UnknownTopicOrPartition, "there is no topic of this name")
            }),
        };
        let id = outcome.as_ref().ok().copied();
        let refusal = outcome.err();
        DeletableTopicResult {
            // Whoever asked by id may learn the name only of what there is.
            name: one.asked_name.or(one.name),
            topic_id: one.asked_id.or(id),
            error_code: refusal.as_ref().map_or(ErrorCode::None, |refusal| refusal.error),
            error_message: refusal.map(|refusal| refusal.message),
        }
    };
    DeleteTopicsResponse {
        responses: named.into_iter().map(result).collect(),
        ..Default::default()
    }
}

fn refused(error: ErrorCode, why: &str) -> Result<TopicId, TopicRefusal> {
    Err(TopicRefusal { error, message: why.to_owned() })
}

pub(super) fn elections(request: &ElectLeadersRequest) -> Result<Ask, ErrorCode> {
    let kind = match request.election_type {
        ELECTION_PREFERRED => ElectionKind::Preferred,
        ELECTION_UNCLEAN => ElectionKind::Unclean,
        _ => return Err(ErrorCode::InvalidRequest),
    };
    let of = |topic: &ElectTopic| {
        let name = topic.topic.clone();
        topic.partitions.clone().into_iter().map(move |number| (name.clone(), number))
    };
    let asked = request.topic_partitions.as_ref();
    Ok(Ask::Elect { kind, asked: asked.map(|topics| topics.iter().flat_map(of).collect()) })
}

pub(super) fn elected(answer: Option<Answer>) -> ElectLeadersResponse {
    let results = match answer {
        Some(Answer::Elected(Ok(results))) => results,
        Some(Answer::Elected(Err(error_code))) => return not_elected(error_code),
        _ => return not_elected(ErrorCode::NotController),
    };
    let mut topics: BTreeMap<String, Vec<PartitionElectionResult>> = BTreeMap::new();
    for Elected { topic, partition, error } in results {
        let why = (!error.is_none()).then(|| error.message().to_owned());
        topics.entry(topic.to_string()).or_default().push(PartitionElectionResult {
            partition_id: partition,
            error_code: error,
            error_message: why,
        });
    }
    let of = |(topic, partition_result)| ReplicaElectionResult { topic, partition_result };
    let replica_election_results = topics.into_iter().map(of).collect();
    ElectLeadersResponse { replica_election_results, ..Default::default() }
}

pub(super) fn not_elected(error_code: ErrorCode) -> ElectLeadersResponse {
    ElectLeadersResponse { error_code, ..Default::default() }
}

pub(super) fn alter(request: &AlterPartitionRequest) -> Ask {
    let mut items = Vec::new();
    for topic in &request.topics {
        for wish in &topic.partitions {
            let partition =
                TopicPartition { topic: topic.topic_id, partition: wish.partition_index };
            let isr = wish.new_isr_with_epochs.iter();
            items.push(AlterItem {
                partition,
                leader_epoch: wish.leader_epoch,
                partition_epoch: PartitionEpoch::new(wish.partition_epoch),
                isr: isr
                    .map(|member| (member.broker_id, BrokerEpoch::new(member.broker_epoch)))
                    .collect(),
                recovering: wish.leader_recovery_state != 0,
            });
        }
    }
    let epoch = BrokerEpoch::new(request.broker_epoch);
    Ask::Alter(AlterPartitions { broker: request.broker_id, broker_epoch: epoch, items })
}

pub(super) fn altered(answer: Option<Answer>) -> AlterPartitionResponse {
    let partitions = match answer {
        Some(Answer::Altered(Ok(partitions))) => partitions,
        Some(Answer::Altered(Err(error_code))) => return not_altered(error_code),
        _ => return not_altered(ErrorCode::NotController),
    };
    let mut topics: BTreeMap<TopicId, Vec<AlterPartitionPartitionResponse>> = BTreeMap::new();
    for AlteredPartition { partition, error } in partitions {
        topics.entry(partition.topic).or_default().push(AlterPartitionPartitionResponse {
            partition_index: partition.partition,
            error_code: error,
            ..Default::default()
        });
    }
    let topic = |(topic_id, partitions)| AlterPartitionTopicResponse { topic_id, partitions };
    AlterPartitionResponse { topics: topics.into_iter().map(topic).collect(), ..Default::default() }
}

pub(super) fn not_altered(error_code: ErrorCode) -> AlterPartitionResponse {
    AlterPartitionResponse { error_code, ..Default::default() }
}

pub(super) fn shut_down(answer: Option<Answer>) -> ControlledShutdownResponse {
    let (error_code, remaining) = match answer {
        Some(Answer::ShutDown(Ok(remaining))) => (ErrorCode::None, remaining),
        Some(Answer::ShutDown(Err(error_code))) => (error_code, Vec::new()),
        _ => (ErrorCode::NotController, Vec::new()),
    };
    let partition = |(topic, partition_index): (std::sync::Arc<str>, PartitionId)| {
        RemainingPartition { topic_name: topic.to_string(), partition_index }
    };
    ControlledShutdownResponse {
        error_code,
        remaining_partitions: remaining.into_iter().map(partition).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker_core::ids::Zxid;
    use broker_core::image::{FeedEvent, ImageFeed, Item, ItemKind, Stat};
    use client_protocol::messages::delete_topics::DeleteTopicState;

    const ID: TopicId = TopicId::from_bytes([7; 16]);

    #[test]
    fn every_topic_to_create_has_an_answer() {
        let topic = |name: &str| CreatableTopic { name: name.to_owned(), ..Default::default() };
        let topics = vec![topic("made"), topic("refused"), topic("forgotten")];
        let request = CreateTopicsRequest { topics, ..Default::default() };
        let partitions = [(PartitionId::new(0), vec![BrokerId::new(1), BrokerId::new(2)])].into();
        let made = CreatedTopic { id: ID, partitions };
        let error = ErrorCode::TopicAlreadyExists;
        let refusal = TopicRefusal { error, message: "it is there".to_owned() };
        let answer =
            Answer::Created(vec![("refused".into(), Err(refusal)), ("made".into(), Ok(made))]);
        let response = created(&request, Some(answer));
        let codes: Vec<_> = response.topics.iter().map(|topic| topic.error_code).collect();
        assert_eq!(codes, [ErrorCode::None, error, ErrorCode::NotController]);
        assert_eq!(response.topics[0].topic_id, Some(ID));
        let numbers = (response.topics[0].num_partitions, response.topics[0].replication_factor);
        assert_eq!(numbers, (1, 2));
        assert!(created(&request, None).topics.iter().all(|topic| !topic.error_code.is_none()));
    }

    #[test]
    fn every_topic_to_grow_has_an_answer() {
        let topic =
            |name: &str| CreatePartitionsTopic { name: name.to_owned(), ..Default::default() };
        let topics = vec![topic("grown"), topic("refused"), topic("forgotten")];
        let request = CreatePartitionsRequest { topics, ..Default::default() };
        let error = ErrorCode::InvalidPartitions;
        let refusal = TopicRefusal { error, message: "it has them".to_owned() };
        let answer =
            Answer::Grown(vec![("refused".into(), Err(refusal)), ("grown".into(), Ok(()))]);
        let response = grown(&request, Some(answer));
        let codes: Vec<_> = response.results.iter().map(|topic| topic.error_code).collect();
        assert_eq!(codes, [ErrorCode::None, error, ErrorCode::NotController]);
        assert!(grown(&request, None).results.iter().all(|topic| !topic.error_code.is_none()));
    }

    #[test]
    fn every_topic_to_delete_has_an_answer() {
        let by_id = DeleteTopicState { name: None, topic_id: Some(ID) };
        let by_name = DeleteTopicState { name: Some("gone".to_owned()), topic_id: None };
        let topics = vec![by_id, by_name];
        let request = DeleteTopicsRequest { topics, ..Default::default() };
        let named = named(&request, &Image::default());
        let gone = MeantTopic { name: "gone".to_owned(), id: None };
        assert!(matches!(deletions(&named), Ask::Delete { names } if names == [gone]));
        let answer = Answer::Deleted(vec![("gone".to_owned(), Ok(ID))]);
        let response = deleted(named, Some(answer));
        let codes: Vec<_> = response.responses.iter().map(|result| result.error_code).collect();
        assert_eq!(codes, [ErrorCode::UnknownTopicId, ErrorCode::None]);
        assert_eq!(response.responses[1].topic_id, Some(ID));
    }

    #[test]
    fn a_topic_that_is_named_by_its_id_is_meant_by_it() {
        let node = br#"{"partitions":{"0":[1]},"topic_id":"2AoYbHmeRFmrj6Tnl-VdtQ","adding_replicas":{},"removing_replicas":{},"version":3}"#;
        let item = Item {
            kind: ItemKind::Present,
            path: "/brokers/topics/t".to_owned(),
            data: node.to_vec(),
            stat: Stat::default(),
        };
        let mut feed = ImageFeed::default();
        feed.apply(FeedEvent::SnapshotBegin { zxid: Zxid::new(1) });
        feed.apply(FeedEvent::SnapshotChunk { items: vec![item] });
        feed.apply(FeedEvent::SnapshotEnd { zxid: Zxid::new(1) });
        let id = feed.image().topic("t").map(|topic| topic.node.id);
        let by_id = DeleteTopicState { name: None, topic_id: id };
        let request = DeleteTopicsRequest { topics: vec![by_id], ..Default::default() };
        let asked = deletions(&named(&request, feed.image()));
        let meant = MeantTopic { name: "t".to_owned(), id };
        assert!(id.is_some() && matches!(asked, Ask::Delete { names } if names == [meant]));
    }

    #[test]
    fn refusals_of_brokers_requests_keep_their_code() {
        let stale = ErrorCode::StaleBrokerEpoch;
        assert_eq!(altered(Some(Answer::Altered(Err(stale)))).error_code, stale);
        assert_eq!(altered(None).error_code, ErrorCode::NotController);
        assert_eq!(shut_down(Some(Answer::ShutDown(Err(stale)))).error_code, stale);
        assert_eq!(shut_down(None).error_code, ErrorCode::NotController);
    }
}
