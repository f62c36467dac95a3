//! Creation, growth and deletion of topics.
//!
//! *Called by* the shell through [`Controller`]. Invariants: a topic with its settings and all states appears in one multi and goes in one; a topic
//! that is refused leaves nothing behind; a deletion mark of Kafka's tools (`/admin/delete_topics/T`) deletes the topic and itself.

use std::collections::{BTreeMap, BTreeSet};

use client_protocol::ErrorCode;

use crate::ids::{BrokerId, LeaderEpoch, PartitionId, TopicId, Zxid};
use crate::image::{Image, PartitionState, ReplicationSettings, TopicNode, json, path};
use crate::store::{Op, WriteOutcome};

use super::assignment::{Loads, assign};
use super::growth::{Again, Growth};
use super::message::{Answer, CreatedTopic, Effect, MeantTopic, NewTopic, RequestId, TopicRefusal};
use super::tenure::{Controller, ControllerConfig, Office};
use super::write::Pending;

/// Partitions of a new topic, at most; fewer with a long name, see [`MULTI_BYTES_MAX`].
pub const NEW_PARTITIONS_MAX: usize = 2_000;
/// Length of a topic's name, at most.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;
/// Bytes of one multi, at most: the coordinator takes frames of 1 MiB, and closes the connection that
/// brings a larger one.
pub(super) const MULTI_BYTES_MAX: usize = (1 << 20) - 4096;
/// What an operation takes beside its path and data, at most: its header, lengths, an ACL.
const OP_BYTES: usize = 64;
/// What a deletion takes beside its path: its header, a length, a version.
const DELETE_BYTES: usize = 20;
/// A creation or deletion that keeps conflicting is given up after this many tries.
const TRIES_MAX: u32 = 5;

/// A topic's creation or deletion.
#[derive(Clone, Debug)]
pub(super) struct TopicWork {
    /// Whom to answer; none for a deletion mark.
    pub(super) request: Option<RequestId>,
    pub(super) name: String,
    pub(super) tries: u32,
    /// A multi of it ended without an answer, and the image does not show yet what became of that.
    pub(super) unsure: bool,
    pub(super) kind: TopicWorkKind,
}

impl TopicWork {
    /// What a request asks for, about to be sent for the first time.
    pub(super) fn new(request: RequestId, name: String, kind: TopicWorkKind) -> Self {
        Self { request: Some(request), name, tries: 1, unsure: false, kind }
    }
}

#[derive(Clone, Debug)]
pub(super) enum TopicWorkKind {
    Create(Box<NewTopic>, CreatedTopic),
    Delete(TopicId),
    Grow(Growth),
}

/// A request whose topics are not all answered.
#[derive(Clone, Debug)]
pub(super) struct OpenTopics {
    pub(super) open: BTreeSet<String>,
    pub(super) answer: Answer,
}

type Created = Result<CreatedTopic, TopicRefusal>;
type Deleted = Result<TopicId, TopicRefusal>;

pub(super) fn refusal(error: ErrorCode, message: impl Into<String>) -> TopicRefusal {
    TopicRefusal { error, message: message.into() }
}

impl OpenTopics {
    fn created(&mut self, name: &str, result: Created) {
        if self.open.remove(name)
            && let Answer::Created(topics) = &mut self.answer
        {
            topics.push((name.to_owned(), result));
        }
    }

    fn deleted(&mut self, name: &str, result: Deleted) {
        if self.open.remove(name)
            && let Answer::Deleted(topics) = &mut self.answer
        {
            topics.push((name.to_owned(), result));
        }
    }

    pub(super) fn grown(&mut self, name: &str, result: Result<(), TopicRefusal>) {
        if self.open.remove(name)
            && let Answer::Grown(topics) = &mut self.answer
        {
            topics.push((name.to_owned(), result));
        }
    }

