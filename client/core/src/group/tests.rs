//! Members against a model of a group coordinator: joins, leaves, silence, lost answers, coordinators that move.

use std::collections::BTreeMap;

use client_protocol::Offset;
use client_protocol::messages::consumer_protocol::Assignment;
use client_protocol::messages::find_coordinator::Coordinator as FoundCoordinator;
use client_protocol::messages::join_group::JoinGroupMember;
use client_protocol::messages::offset_commit::{
    OffsetCommitPartitionResponse, OffsetCommitTopicResponse,
};
use client_protocol::messages::offset_fetch::{
    OffsetFetchGroupResponse, OffsetFetchPartitionResponse, OffsetFetchTopicResponse,
};
use client_protocol::messages::{
    FindCoordinatorResponse, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupResponse, OffsetCommitResponse, OffsetFetchResponse, SyncGroupResponse,
};

use super::note::Note;
use super::*;
use crate::metadata::Leader;
use crate::model::{self, Random, TOPIC};

const PARTITIONS: i32 = 7;

/// A request that the group coordinator holds back.
struct Parked {
    caller: usize,
    number: u64,
}

/// The group as its coordinator keeps it: joins wait until all members have joined.
#[derive(Default)]
struct Group {
    generation: i32,
    next_id: usize,
    /// Member id to who it is.
    members: BTreeMap<String, usize>,
    joined: BTreeMap<String, (Parked, JoinGroupRequest)>,
    is_preparing: bool,
    leader: String,
    synced: BTreeMap<String, Parked>,
    shares: Option<BTreeMap<String, bytes::Bytes>>,
    offsets: BTreeMap<TopicPartition, Offset>,
}

/// One member and its caller.
struct Caller {
    core: Member,
    notices: Vec<Notice>,
    /// What the caller reads now: the truth that must never overlap.
    reads: BTreeSet<TopicPartition>,
    is_there: bool,
}

struct World {
    random: Random,
    now_ms: u64,
    group: Group,
    callers: Vec<Caller>,
    metadata: Metadata,
    asked: Vec<(usize, u64, Ask)>,
    faults: bool,
    done: usize,
}

fn settings() -> Settings {
    Settings { group_id: "g".to_owned(), ..Settings::default() }
}

fn metadata() -> Metadata {
    metadata_of(usize::try_from(PARTITIONS).unwrap())
}

/// Of a topic with so many partitions.
fn metadata_of(partitions: usize) -> Metadata {
    let mut metadata = Metadata::default();
    metadata.adopt(model::metadata((0..partitions).map(|_| (None, 0))), &[]);
    metadata
}

impl World {
    fn new(seed: u64, assignors: &[Assignor]) -> Self {
        let caller = |_| Caller {
            core: Member::new(Settings { assignors: assignors.to_vec(), ..settings() }),
            notices: Vec::new(),
            reads: BTreeSet::new(),
            is_there: false,
        };
        Self {
            random: Random::new(seed),
            now_ms: 0,
            group: Group::default(),
            callers: (0..4).map(caller).collect(),
            metadata: metadata(),
            asked: Vec::new(),
            faults: true,
            done: 0,
        }
    }

