//! More partitions for a topic.
//!
//! *Called by* the shell through [`Controller`], and by `topic` when a growth's multi conflicted. Invariants: a topic node and the states of its new
//! partitions appear in one multi, which rests on the version of the topic node, so that what another writer adds or deletes is never
//! overwritten; partitions that are there are never touched. Refusals carry Kafka's codes.

use std::collections::BTreeSet;

use client_protocol::ErrorCode;

use crate::group::OFFSETS_TOPIC;
use crate::ids::{BrokerId, PartitionId, TopicId};
use crate::image::{Image, Topic, TopicNode, path};
use crate::store::Op;

use super::assignment::{Assignment, Loads, assign};
use super::message::{Answer, Effect, MorePartitions, RequestId, TopicRefusal};
use super::tenure::{Controller, Office};
use super::topic::{
    NEW_PARTITIONS_MAX, OpenTopics, TopicWork, TopicWorkKind, can_be_deleted, partition_ops,
    refusal, too_large,
};

/// Partitions of a topic, at most: its node is then about 300 KiB of JSON. It is fewer with any but the
/// shortest names, for its deletion goes in one multi.
pub const TOPIC_PARTITIONS_MAX: usize = 10_000;

/// A growth that is under way.
#[derive(Clone, Debug)]
pub(super) struct Growth {
    /// The topic that is meant; one of the same name made since is not.
    topic: TopicId,
    wish: MorePartitions,
    /// The new partitions.
    added: Assignment,
}

/// What to do after a conflict, or when an outcome is unknown.
pub(super) enum Again {
    /// It is as wished.
    Done,
    /// It cannot be any more.
    Refused(TopicRefusal),
    /// Try once more.
    Send(Vec<Op>),
}

/// The replicas of the partitions to add, or why there are none.
fn plan(
    (image, loads): (&Image, &mut Loads),
    topic: &Topic,
    wish: &MorePartitions,
) -> Result<Assignment, TopicRefusal> {
    let present = &topic.node.partitions;
    let name = &wish.name;
    let count = usize::try_from(wish.count).unwrap_or(0);
    let invalid = |why: String| Err(refusal(ErrorCode::InvalidPartitions, why));
    if count == present.len() {
        return invalid(format!("the topic {name} has {count} partitions already"));
    }
    let Some(more) = count.checked_sub(present.len()) else {
        let present = present.len();
        let wished = wish.count;
        return invalid(format!(
            "the topic {name} has {present} partitions; {wished} would not be an increase"
        ));
    };
    if more > NEW_PARTITIONS_MAX || count > TOPIC_PARTITIONS_MAX {
        return invalid(format!(
            "{NEW_PARTITIONS_MAX} partitions can be added at once, up to {TOPIC_PARTITIONS_MAX}"
        ));
    }
    if !can_be_deleted(name, count) {
        return Err(too_large());
    }
    let replicas = present.values().next().map_or(1, Vec::len);
    if let Some(chosen) = &wish.assignment {
        let chosen = check_assignment(image, chosen, (present.len(), more, replicas))?;
        loads.add(&chosen);
        return Ok(chosen);
    }
    let brokers = image.brokers().count();
    if replicas > brokers {
        let why = format!("{replicas} replicas need as many brokers; {brokers} are registered");
        return Err(refusal(ErrorCode::InvalidReplicationFactor, why));
    }
    Ok(assign(loads, present, more, replicas))
}

fn check_assignment(
    image: &Image,
    chosen: &[Vec<BrokerId>],
    (first, more, factor): (usize, usize, usize),
) -> Result<Assignment, TopicRefusal> {
    let invalid = |why: String| Err(refusal(ErrorCode::InvalidReplicaAssignment, why));
    if chosen.len() != more {
        let given = chosen.len();
        return invalid(format!("{more} partitions more, but {given} assignments"));
    }
    let mut assignment = Assignment::new();
    for (number, replicas) in (first..).zip(chosen) {
        let distinct: BTreeSet<_> = replicas.iter().collect();
        if distinct.len() != replicas.len() {
            return invalid("a partition has the same broker twice".to_owned());
        }
        if replicas.len() != factor {
            let given = replicas.len();
            return invalid(format!("{given} replicas, but the topic's partitions have {factor}"));
        }
        if let Some(unknown) = replicas.iter().find(|&&id| image.broker(id).is_none()) {
            return invalid(format!("broker {unknown} is not registered"));
        }
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        assignment.insert(PartitionId::new(number), replicas.clone());
    }
    Ok(assignment)
}