    /// The office is lost: the rest is refused. NOT_CONTROLLER has the whole request asked again of the next
    /// controller, so it is said only where nothing of it was done; `begun`: something of it may have been.
    pub(super) fn abandon(mut self, begun: bool) -> Answer {
        let done = match &self.answer {
            Answer::Created(topics) => topics.iter().any(|(_, result)| result.is_ok()),
            Answer::Deleted(topics) => topics.iter().any(|(_, result)| result.is_ok()),
            Answer::Grown(topics) => topics.iter().any(|(_, result)| result.is_ok()),
            Answer::Altered(_) | Answer::Elected(_) | Answer::ShutDown(_) => false,
        };
        let lost = || match begun || done {
            true => refusal(ErrorCode::RequestTimedOut, "the controller moved meanwhile"),
            false => refusal(ErrorCode::NotController, "the controller moved"),
        };
        for name in std::mem::take(&mut self.open) {
            match &mut self.answer {
                Answer::Created(topics) => topics.push((name, Err(lost()))),
                Answer::Deleted(topics) => topics.push((name, Err(lost()))),
                Answer::Grown(topics) => topics.push((name, Err(lost()))),
                Answer::Altered(_) | Answer::Elected(_) | Answer::ShutDown(_) => {}
            }
        }
        self.answer
    }
}

/// Bytes of a multi on the wire, or a little more.
pub(super) fn multi_bytes(ops: &[Op]) -> usize {
    let bytes = ops.iter().map(|op| match op {
        Op::Check { path, .. } => OP_BYTES.saturating_add(path.len()),
        Op::Create { path, data }
        | Op::CreateEphemeral { path, data }
        | Op::SetData { path, data, .. } => {
            OP_BYTES.saturating_add(path.len()).saturating_add(data.len())
        }
        Op::Delete { path, .. } => DELETE_BYTES.saturating_add(path.len()),
    });
    bytes.fold(0, usize::saturating_add)
}

pub(super) fn too_large() -> TopicRefusal {
    let why = "with a name of this length these are more partitions than can be written at once";
    refusal(ErrorCode::InvalidPartitions, why)
}

/// Whether a topic of so many partitions could be deleted again, which goes in one multi as well.
pub(super) fn can_be_deleted(name: &str, partitions: usize) -> bool {
    // With a deletion mark, settings, and the topic's own nodes beside those of partitions.
    let longest = path::state(name, PartitionId::new(i32::MAX)).len().saturating_add(DELETE_BYTES);
    longest.saturating_mul(2).saturating_mul(partitions.saturating_add(4)) <= MULTI_BYTES_MAX
}

/// Why a name cannot be a topic's; none when it can.
#[must_use]
pub fn name_refusal(name: &str) -> Option<TopicRefusal> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let invalid = |why: &str| Some(refusal(ErrorCode::InvalidTopicException, why));
    if name.is_empty() {
        return invalid("the name is empty");
    }
    if name == "." || name == ".." {
        return invalid("the name is . or ..");
    }
    if name.len() > TOPIC_NAME_BYTES_MAX {
        return invalid("the name is longer than 249 characters");
    }
    if !name.chars().all(legal) {
        return invalid(
            "the name has characters other than ASCII letters, digits, '.', '_' and '-'",
        );
    }
    None
}

/// Names that differ in '.' and '_' only would be one name in metrics.
fn collision(image: &Image, name: &str) -> Option<TopicRefusal> {
    let folded = name.replace('.', "_");
    let other = image
        .topics()
        .find(|topic| *topic.name != *name && topic.name.replace('.', "_") == folded)?;
    let message = format!("the name collides with the topic {}", other.name);
    Some(refusal(ErrorCode::InvalidTopicException, message))
}

/// The replicas of a new topic, or why it is refused.
fn plan(
    (image, loads): (&Image, &mut Loads),
    config: ControllerConfig,
    new: &NewTopic,
) -> Result<BTreeMap<PartitionId, Vec<BrokerId>>, TopicRefusal> {
    if let Some(refused) = name_refusal(&new.name) {
        return Err(refused);
    }
    if image.topic(&new.name).is_some() {
        let message = format!("the topic {} exists", new.name);
        return Err(refusal(ErrorCode::TopicAlreadyExists, message));
    }
    if let Some(refused) = collision(image, &new.name) {
        return Err(refused);
    }
    if let Some(why) = ReplicationSettings::refusal(&new.config) {
        return Err(refusal(ErrorCode::InvalidConfig, why));
    }
    if !new.assignment.is_empty() {
        let chosen = check_assignment(image, new)?;
        loads.add(&chosen);
        return Ok(chosen);
    }
    let partitions = new.partitions.unwrap_or(config.partitions);
    let count = usize::try_from(partitions).unwrap_or(0);
    if count == 0 || count > NEW_PARTITIONS_MAX {
        let message = format!("{partitions} partitions: 1 to {NEW_PARTITIONS_MAX} can be created");
        return Err(refusal(ErrorCode::InvalidPartitions, message));
    }
    if !can_be_deleted(&new.name, count) {
        return Err(too_large());
    }
    let brokers = image.brokers().count();
    let wished = match new.replication_factor {
        Some(factor) => usize::try_from(factor).unwrap_or(0),
        None => usize::try_from(config.replication_factor).unwrap_or(1).min(brokers),
    };
    if wished == 0 || wished > brokers {
        let message = format!("replication factor {wished}: {brokers} brokers are registered");
        return Err(refusal(ErrorCode::InvalidReplicationFactor, message));
    }
    Ok(assign(loads, &BTreeMap::new(), count, wished))
}