    fn perform(&mut self, caller: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Ask { number, body, .. } => self.asked.push((caller, number, body)),
                Effect::Tell(notice) => {
                    if let Notice::Lost(partitions) = &notice {
                        let reads = &mut self.callers[caller].reads;
                        reads.retain(|partition| !partitions.contains(partition));
                    }
                    self.callers[caller].notices.push(notice);
                }
                Effect::CommitDone { .. } => self.done += 1,
                Effect::WatchTopics(_) | Effect::Committed(_) => {}
            }
        }
    }

    fn poll(&mut self, caller: usize) {
        let mut effects = Vec::new();
        let core = &mut self.callers[caller].core;
        core.poll(&self.metadata, self.now_ms, &mut effects);
        self.perform(caller, effects);
    }

    fn answer(&mut self, caller: usize, number: u64, answer: Result<Answer, Failure>) {
        let mut effects = Vec::new();
        self.callers[caller].core.answered(number, answer, self.now_ms, &mut effects);
        self.perform(caller, effects);
    }

    fn join_error(&mut self, parked: &Parked, error_code: ErrorCode, member_id: String) {
        let answer = JoinGroupResponse { error_code, member_id, ..JoinGroupResponse::default() };
        self.answer(parked.caller, parked.number, Ok(Answer::Join(answer)));
    }

    fn sync_error(&mut self, parked: &Parked, error_code: ErrorCode) {
        let answer = SyncGroupResponse { error_code, ..SyncGroupResponse::default() };
        self.answer(parked.caller, parked.number, Ok(Answer::Sync(answer)));
    }

    /// The group begins a new generation: whoever waits for a share has to join.
    fn prepare(&mut self) {
        self.group.is_preparing = true;
        self.group.shares = None;
        for parked in std::mem::take(&mut self.group.synced).into_values() {
            self.sync_error(&parked, ErrorCode::RebalanceInProgress);
        }
    }

    fn handle(&mut self, parked: Parked, ask: Ask) {
        let Parked { caller, number } = parked;
        match ask {
            Ask::Find(_) => {
                let found = FoundCoordinator {
                    node_id: Some(BrokerId::new(1)),
                    host: "h".to_owned(),
                    port: 1,
                    ..FoundCoordinator::default()
                };
                let coordinators = vec![found];
                let answer =
                    FindCoordinatorResponse { coordinators, ..FindCoordinatorResponse::default() };
                self.answer(caller, number, Ok(Answer::Find(answer)));
            }
            Ask::Join(request) => self.join(Parked { caller, number }, request),
            Ask::Sync(request) => self.sync(Parked { caller, number }, &request),
            Ask::Heartbeat(request) => {
                let error_code = self.standing(&request.member_id, request.generation_id);
                let answer = HeartbeatResponse { error_code, ..HeartbeatResponse::default() };
                self.answer(caller, number, Ok(Answer::Heartbeat(answer)));
            }
            Ask::Leave(request) => {
                self.remove(&request.members[0].member_id);
                let answer = LeaveGroupResponse::default();
                self.answer(caller, number, Ok(Answer::Leave(answer)));
            }
            Ask::Commit(request) => {
                let mut code =
                    self.standing(&request.member_id, request.generation_id_or_member_epoch);
                // While members join, those of the last generation may still commit.
                if code == ErrorCode::RebalanceInProgress {
                    code = ErrorCode::None;
                }
                let mut partitions = Vec::new();
                for partition in &request.topics[0].partitions {
                    if code.is_none() {
                        let of = TopicPartition::new(TOPIC, partition.partition_index.get());
                        self.group.offsets.insert(of, partition.committed_offset);
                    }
                    partitions.push(OffsetCommitPartitionResponse {
                        partition_index: partition.partition_index,
                        error_code: code,
                    });
                }
                let name = TOPIC.to_owned();
                let topics = vec![OffsetCommitTopicResponse { name, partitions }];
                let answer = OffsetCommitResponse { topics, ..OffsetCommitResponse::default() };
                self.answer(caller, number, Ok(Answer::Commit(answer)));
            }
            Ask::Committed(_) => {
                let one = |(partition, offset): (&TopicPartition, &Offset)| {
                    OffsetFetchPartitionResponse {
                        partition_index: partition.partition,
                        committed_offset: Some(*offset),
                        ..OffsetFetchPartitionResponse::default()
                    }
                };
                let partitions = self.group.offsets.iter().map(one).collect();
                let topics = vec![OffsetFetchTopicResponse { name: TOPIC.to_owned(), partitions }];
                let group =
                    OffsetFetchGroupResponse { topics, ..OffsetFetchGroupResponse::default() };
                let answer =
                    OffsetFetchResponse { groups: vec![group], ..OffsetFetchResponse::default() };
                self.answer(caller, number, Ok(Answer::Committed(answer)));
            }
        }
    }

    fn standing(&self, member_id: &str, generation: i32) -> ErrorCode {
        if !self.group.members.contains_key(member_id) {
            ErrorCode::UnknownMemberId
        } else if generation != self.group.generation {
            ErrorCode::IllegalGeneration
        } else if self.group.is_preparing {
            ErrorCode::RebalanceInProgress
        } else {
            ErrorCode::None
        }
    }

    fn join(&mut self, parked: Parked, request: JoinGroupRequest) {
        let id = request.member_id.clone();
        if id.is_empty() {
            self.group.next_id += 1;
            let id = format!("m{}", self.group.next_id);
            self.group.members.insert(id.clone(), parked.caller);
            return self.join_error(&parked, ErrorCode::MemberIdRequired, id);
        }
        if !self.group.members.contains_key(&id) {
            return self.join_error(&parked, ErrorCode::UnknownMemberId, id);
        }
        if !self.group.is_preparing {
            self.prepare();
        }
        let replaced = self.group.joined.insert(id.clone(), (parked, request));
        if let Some((replaced, _)) = replaced {
            self.join_error(&replaced, ErrorCode::RebalanceInProgress, id);
        }
        self.complete();
    }

    /// All have joined: the generation begins.
    fn complete(&mut self) {
        let group = &mut self.group;
        if !group.is_preparing
            || group.members.is_empty()
            || group.members.keys().any(|id| !group.joined.contains_key(id))
        {
            return;
        }
        group.generation += 1;
        group.is_preparing = false;
        let joined = std::mem::take(&mut group.joined);
        let first = &joined.values().next().unwrap().1;
        let protocol = first.protocols[0].name.clone();
        group.leader = joined.keys().next().unwrap().clone();
        let (generation, leader) = (group.generation, group.leader.clone());
        let members: Vec<_> = joined
            .iter()
            .map(|(id, (_, request))| JoinGroupMember {
                member_id: id.clone(),
                group_instance_id: None,
                metadata: request.protocols[0].metadata.clone(),
            })
            .collect();
        for (id, (parked, _)) in joined {
            let answer = JoinGroupResponse {
                generation_id: generation,
                protocol_name: Some(protocol.clone()),
                leader: leader.clone(),
                members: if id == leader { members.clone() } else { Vec::new() },
                member_id: id,
                ..JoinGroupResponse::default()
            };
            self.answer(parked.caller, parked.number, Ok(Answer::Join(answer)));
        }
    }

    fn sync(&mut self, parked: Parked, request: &client_protocol::messages::SyncGroupRequest) {
        let code = self.standing(&request.member_id, request.generation_id);
        if !code.is_none() {
            return self.sync_error(&parked, code);
        }
        if request.member_id == self.group.leader && self.group.shares.is_none() {
            let shares = request.assignments.iter();
            let shares = shares.map(|share| (share.member_id.clone(), share.assignment.clone()));
            self.group.shares = Some(shares.collect());
        }
        let replaced = self.group.synced.insert(request.member_id.clone(), parked);
        if let Some(replaced) = replaced {
            self.sync_error(&replaced, ErrorCode::RebalanceInProgress);
        }
        let Some(shares) = self.group.shares.clone() else { return };
        for (id, parked) in std::mem::take(&mut self.group.synced) {
            let assignment = shares.get(&id).cloned().unwrap_or_default();
            let answer = SyncGroupResponse { assignment, ..SyncGroupResponse::default() };
            self.answer(parked.caller, parked.number, Ok(Answer::Sync(answer)));
        }
    }

    /// A member goes, or is taken for dead.
    fn remove(&mut self, id: &str) {
        if self.group.members.remove(id).is_some() {
            if let Some((parked, _)) = self.group.joined.remove(id) {
                self.join_error(&parked, ErrorCode::UnknownMemberId, id.to_owned());
            }
            if let Some(parked) = self.group.synced.remove(id) {
                self.sync_error(&parked, ErrorCode::UnknownMemberId);
            }
            self.prepare();
            self.complete();
        }
    }

    /// The caller deals with the oldest thing it was told.
    fn attend(&mut self, caller: usize) {
        let of = &mut self.callers[caller];
        of.core.caller_lives(self.now_ms);
        if of.notices.is_empty() {
            return;
        }
        match of.notices.remove(0) {
            Notice::Assigned(partitions) => {
                let owned = of.core.owned().to_vec();
                of.reads.extend(partitions.into_iter().filter(|p| owned.contains(p)));
            }
            Notice::Revoked { number, partitions } => {
                if of.core.let_go(number).is_some() {
                    of.reads.retain(|partition| !partitions.contains(partition));
                }
            }
            Notice::Lost(_) => {}
            Notice::Out(error) => panic!("{error}"),
        }
    }

    /// No two members that the group knows read one partition. (One that the group has given up may, until it hears.)
    fn check(&self, seed: u64) {
        let mut read: BTreeMap<&TopicPartition, usize> = BTreeMap::new();
        for (index, caller) in self.callers.iter().enumerate() {
            let is_member = caller.core.identity().is_some_and(|(id, generation)| {
                self.group.members.contains_key(id) && generation == self.group.generation
            });
            if !is_member {
                continue;
            }
            for partition in &caller.reads {
                let other = read.insert(partition, index);
                assert_eq!(other, None, "seed {seed}: {partition} is also read by {index}");
            }
        }
    }

    fn step(&mut self, seed: u64) {
        let caller = self.random.below(self.callers.len());
        match self.random.below(12) {
            0..=4 if !self.asked.is_empty() => {
                let at = self.random.below(self.asked.len());
                let (of, number, ask) = self.asked.remove(at);
                if self.faults && self.random.one_in(25) {
                    let failure =
                        Failure { reason: "lost".into(), may_be_done: true, is_final: false };
                    // Sometimes it was done, and only the answer is lost.
                    if self.random.one_in(2) && !matches!(ask, Ask::Join(_) | Ask::Sync(_)) {
                        let unheard = Parked { caller: of, number: u64::MAX };
                        self.handle(unheard, ask);
                    }
                    self.answer(of, number, Err(failure));
                } else {
                    self.handle(Parked { caller: of, number }, ask);
                }
            }
            5..=7 => self.attend(caller),
            8 => self.now_ms += u64::try_from(self.random.below(1_000)).unwrap(),
            9 if self.faults => {
                let mut effects = Vec::new();
                let of = &mut self.callers[caller];
                if of.is_there && self.random.one_in(3) {
                    of.core.leave(&mut effects);
                    of.reads.clear();
                    of.notices.clear();
                    of.is_there = false;
                } else if !of.is_there {
                    let topics = BTreeSet::from([Arc::from(TOPIC)]);
                    of.core.subscribe(topics, self.now_ms, &mut effects);
                    of.is_there = true;
                }
                self.perform(caller, effects);
            }
            10 if self.faults && self.random.one_in(4) => {
                // Taken for dead by the group.
                let ids: Vec<_> = self.group.members.keys().cloned().collect();
                if !ids.is_empty() {
                    let id = ids[self.random.below(ids.len())].clone();
                    self.remove(&id);
                }
            }
            11 if self.faults && self.random.one_in(8) => {
                let gone = Route::BrokerDown(BrokerId::new(1));
                self.callers[caller].core.route(&gone, self.now_ms);
            }
            _ => {}
        }
        (0..self.callers.len()).for_each(|caller| self.poll(caller));
        self.check(seed);
    }

    fn run(&mut self, seed: u64) {
        for _ in 0..1_500 {
            self.step(seed);
        }
        self.faults = false;
        // Ids that were given out and never used: the group forgets them after a while.
        let used: BTreeSet<_> =
            self.callers.iter().map(|caller| caller.core.member_id.clone()).collect();
        let ids: Vec<_> = self.group.members.keys().cloned().collect();
        ids.iter().filter(|id| !used.contains(*id)).for_each(|id| self.remove(id));
        let mut steps = 0;
        while !self.is_at_rest() {
            self.step(seed);
            steps += 1;
            if steps % 500 == 0 {
                let used: BTreeSet<_> =
                    self.callers.iter().map(|caller| caller.core.member_id.clone()).collect();
                let ids: Vec<_> = self.group.members.keys().cloned().collect();
                ids.iter().filter(|id| !used.contains(*id)).for_each(|id| self.remove(id));
            }
            assert!(steps < 20_000, "seed {seed}: no rest: {}", self.shown());
        }
    }

    fn shown(&self) -> String {
        let mut text = format!(
            "generation {} of {:?}, preparing {}, joined {:?}, synced {:?}, asked {:?}\n",
            self.group.generation,
            self.group.members,
            self.group.is_preparing,
            self.group.joined.keys(),
            self.group.synced.keys(),
            self.asked,
        );
        for caller in self.callers.iter().filter(|caller| caller.is_there) {
            let core = &caller.core;
            text += &format!(
                "{} {} {:?} {:?} reads {} waits {:?} told {:?}\n",
                core.member_id,
                core.generation,
                core.phase,
                core.coordinator,
                caller.reads.len(),
                core.waiting,
                caller.notices
            );
        }
        text
    }

    fn is_at_rest(&self) -> bool {
        let there: Vec<_> = self.callers.iter().filter(|caller| caller.is_there).collect();
        let is_settled = there.iter().all(|caller| {
            caller.notices.is_empty()
                && caller.core.phase == Phase::Stable
                && caller.core.generation == self.group.generation
        });
        let read: usize = there.iter().map(|caller| caller.reads.len()).sum();
        let all = if there.is_empty() { 0 } else { usize::try_from(PARTITIONS).unwrap() };
        is_settled && !self.group.is_preparing && read == all
    }
}