/// What hashes to a partition of these is looked for there: with another number of them it would not be found.
const FIXED: [&str; 2] = [OFFSETS_TOPIC, "__transaction_state"];

fn look(
    image: &Image,
    loads: &mut Loads,
    wish: &MorePartitions,
) -> Result<(TopicId, Assignment), TopicRefusal> {
    if FIXED.contains(&wish.name.as_str()) {
        let why = "the number of an internal topic's partitions cannot be changed";
        return Err(refusal(ErrorCode::InvalidRequest, why));
    }
    let Some(topic) = image.topic(&wish.name) else {
        let why = format!("there is no topic {}", wish.name);
        return Err(refusal(ErrorCode::UnknownTopicOrPartition, why));
    };
    if image.is_deleting(&wish.name) {
        return Err(refusal(ErrorCode::InvalidTopicException, "the topic is being deleted"));
    }
    Ok((topic.node.id, plan((image, loads), topic, wish)?))
}

impl Growth {
    fn ops(&self, office: &Office, topic: &Topic) -> Vec<Op> {
        let mut node: TopicNode = topic.node.clone();
        node.partitions.extend(self.added.clone());
        let name = &self.wish.name;
        let topic_path = path::topic(name);
        let mut ops = vec![
            office.epoch_check(),
            Op::SetData { path: topic_path, data: node.encode(), version: topic.version },
        ];
        for (&partition, replicas) in &self.added {
            ops.extend(partition_ops(office, name, partition, replicas));
        }
        ops
    }

    /// The image shows what became of it.
    pub(super) fn look_again(&mut self, office: &Office, image: &Image) -> Again {
        let Some(topic) = image.topic_by_id(self.topic) else {
            let gone = "the topic was deleted meanwhile";
            return Again::Refused(refusal(ErrorCode::UnknownTopicOrPartition, gone));
        };
        let present = &topic.node.partitions;
        if self.added.iter().all(|(partition, replicas)| present.get(partition) == Some(replicas)) {
            return Again::Done;
        }
        match look(image, &mut Loads::of(image), &self.wish) {
            Ok((_, added)) => {
                self.added = added;
                Again::Send(self.ops(office, topic))
            }
            Err(refused) => Again::Refused(refused),
        }
    }
}

impl Controller {
    /// Gives topics more partitions, each topic in a multi of its own. `validate_only`: only says whether it would.
    pub fn create_partitions(
        &mut self,
        request: RequestId,
        wishes: Vec<MorePartitions>,
        validate_only: bool,
        effects: &mut Vec<Effect>,
    ) {
        let open = wishes.iter().map(|wish| wish.name.clone()).collect();
        let mut answers = OpenTopics { open, answer: Answer::Grown(Vec::new()) };
        let Some(office) = self.office.as_mut().filter(|office| office.complete) else {
            effects.push(Effect::Answer { request, answer: answers.abandon(false) });
            return;
        };
        let (mut growths, mut loads) = (Vec::new(), Loads::of(&self.image));
        for wish in wishes {
            match look(&self.image, &mut loads, &wish) {
                Err(refused) => answers.grown(&wish.name, Err(refused)),
                Ok(_) if validate_only => answers.grown(&wish.name, Ok(())),
                Ok((topic, added)) => growths.push(Growth { topic, wish, added }),
            }
        }
        office.open_topics.insert(request, answers);
        for growth in growths {
            let Some(topic) = self.image.topic(&growth.wish.name) else { continue };
            let ops = growth.ops(office, topic);
            let name = growth.wish.name.clone();
            let kind = TopicWorkKind::Grow(growth);
            office.send_topic(TopicWork::new(request, name, kind), ops, effects);
        }
        office.finish_topics(request, effects);
    }
}