fn check_assignment(
    image: &Image,
    new: &NewTopic,
) -> Result<BTreeMap<PartitionId, Vec<BrokerId>>, TopicRefusal> {
    let invalid = |why: &str| Err(refusal(ErrorCode::InvalidReplicaAssignment, why));
    if new.partitions.is_some() || new.replication_factor.is_some() {
        return Err(refusal(
            ErrorCode::InvalidRequest,
            "an assignment and numbers exclude each other",
        ));
    }
    if new.assignment.len() > NEW_PARTITIONS_MAX {
        return Err(refusal(ErrorCode::InvalidPartitions, "too many partitions at once"));
    }
    if !can_be_deleted(&new.name, new.assignment.len()) {
        return Err(too_large());
    }
    let factor = new.assignment.values().next().map_or(0, Vec::len);
    for (expected, (partition, replicas)) in (0_i32..).zip(&new.assignment) {
        if partition.get() != expected {
            return invalid("partitions are not numbered from 0 without gaps");
        }
        let distinct: BTreeSet<_> = replicas.iter().collect();
        if replicas.is_empty() || distinct.len() != replicas.len() || replicas.len() != factor {
            return invalid("partitions have no, double or differently many replicas");
        }
        if !replicas.iter().all(|&id| image.broker(id).is_some()) {
            return invalid("a replica is on a broker that is not registered");
        }
    }
    Ok(new.assignment.clone())
}

fn create_ops(office: &Office, image: &Image, new: &NewTopic, created: &CreatedTopic) -> Vec<Op> {
    let name = &new.name;
    let mut ops = vec![office.epoch_check()];
    let config = json::encode_config(&new.config);
    ops.push(if image.has_topic_config(name) {
        Op::SetData { path: path::topic_config(name), data: config, version: -1 }
    } else {
        Op::Create { path: path::topic_config(name), data: config }
    });
    let node = TopicNode { id: created.id, partitions: created.partitions.clone() };
    ops.push(Op::Create { path: path::topic(name), data: node.encode() });
    ops.push(Op::Create { path: path::partitions(name), data: Vec::new() });
    for (&partition, replicas) in &created.partitions {
        ops.extend(partition_ops(office, name, partition, replicas));
    }
    ops
}

/// The nodes of a new partition, which all its replicas begin in sync.
pub(super) fn partition_ops(
    office: &Office,
    name: &str,
    partition: PartitionId,
    replicas: &[BrokerId],
) -> [Op; 2] {
    let state = PartitionState {
        leader: replicas.first().copied(),
        leader_epoch: LeaderEpoch::new(0),
        controller_epoch: office.election.epoch,
        isr: replicas.to_vec(),
        recovering: false,
    };
    [
        Op::Create { path: path::partition(name, partition), data: Vec::new() },
        Op::Create { path: path::state(name, partition), data: state.encode() },
    ]
}

fn delete_ops(office: &Office, image: &Image, name: &str) -> Vec<Op> {
    let mut ops = vec![office.epoch_check()];
    for (partition, _) in image.states(name) {
        ops.push(Op::Delete { path: path::state(name, partition), version: None });
        ops.push(Op::Delete { path: path::partition(name, partition), version: None });
    }
    if image.topic(name).is_some() {
        ops.push(Op::Delete { path: path::partitions(name), version: None });
        ops.push(Op::Delete { path: path::topic(name), version: None });
    }
    if image.has_topic_config(name) {
        ops.push(Op::Delete { path: path::topic_config(name), version: None });
    }
    if image.is_deleting(name) {
        ops.push(Op::Delete { path: path::deletion(name), version: None });
    }
    ops
}