#[test]
fn no_two_members_read_one_partition_and_in_the_end_all_is_read() {
    let mixed = [Assignor::Range, Assignor::CooperativeSticky];
    // 102: a share that was handed out after membership was lost.
    for seed in (0..20).chain([102]) {
        for assignors in [
            &[Assignor::CooperativeSticky][..],
            &[Assignor::Range],
            &[Assignor::RoundRobin],
            &mixed,
        ] {
            let mut world = World::new(seed, assignors);
            world.run(seed);
            let sizes: Vec<_> = world
                .callers
                .iter()
                .filter(|caller| caller.is_there)
                .map(|caller| caller.reads.len())
                .collect();
            let spread = sizes.iter().max().unwrap_or(&0) - sizes.iter().min().unwrap_or(&0);
            assert!(spread <= 1, "seed {seed} {assignors:?}: {sizes:?}");
        }
    }
}

/// A member alone in its group, at rest.
fn alone(assignor: Assignor) -> World {
    let mut world = World::new(3, &[assignor]);
    world.faults = false;
    let topics = BTreeSet::from([Arc::from(TOPIC)]);
    let mut effects = Vec::new();
    world.callers[0].core.subscribe(topics, 0, &mut effects);
    world.callers[0].is_there = true;
    world.perform(0, effects);
    while !world.is_at_rest() {
        world.step(3);
    }
    world
}