impl Controller {
    /// Creates topics, each in a multi of its own. `validate_only`: only says whether it would.
    pub fn create_topics(
        &mut self,
        request: RequestId,
        topics: Vec<NewTopic>,
        validate_only: bool,
        effects: &mut Vec<Effect>,
    ) {
        let open = topics.iter().map(|topic| topic.name.clone()).collect();
        let mut answers = OpenTopics { open, answer: Answer::Created(Vec::new()) };
        let Some(office) = self.office.as_mut().filter(|office| office.complete) else {
            effects.push(Effect::Answer { request, answer: answers.abandon(false) });
            return;
        };
        let (mut names, mut loads) = (BTreeSet::new(), Loads::of(&self.image));
        let mut creations = Vec::new();
        for new in topics {
            let name = new.name.clone();
            let planned = plan((&self.image, &mut loads), self.config, &new);
            if !names.insert(name.clone()) {
                let twice = refusal(ErrorCode::InvalidRequest, "the topic is named twice");
                answers.created(&name, Err(twice));
                continue;
            }
            match planned {
                Err(refused) => answers.created(&name, Err(refused)),
                Ok(partitions) => {
                    let created = CreatedTopic { id: new.id, partitions };
                    if validate_only {
                        answers.created(&name, Ok(created));
                    } else if office.is_under_way(&name) {
                        let message = format!("the topic {name} is being created or deleted");
                        let refused = refusal(ErrorCode::TopicAlreadyExists, message);
                        answers.created(&name, Err(refused));
                    } else {
                        creations.push((new, created));
                    }
                }
            }
        }
        office.open_topics.insert(request, answers);
        for (new, created) in creations {
            let ops = create_ops(office, &self.image, &new, &created);
            let name = new.name.clone();
            let kind = TopicWorkKind::Create(Box::new(new), created);
            office.send_topic(TopicWork::new(request, name, kind), ops, effects);
        }
        office.finish_topics(request, effects);
    }

    /// Deletes topics, each in a multi of its own. One that is meant by id is deleted only while it has its name.
    pub fn delete_topics(
        &mut self,
        request: RequestId,
        topics: Vec<MeantTopic>,
        effects: &mut Vec<Effect>,
    ) {
        let mut meant: BTreeMap<String, Option<TopicId>> = BTreeMap::new();
        for topic in topics {
            let id = meant.entry(topic.name).or_default();
            *id = topic.id.or(*id);
        }
        let open = meant.keys().cloned().collect();
        let mut answers = OpenTopics { open, answer: Answer::Deleted(Vec::new()) };
        let Some(office) = self.office.as_mut().filter(|office| office.complete) else {
            effects.push(Effect::Answer { request, answer: answers.abandon(false) });
            return;
        };
        let mut deletions = Vec::new();
        for (name, meant) in meant {
            let present = self.image.topic(&name).map(|topic| topic.node.id);
            if meant.is_some_and(|meant| present != Some(meant)) {
                // By its name it was found in an older image, or in one that is not ours.
                let why = "there is no topic of this id";
                answers.deleted(&name, Err(refusal(ErrorCode::UnknownTopicId, why)));
                continue;
            }
            match present {
                Some(id) if !office.is_under_way(&name) => deletions.push((name, id)),
                Some(_) | None => {
                    let refused =
                        refusal(ErrorCode::UnknownTopicOrPartition, "there is no such topic");
                    answers.deleted(&name, Err(refused));
                }
            }
        }
        office.open_topics.insert(request, answers);
        for (name, id) in deletions {
            let ops = delete_ops(office, &self.image, &name);
            let kind = TopicWorkKind::Delete(id);
            office.send_topic(TopicWork::new(request, name, kind), ops, effects);
        }
        office.finish_topics(request, effects);
    }

    /// A deletion mark came (or goes with its topic).
    pub(super) fn delete_marked(&mut self, name: &str) {
        let Some(office) = &mut self.office else { return };
        if !self.image.is_deleting(name) || office.is_under_way(name) {
            return;
        }
        let id = self.image.topic(name).map(|topic| topic.node.id).unwrap_or_default();
        let kind = TopicWorkKind::Delete(id);
        let name = name.to_owned();
        let work = TopicWork { request: None, name, tries: 0, unsure: false, kind };
        office.settling_topics.push((Zxid::default(), work));
    }

    /// Goes on with creations and deletions whose outcome the image shows now.
    pub(super) fn work_topics(&mut self, effects: &mut Vec<Effect>) {
        let Some(office) = self.office.as_mut().filter(|office| office.complete) else { return };
        for (zxid, work) in std::mem::take(&mut office.settling_topics) {
            if zxid > self.image.complete_to() {
                office.settling_topics.push((zxid, work));
            } else {
                office.retry_topic(&self.image, self.config, work, effects);
            }
        }
    }
}