#[test]
fn commits_go_one_after_the_other_and_are_told_of() {
    let mut world = alone(Assignor::Range);
    let position = |offset| Position { offset: Offset::new(offset), epoch: None };
    let of = TopicPartition::new(TOPIC, 0);
    let now_ms = world.now_ms;
    for (token, offset) in [(7, 10), (8, 20)] {
        let offsets = vec![(of.clone(), position(offset))];
        world.callers[0].core.commit(token, offsets, now_ms);
    }
    world.poll(0);
    let commits = world.asked.iter().filter(|(_, _, ask)| matches!(ask, Ask::Commit(_))).count();
    assert_eq!(commits, 1, "the second waits for the first");
    while world.done < 2 {
        world.step(3);
    }
    assert_eq!(world.group.offsets[&of], Offset::new(20));
}

#[test]
fn what_was_asked_as_a_member_ends_with_the_membership() {
    let mut world = alone(Assignor::Range);
    let of = TopicPartition::new(TOPIC, 0);
    let position = Position { offset: Offset::new(10), epoch: None };
    let (caller, metadata) = (&mut world.callers[0], &world.metadata);
    let mut effects = Vec::new();
    // One is under way, the other waits for it.
    for token in [7, 8] {
        caller.core.commit(token, vec![(of.clone(), position)], world.now_ms);
    }
    caller.core.want_committed([of.clone()]);
    world.now_ms += 3_000;
    caller.core.poll(metadata, world.now_ms, &mut effects);
    let number_of = |kind: fn(&Ask) -> bool| {
        let asked = effects.iter().find_map(|effect| match effect {
            Effect::Ask { number, body, .. } if kind(body) => Some(*number),
            _ => None,
        });
        asked.unwrap_or_else(|| panic!("not asked: {effects:?}"))
    };
    let heartbeat = number_of(|ask| matches!(ask, Ask::Heartbeat(_)));
    let commit = number_of(|ask| matches!(ask, Ask::Commit(_)));
    let committed = number_of(|ask| matches!(ask, Ask::Committed(_)));

    let mut effects = Vec::new();
    let answer = HeartbeatResponse {
        error_code: ErrorCode::UnknownMemberId,
        ..HeartbeatResponse::default()
    };
    let answer = Ok(Answer::Heartbeat(answer));
    caller.core.answered(heartbeat, answer, world.now_ms, &mut effects);
    let refused = GroupError::Refused { group: "g".to_owned(), code: ErrorCode::IllegalGeneration };
    for token in [7, 8] {
        let done = Effect::CommitDone { token, result: Err(refused.clone()) };
        assert!(effects.contains(&done), "{token}: {effects:?}");
    }

    // What is answered late means nothing, and nothing is tried again.
    let mut effects = Vec::new();
    let failure = Failure { reason: "lost".into(), may_be_done: true, is_final: false };
    caller.core.answered(commit, Err(failure), world.now_ms, &mut effects);
    let answer = Ok(Answer::Committed(OffsetFetchResponse::default()));
    caller.core.answered(committed, answer, world.now_ms, &mut effects);
    world.now_ms += 10_000;
    caller.core.poll(metadata, world.now_ms, &mut effects);
    assert!(
        matches!(&effects[..], [Effect::Ask { body: Ask::Join(_), .. }]),
        "no more than a new beginning: {effects:?}"
    );
}

#[test]
fn a_commit_goes_under_the_generation_in_which_it_was_told() {
    let mut world = alone(Assignor::CooperativeSticky);
    let generation = world.group.generation;
    let position = Position { offset: Offset::new(10), epoch: None };
    let commits = |world: &World| -> Vec<_> {
        let asked = world.asked.iter().filter_map(|(_, number, ask)| match ask {
            Ask::Commit(request) => Some((*number, request.generation_id_or_member_epoch)),
            _ => None,
        });
        asked.collect()
    };
    let of = TopicPartition::new(TOPIC, 0);
    world.callers[0].core.commit(7, vec![(of, position)], world.now_ms);
    world.poll(0);
    let asked = commits(&world);
    assert_eq!(asked[0].1, generation);
    // It fails, and meanwhile the group goes on to another generation with this member.
    world.asked.retain(|(_, number, _)| *number != asked[0].0);
    let now_ms = world.now_ms;
    let failure = Failure { reason: "lost".into(), may_be_done: true, is_final: false };
    let mut effects = Vec::new();
    world.callers[0].core.answered(asked[0].0, Err(failure), now_ms, &mut effects);
    world.group.generation += 1;
    world.callers[0].core.generation = world.group.generation;
    world.perform(0, effects);
    let mut steps = 0;
    while commits(&world).is_empty() {
        world.step(3);
        steps += 1;
        assert!(steps < 1_000, "{}", world.shown());
    }
    assert_eq!(commits(&world)[0].1, generation);
}

#[test]
fn a_caller_that_does_not_come_back_loses_its_share_and_gets_one_anew() {
    let mut world = alone(Assignor::CooperativeSticky);
    world.now_ms += 300_001;
    world.poll(0);
    assert!(matches!(&world.callers[0].notices[..], [Notice::Lost(lost)] if lost.len() == 7));
    assert!(world.asked.iter().any(|(_, _, ask)| matches!(ask, Ask::Leave(_))));
    assert_eq!(world.callers[0].core.identity(), None);
    world.attend(0);
    while !world.is_at_rest() {
        world.step(3);
    }
}

#[test]
fn the_hash_of_a_group_is_javas() {
    assert_eq!(java_hash("readers"), 1_080_410_128);
    assert_eq!(java_hash(""), 0);
    assert_eq!(java_hash("a"), 97);
    assert_eq!(java_hash("ab"), 97 * 31 + 98);
}

#[test]
fn an_assignment_of_no_bytes_is_an_empty_one() {
    assert_eq!(Assignment::decode(&[]).unwrap().assigned_partitions, []);
}

fn found(broker: i32) -> Answer {
    let found = FoundCoordinator {
        node_id: Some(BrokerId::new(broker)),
        host: "h".to_owned(),
        port: broker,
        ..FoundCoordinator::default()
    };
    let coordinators = vec![found];
    Answer::Find(FindCoordinatorResponse { coordinators, ..FindCoordinatorResponse::default() })
}

fn lost() -> Failure {
    Failure { reason: "lost".to_owned(), may_be_done: true, is_final: false }
}

/// What a core asks at `now_ms`.
fn asks(core: &mut Member, metadata: &Metadata, now_ms: u64) -> Vec<(u64, Ask)> {
    let mut effects = Vec::new();
    core.poll(metadata, now_ms, &mut effects);
    let asked = effects.into_iter().filter_map(|effect| match effect {
        Effect::Ask { number, body, .. } => Some((number, body)),
        _ => None,
    });
    asked.collect()
}