impl Office {
    /// It is being created or deleted. Growth is not counted: it and a deletion conflict, and the one that comes second is looked at again.
    fn is_under_way(&self, name: &str) -> bool {
        let pending = self.pending.values().filter_map(|pending| match pending {
            Pending::Topic(work) => Some(&**work),
            Pending::States { .. } => None,
        });
        let mut works = pending.chain(self.settling_topics.iter().map(|(_, work)| work));
        works.any(|work| work.name == name && !matches!(work.kind, TopicWorkKind::Grow(_)))
    }

    /// Requests of which something may have been done that nobody was told of.
    pub(super) fn begun_requests(&self) -> BTreeSet<RequestId> {
        let under_way = self.pending.values().filter_map(|pending| match pending {
            Pending::Topic(work) => Some(&**work),
            Pending::States { .. } => None,
        });
        let unsure = self.settling_topics.iter().map(|(_, work)| work).filter(|work| work.unsure);
        under_way.chain(unsure).filter_map(|work| work.request).collect()
    }

    /// Answers a request none of whose topics is open any more.
    pub(super) fn finish_topics(&mut self, request: RequestId, effects: &mut Vec<Effect>) {
        if self.open_topics.get(&request).is_some_and(|open| open.open.is_empty())
            && let Some(open) = self.open_topics.remove(&request)
        {
            effects.push(Effect::Answer { request, answer: open.answer });
        }
    }

    pub(super) fn answer_topic(
        &mut self,
        work: TopicWork,
        refused: Option<TopicRefusal>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(request) = work.request else { return };
        if let Some(open) = self.open_topics.get_mut(&request) {
            match work.kind {
                TopicWorkKind::Create(_, created) => {
                    open.created(&work.name, refused.map_or(Ok(created), Err));
                }
                TopicWorkKind::Delete(id) => {
                    open.deleted(&work.name, refused.map_or(Ok(id), Err));
                }
                TopicWorkKind::Grow(_) => open.grown(&work.name, refused.map_or(Ok(()), Err)),
            }
        }
        self.finish_topics(request, effects);
    }

    /// A creation's or deletion's multi ended.
    pub(super) fn topic_written(
        &mut self,
        mut work: TopicWork,
        outcome: WriteOutcome,
        effects: &mut Vec<Effect>,
    ) {
        match outcome {
            WriteOutcome::Done { .. } => self.answer_topic(work, None, effects),
            WriteOutcome::Conflict { zxid, .. } => self.settling_topics.push((zxid, work)),
            WriteOutcome::Unknown { zxid } => {
                work.unsure = true;
                self.settling_topics.push((zxid, work));
            }
        }
    }

    /// The image shows what became of it: done, or to be tried again, or refused.
    fn retry_topic(
        &mut self,
        image: &Image,
        config: ControllerConfig,
        mut work: TopicWork,
        effects: &mut Vec<Effect>,
    ) {
        let present = image.topic(&work.name).map(|topic| topic.node.id);
        if work.tries >= TRIES_MAX {
            let message = "the metadata kept changing; try again";
            return self.answer_topic(
                work,
                Some(refusal(ErrorCode::RequestTimedOut, message)),
                effects,
            );
        }
        work.tries = work.tries.saturating_add(1);
        // What follows rests on what the image shows.
        work.unsure = false;
        let ops = match &mut work.kind {
            TopicWorkKind::Create(_, created) if present == Some(created.id) => {
                return self.answer_topic(work, None, effects);
            }
            TopicWorkKind::Create(new, created) => {
                match plan((image, &mut Loads::of(image)), config, new) {
                    Ok(partitions) => {
                        created.partitions = partitions;
                        create_ops(self, image, new, created)
                    }
                    Err(refused) => return self.answer_topic(work, Some(refused), effects),
                }
            }
            TopicWorkKind::Delete(id) => {
                let gone = present.is_none() && !image.is_deleting(&work.name);
                if gone || present.is_some_and(|present| present != *id) {
                    return self.answer_topic(work, None, effects);
                }
                delete_ops(self, image, &work.name)
            }
            TopicWorkKind::Grow(growth) => match growth.look_again(self, image) {
                Again::Done => return self.answer_topic(work, None, effects),
                Again::Refused(refused) => {
                    return self.answer_topic(work, Some(refused), effects);
                }
                Again::Send(ops) => ops,
            },
        };
        self.send_topic(work, ops, effects);
    }
}