#[test]
fn a_coordinator_that_is_named_but_gone_is_asked_for_less_and_less_often() {
    let mut core = Member::new(settings());
    let mut effects = Vec::new();
    core.subscribe(BTreeSet::from([Arc::from(TOPIC)]), 0, &mut effects);
    let (mut now_ms, mut finds) = (0, Vec::new());
    while now_ms < 10_000 {
        let asked = asks(&mut core, &metadata(), now_ms);
        if asked.is_empty() {
            now_ms = core.poll(&metadata(), now_ms, &mut effects).unwrap().max(now_ms + 1);
        }
        for (number, ask) in asked {
            let is_find = matches!(ask, Ask::Find(_));
            let answer = if is_find { Ok(found(1)) } else { Err(lost()) };
            finds.extend(is_find.then_some(now_ms));
            core.answered(number, answer, now_ms, &mut effects);
        }
        assert!(finds.len() < 30, "{finds:?}");
    }
    assert!(finds.len() > 8, "{finds:?}");
    assert_eq!(finds[..2], [0, 0], "the first time others may know better at once");

    // One that answers is trusted anew.
    let mut asked = asks(&mut core, &metadata(), now_ms + 1_000);
    while let Some((number, ask)) = asked.pop() {
        let answer = match ask {
            Ask::Find(_) => found(1),
            Ask::Join(_) => Answer::Join(JoinGroupResponse {
                error_code: ErrorCode::MemberIdRequired,
                member_id: "m".to_owned(),
                ..JoinGroupResponse::default()
            }),
            ask => panic!("{ask:?}"),
        };
        core.answered(number, Ok(answer), now_ms, &mut effects);
        if core.member_id.is_empty() {
            asked = asks(&mut core, &metadata(), now_ms + 1_000);
        }
    }
    now_ms += 2_000;
    let (number, _) = asks(&mut core, &metadata(), now_ms).remove(0);
    core.answered(number, Err(lost()), now_ms, &mut effects);
    assert!(matches!(asks(&mut core, &metadata(), now_ms)[..], [(_, Ask::Find(_))]));
}

#[test]
fn what_a_dead_coordinator_was_asked_the_next_one_is_asked_though_no_answer_came() {
    let mut world = alone(Assignor::CooperativeSticky);
    let (core, now_ms) = (&mut world.callers[0].core, world.now_ms);
    let of = TopicPartition::new(TOPIC, 0);
    let position = Position { offset: Offset::new(10), epoch: None };
    core.commit(7, vec![(of.clone(), position)], now_ms);
    core.want_committed([of]);
    let former = asks(core, &world.metadata, now_ms);
    core.route(&Route::BrokerDown(BrokerId::new(1)), now_ms);
    let (number, _) = asks(core, &world.metadata, now_ms).remove(0);
    let mut effects = Vec::new();
    core.answered(number, Ok(found(2)), now_ms, &mut effects);
    let again = asks(core, &world.metadata, now_ms);
    let is_there = |kind: fn(&Ask) -> bool| again.iter().any(|(_, ask)| kind(ask));
    assert!(is_there(|ask| matches!(ask, Ask::Commit(_))), "{again:?}");
    assert!(is_there(|ask| matches!(ask, Ask::Committed(_))), "{again:?}");
    // What the former one says late is no reason to leave the new one.
    for (number, _) in former {
        core.answered(number, Err(lost()), now_ms, &mut effects);
    }
    assert_eq!(asks(core, &world.metadata, now_ms), []);
    assert_eq!(effects, []);
}

#[test]
fn leaders_that_are_told_one_by_one_are_no_reason_to_join_anew() {
    let mut core = Member::new(settings());
    let mut effects = Vec::new();
    core.subscribe(BTreeSet::from([Arc::from(TOPIC)]), 0, &mut effects);
    let (number, _) = asks(&mut core, &metadata(), 0).remove(0);
    core.answered(number, Ok(found(2)), 0, &mut effects);
    assert!(matches!(asks(&mut core, &metadata(), 0)[..], [(_, Ask::Join(_))]));
    // What the subscription begins with: one partition after the other, the group's among them.
    let ours = java_hash(&settings().group_id) % 50;
    let led = |partition, broker| Route::Leader {
        partition: TopicPartition::new(OFFSETS_TOPIC, partition),
        leader: Leader { broker: Some(BrokerId::new(broker)), ..Leader::default() },
    };
    for partition in 0..50 {
        core.route(&led(partition, if partition == ours { 2 } else { 1 }), 1);
        assert_eq!(asks(&mut core, &metadata(), 1), [], "at partition {partition}");
    }
    // And what changes later: others' partitions, then the group's.
    core.route(&led((ours + 1) % 50, 2), 2);
    core.route(&led((ours + 1) % 50, 1), 2);
    assert_eq!(asks(&mut core, &metadata(), 2), []);
    core.route(&led(ours, 3), 2);
    assert!(matches!(asks(&mut core, &metadata(), 2)[..], [(_, Ask::Find(_))]));
}

#[test]
fn whoever_was_put_out_may_subscribe_again() {
    let mut world = alone(Assignor::Range);
    let (core, now_ms) = (&mut world.callers[0].core, world.now_ms);
    let mut effects = Vec::new();
    core.out(ErrorCode::GroupAuthorizationFailed, &mut effects);
    core.caller_lives(now_ms);
    assert_eq!(asks(core, &world.metadata, now_ms), [], "not by itself");
    core.subscribe(BTreeSet::from([Arc::from(TOPIC)]), now_ms, &mut effects);
    assert!(matches!(asks(core, &world.metadata, now_ms)[..], [(_, Ask::Join(_))]));
}

#[test]
fn partitions_heard_of_while_the_share_is_on_its_way_are_shared_out() {
    let mut world = World::new(3, &[Assignor::Range]);
    world.faults = false;
    world.metadata = Metadata::default();
    world.metadata.adopt(client_protocol::messages::MetadataResponse::default(), &[TOPIC.into()]);
    let mut effects = Vec::new();
    world.callers[0].core.subscribe(BTreeSet::from([Arc::from(TOPIC)]), 0, &mut effects);
    world.callers[0].is_there = true;
    world.perform(0, effects);
    let mut steps = 0;
    while world.callers[0].core.owned().len() < 7 {
        world.step(3);
        if world.callers[0].core.phase == Phase::Syncing {
            world.metadata = metadata();
        }
        steps += 1;
        assert!(steps < 10_000, "{}", world.shown());
    }
}

#[test]
fn a_deleted_topic_holds_up_no_commit_of_others_for_long() {
    let mut world = alone(Assignor::Range);
    let (core, mut now_ms) = (&mut world.callers[0].core, world.now_ms);
    let position = Position { offset: Offset::new(10), epoch: None };
    let there = TopicPartition::new(TOPIC, 0);
    let gone = TopicPartition::new("gone", 0);
    core.commit(7, vec![(there.clone(), position), (gone, position)], now_ms);
    core.commit(8, vec![(there, position)], now_ms);
    let (until_ms, mut done, mut tries) = (now_ms + 5_000, Vec::new(), Vec::new());
    while !done.iter().any(|(token, _)| *token == 8) {
        assert!(now_ms < until_ms, "{tries:?} {done:?}");
        let mut effects = Vec::new();
        let next = core.poll(&world.metadata, now_ms, &mut effects);
        let mut asked = effects.iter().filter_map(|effect| match effect {
            Effect::Ask { number, body: Ask::Commit(request), .. } => Some((*number, request)),
            _ => None,
        });
        let Some((number, request)) = asked.next_back() else {
            now_ms = next.unwrap().max(now_ms + 1);
            continue;
        };
        let names: Vec<_> = request.topics.iter().map(|topic| topic.name.clone()).collect();
        let topics = names.iter().map(|name| OffsetCommitTopicResponse {
            name: name.clone(),
            partitions: vec![OffsetCommitPartitionResponse {
                error_code: match name.as_str() {
                    TOPIC => ErrorCode::None,
                    _ => ErrorCode::UnknownTopicOrPartition,
                },
                ..OffsetCommitPartitionResponse::default()
            }],
        });
        let answer =
            OffsetCommitResponse { topics: topics.collect(), ..OffsetCommitResponse::default() };
        tries.push(names);
        let mut effects = Vec::new();
        core.answered(number, Ok(Answer::Commit(answer)), now_ms, &mut effects);
        done.extend(effects.into_iter().filter_map(|effect| match effect {
            Effect::CommitDone { token, result } => Some((token, result.is_ok())),
            _ => None,
        }));
    }
    assert_eq!(done, [(7, false), (8, true)]);
    assert_eq!(tries[1], ["gone"], "only what was refused is tried again");
    assert!(tries.len() > 4, "a topic may be about to come up: {tries:?}");
}

fn sync_of(asked: &[(u64, Ask)]) -> Option<&client_protocol::messages::SyncGroupRequest> {
    asked.iter().find_map(|(_, ask)| match ask {
        Ask::Sync(request) => Some(request),
        _ => None,
    })
}

/// A static member alone, its JoinGroup answered, by which it leads or not: what it asks next, and the number of that.
fn joined_alone(core: &mut Member, leads: bool, effects: &mut Vec<Effect>) -> Vec<(u64, Ask)> {
    core.subscribe(BTreeSet::from([Arc::from(TOPIC)]), 0, effects);
    let (number, _) = asks(core, &metadata(), 0).remove(0);
    core.answered(number, Ok(found(1)), 0, effects);
    let (number, _) = asks(core, &metadata(), 0).remove(0);
    let joined = JoinGroupResponse {
        generation_id: 7,
        protocol_name: Some("cooperative-sticky".to_owned()),
        leader: if leads { "m" } else { "former" }.to_owned(),
        skip_assignment: leads,
        member_id: "m".to_owned(),
        ..JoinGroupResponse::default()
    };
    core.answered(number, Ok(Answer::Join(joined)), 0, effects);
    effects
        .drain(..)
        .filter_map(|effect| match effect {
            Effect::Ask { number, body, .. } => Some((number, body)),
            _ => None,
        })
        .collect()
}

#[test]
fn a_static_member_that_comes_back_to_a_partial_share_has_the_rest_given_out() {
    for (is_partial, joins_again) in [(true, true), (false, false)] {
        let instance_id = Some("i".to_owned());
        let mut core = Member::new(Settings { instance_id, ..settings() });
        let mut effects = Vec::new();
        let asked = joined_alone(&mut core, false, &mut effects);
        assert!(sync_of(&asked).is_some(), "{asked:?}");
        let user_data = Note { is_partial, shared_by: None }.encode();
        let share = Assignment { user_data, ..Assignment::default() };
        let assignment = share.encode().unwrap();
        let synced = SyncGroupResponse { assignment, ..SyncGroupResponse::default() };
        core.answered(asked[0].0, Ok(Answer::Sync(synced.clone())), 0, &mut effects);
        let next = asks(&mut core, &metadata(), 0);
        let joins = next.iter().filter(|(_, ask)| matches!(ask, Ask::Join(_))).count();
        assert_eq!(joins, usize::from(joins_again), "{next:?}");
    }
}

#[test]
fn a_share_says_whether_partitions_wait_for_those_that_have_them() {
    let mut core = Member::new(settings());
    core.generation = 2;
    let share = vec![TopicPartition::new(TOPIC, 0)];
    let shares = BTreeMap::from([("m".to_owned(), share)]);
    for is_partial in [true, false] {
        let request = core.sync_request(&shares, is_partial);
        let share = Assignment::decode(&request.assignments[0].assignment).unwrap();
        assert_eq!(share.user_data, Note { is_partial, shared_by: None }.encode());
    }
}

/// It is given its share without a rebalance, so that nobody else looks whether topics have grown.
#[test]
fn a_static_leader_that_comes_back_shares_out_what_grew_before_or_after() {
    let counts = |count| Some(assign::PartitionCounts::from([(Arc::from(TOPIC), count)]));
    let now = metadata().partitions(TOPIC).unwrap();
    for (shared_by, joins_at_once) in [(counts(now), false), (counts(now - 1), true), (None, true)]
    {
        let instance_id = Some("i".to_owned());
        let mut core = Member::new(Settings { instance_id, ..settings() });
        let mut effects = Vec::new();
        let asked = joined_alone(&mut core, true, &mut effects);
        assert!(sync_of(&asked).is_some_and(|sync| sync.assignments.is_empty()), "{asked:?}");
        let user_data = Note { is_partial: false, shared_by }.encode();
        let share = Assignment { user_data, ..Assignment::default() };
        let assignment = share.encode().unwrap();
        let synced = SyncGroupResponse { assignment, ..SyncGroupResponse::default() };
        core.answered(asked[0].0, Ok(Answer::Sync(synced)), 0, &mut effects);
        let mut joins = |metadata: &Metadata| {
            let next = asks(&mut core, metadata, 0);
            next.iter().any(|(_, ask)| matches!(ask, Ask::Join(_)))
        };
        assert_eq!(joins(&metadata()), joins_at_once);
        if !joins_at_once {
            assert!(joins(&metadata_of(now + 1)));
        }
    }
}

#[test]
fn a_static_leader_notes_in_its_own_share_by_how_many_partitions_it_shared() {
    let instance_id = Some("i".to_owned());
    let mut core = Member::new(Settings { instance_id, ..settings() });
    core.member_id = "m".to_owned();
    core.shared_by = Some(assign::PartitionCounts::from([(Arc::from(TOPIC), 3)]));
    let share = vec![TopicPartition::new(TOPIC, 0)];
    let shares = BTreeMap::from([("m".to_owned(), share.clone()), ("n".to_owned(), share)]);
    let request = core.sync_request(&shares, false);
    for given in &request.assignments {
        let share = Assignment::decode(&given.assignment).unwrap();
        let note = Note::decode(&share.user_data.unwrap_or_default());
        let is_leader = given.member_id == "m";
        assert_eq!(note.shared_by, core.shared_by.clone().filter(|_| is_leader));
    }
}

#[test]
fn a_position_asked_for_before_a_partition_was_let_go_does_not_count_when_it_comes_back() {
    let mut world = alone(Assignor::CooperativeSticky);
    let (core, now_ms) = (&mut world.callers[0].core, world.now_ms);
    let of = core.owned()[0].clone();
    core.want_committed([of.clone()]);
    let asked = asks(core, &world.metadata, now_ms);
    let is_position = |(_, ask): &&(u64, Ask)| matches!(ask, Ask::Committed(_));
    let (number, _) = asked.iter().find(is_position).expect("it is asked").clone();
    let mut effects = Vec::new();
    core.revoke(vec![of.clone()], &mut effects);
    let (revocation, _) = core.revocation.clone().unwrap();
    assert_eq!(core.let_go(revocation), Some(vec![of.clone()]));
    effects.clear();
    let partition = OffsetFetchPartitionResponse {
        partition_index: of.partition,
        committed_offset: Some(Offset::new(5)),
        ..OffsetFetchPartitionResponse::default()
    };
    let topics =
        vec![OffsetFetchTopicResponse { name: TOPIC.to_owned(), partitions: vec![partition] }];
    let group = OffsetFetchGroupResponse { topics, ..OffsetFetchGroupResponse::default() };
    let former = OffsetFetchResponse { groups: vec![group], ..OffsetFetchResponse::default() };
    core.answered(number, Ok(Answer::Committed(former)), now_ms, &mut effects);
    let placed = effects.iter().any(|effect| match effect {
        Effect::Committed(placed) => !placed.is_empty(),
        _ => false,
    });
    assert!(!placed, "{effects:?}");
    assert!(core.wanted.is_empty());
}
