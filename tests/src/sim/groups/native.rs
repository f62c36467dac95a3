//! A member that is the native client's own deciding code, with its caller and its connections.
//!
//! Called by: `natives`. Calls: client-core. Invariant: as in the client's shell, what is given counts as held from the moment at which
//! the core tells of it; what is lost until that moment; what is revoked until the caller has let it go. Decides nothing that the core decides.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use broker_core::group::{Join, Request, Response};
use client_core::consumer::read::Position;
use client_core::group::{Answer, Ask, Effect, Member as Core, Notice, Settings};
use client_core::{Metadata, TopicPartition};
use client_protocol::messages::consumer_protocol::Subscription;
use client_protocol::messages::metadata::{MetadataPartition, MetadataTopic};
use client_protocol::messages::{
    HeartbeatResponse, JoinGroupRequest, MetadataResponse, OffsetFetchResponse,
};
use client_protocol::{Offset, PartitionId};

use super::cast::Part;
use super::member::{GROUP, TOPIC};
use crate::sim::random::Random;

/// How long the others wait for it in a rebalance, and its caller may stand still.
pub const REBALANCE_TIMEOUT_MS: u64 = 10_000;

/// A partition that the caller reads.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// How far; none until the group has said where to begin.
    pub position: Option<i64>,
    /// What was committed last.
    committed: Option<i64>,
    /// Where in the log the newest commit stood that was acknowledged when the partition was given.
    pub since: Option<usize>,
}

/// A commit that has not come to its end.
#[derive(Clone, Debug)]
pub struct Commit {
    /// By partition.
    pub offsets: Vec<(i32, i64)>,
    /// When it should have.
    pub until_ms: u64,
}

/// A connection: what was asked is answered in that order.
#[derive(Debug)]
pub struct Link {
    /// Never the same again.
    pub id: u64,
    /// When the last of what was sent arrives, there and back.
    pub there_ms: u64,
    /// The same.
    pub back_ms: u64,
    /// What is not answered.
    pub queue: VecDeque<u64>,
    /// Answers that wait for those before them.
    pub ready: BTreeMap<u64, Response>,
    /// Nothing comes back on it any more.
    pub is_still: bool,
}

/// Broker, and whether it is the one for offsets.
pub type Key = (i32, bool);

/// A request that is not answered.
#[derive(Debug)]
pub struct Sent {
    /// As the core calls it.
    pub ask: u64,
    /// On which connection, if there was one to be had.
    pub key: Option<Key>,
    /// Whether the one that answered led.
    pub by_leader: bool,
}

/// See the module.
pub struct Native {
    /// The client's.
    pub core: Core,
    /// What it plays.
    pub part: Part,
    settings: Settings,
    /// What it knows of the topic.
    pub metadata: Metadata,
    /// Its process runs, and its caller wants a share.
    pub is_in: bool,
    /// In which generation it was last given work. It may have joined a later one; that this comes to something is known only
    /// when there is work, and until then another one may get its number from another coordinator.
    pub works_in: Option<i32>,
    /// What the caller has, by partition.
    pub reads: BTreeMap<i32, Reading>,
    notices: VecDeque<Notice>,
    /// The revocation that the caller deals with, and the commit that it waits for.
    letting_go: Option<(u64, u64)>,
    /// By token.
    pub commits: BTreeMap<u64, Commit>,
    last_token: u64,
    /// Its connections.
    pub links: BTreeMap<Key, Link>,
    /// By the network's number.
    pub sent: BTreeMap<u64, Sent>,
    /// Until then its caller does not look.
    pub stands_until_ms: u64,
    /// Until then its process stands still.
    pub paused_until_ms: u64,
    /// When it will look at its clock.
    pub wakes_at_ms: u64,
    /// When the last notification arrives.
    pub told_at_ms: u64,
}

impl Native {
    /// One that has not started. `change` is made to the settings that its part gives.
    pub fn new(number: usize, part: Part, change: &dyn Fn(&mut Settings)) -> Native {
        let mut settings = Settings {
            group_id: GROUP.to_owned(),
            instance_id: part.is_static.then(|| format!("native-{number}")),
            assignors: part.assignors.clone(),
            session_timeout_ms: 6_000,
            heartbeat_ms: part.heartbeat_ms,
            rebalance_timeout_ms: i32::try_from(REBALANCE_TIMEOUT_MS).expect("small"),
            commit_timeout_ms: part.commit_timeout_ms,
            ..Settings::default()
        };
        change(&mut settings);
        Native {
            core: Core::new(settings.clone()),
            part,
            settings,
            metadata: Metadata::default(),
            is_in: false,
            works_in: None,
            reads: BTreeMap::new(),
            notices: VecDeque::new(),
            letting_go: None,
            commits: BTreeMap::new(),
            last_token: 0,
            links: BTreeMap::new(),
            sent: BTreeMap::new(),
            stands_until_ms: 0,
            paused_until_ms: 0,
            wakes_at_ms: u64::MAX,
            told_at_ms: 0,
        }
    }

    /// Its process ends: it knows nothing any more.
    pub fn forget(&mut self) {
        self.core = Core::new(self.settings.clone());
        self.metadata = Metadata::default();
        self.is_in = false;
        self.let_everything_go();
        self.commits.clear();
        self.links.clear();
        self.sent.clear();
        (self.stands_until_ms, self.paused_until_ms) = (0, 0);
    }

    fn let_everything_go(&mut self) {
        self.works_in = None;
        self.reads.clear();
        self.notices.clear();
        self.letting_go = None;
    }

    /// Wants a share.
    pub fn start(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        self.is_in = true;
        self.core.subscribe(BTreeSet::from([Arc::from(TOPIC)]), now_ms, effects);
    }

    /// Goes, and says so.
    pub fn leave(&mut self, effects: &mut Vec<Effect>) {
        self.is_in = false;
        self.let_everything_go();
        self.core.leave(effects);
    }

    /// It is named in assertions so.
    pub fn name(&self, number: usize) -> String {
        format!("native {number} {:?}", self.core.identity())
    }

    /// Takes what its core tells; `acknowledged` is where in the log a partition's newest commit stands.
    pub fn told(&mut self, notice: Notice, acknowledged: &BTreeMap<i32, usize>) {
        match &notice {
            Notice::Assigned(partitions) => {
                self.works_in = self.core.identity().map(|(_, generation)| generation);
                for partition in partitions {
                    let number = partition.partition.get();
                    let since = acknowledged.get(&number).copied();
                    let before = self.reads.insert(number, Reading { since, ..Reading::default() });
                    assert!(before.is_none(), "{partition} is given to a caller that has it");
                }
                self.core.want_committed(partitions.iter().cloned());
            }
            Notice::Lost(partitions) => {
                self.reads.retain(|number, _| !names(partitions, *number));
            }
            Notice::Revoked { .. } | Notice::Out(_) => {}
        }
        self.notices.push_back(notice);
    }

    /// The caller looks: it works, commits now and then, and deals with what it was told. Why it was put out, if it was.
    pub fn look(
        &mut self,
        now_ms: u64,
        random: &mut Random,
        next_offset: &mut i64,
    ) -> Option<client_core::group::GroupError> {
        self.core.caller_lives(now_ms);
        for reading in self.reads.values_mut().filter(|reading| reading.position.is_some()) {
            if random.chance(1, 2) {
                *next_offset += 1;
                reading.position = Some(*next_offset);
            }
        }
        if random.chance(1, 3) {
            self.commit(now_ms, |_| true);
        }
        if let Some((number, token)) = self.letting_go {
            if !self.commits.contains_key(&token) {
                self.letting_go = None;
                self.let_go(number);
            }
            return None;
        }
        match self.notices.pop_front()? {
            Notice::Assigned(_) | Notice::Lost(_) => None,
            Notice::Revoked { number, partitions } => {
                if self.core.is_revoking(number) {
                    let token = self.commit(now_ms, |of| names(&partitions, of));
                    self.letting_go = Some((number, token));
                }
                None
            }
            Notice::Out(error) => Some(error),
        }
    }

    fn let_go(&mut self, number: u64) {
        let partitions = self.core.let_go(number).unwrap_or_default();
        self.reads.retain(|number, _| !names(&partitions, *number));
    }

    /// Commits what was processed of some partitions since the last time. The token of the commit, or of none.
    fn commit(&mut self, now_ms: u64, is_meant: impl Fn(i32) -> bool) -> u64 {
        let mut offsets = Vec::new();
        for (number, reading) in self.reads.iter_mut().filter(|(number, _)| is_meant(**number)) {
            if reading.position > reading.committed && reading.position > Some(0) {
                reading.committed = reading.position;
                offsets.extend(reading.position.map(|position| (*number, position)));
            }
        }
        self.last_token += 1;
        if !offsets.is_empty() {
            let position = |offset| Position { offset: Offset::new(offset), epoch: None };
            let said = offsets
                .iter()
                .map(|(number, offset)| (TopicPartition::new(TOPIC, *number), position(*offset)));
            self.core.commit(self.last_token, said.collect(), now_ms);
            let until_ms = now_ms + self.part.commit_timeout_ms;
            self.commits.insert(self.last_token, Commit { offsets, until_ms });
        }
        self.last_token
    }

    /// All of it is to be committed again.
    pub fn commit_failed(&mut self, commit: &Commit) {
        for (number, _) in &commit.offsets {
            if let Some(reading) = self.reads.get_mut(number) {
                reading.committed = None;
            }
        }
    }

    /// It asks to join: what its caller has must have been let go, or be named.
    pub fn check_join(&self, number: usize, join: &JoinGroupRequest) {
        for protocol in &join.protocols {
            let said = Subscription::decode(&protocol.metadata).expect("the core wrote it");
            let owned = said.owned_partitions.iter().flat_map(|topic| &topic.partitions);
            let owned: BTreeSet<i32> = owned.map(|partition| partition.get()).collect();
            let unsaid: Vec<_> = self.reads.keys().filter(|one| !owned.contains(one)).collect();
            let name = self.name(number);
            assert!(unsaid.is_empty(), "{name} joins while its caller still reads {unsaid:?}");
        }
    }

    /// Hears of the topic.
    pub fn hear_of_topic(&mut self, count: i32) {
        let partitions = (0..count).map(|number| MetadataPartition {
            partition_index: PartitionId::new(number),
            ..Default::default()
        });
        let topic = MetadataTopic {
            name: Some(TOPIC.to_owned()),
            partitions: partitions.collect(),
            ..Default::default()
        };
        let answer = MetadataResponse { topics: vec![topic], ..Default::default() };
        self.metadata.adopt(answer, &[Arc::from(TOPIC)]);
    }
}

fn names(partitions: &[TopicPartition], number: i32) -> bool {
    partitions.iter().any(|partition| partition.partition.get() == number)
}

/// As a shard is asked; none for what any broker can be asked.
pub fn request(body: Ask, client_id: String, random: &mut Random) -> Option<Request> {
    Some(match body {
        Ask::Find(_) => return None,
        Ask::Join(request) => {
            let mut entropy = [0; 16];
            entropy[..8].copy_from_slice(&random.number().to_be_bytes());
            Request::Join(Box::new(Join {
                request,
                client_id,
                client_host: "/127.0.0.1".to_owned(),
                entropy,
                member_id_required: true,
                knows_skip_assignment: random.chance(3, 4),
            }))
        }
        Ask::Sync(request) => Request::Sync(request),
        Ask::Heartbeat(request) => Request::Heartbeat(request),
        Ask::Leave(request) => Request::Leave(request),
        Ask::Commit(request) => Request::OffsetCommit(request),
        Ask::Committed(request) => {
            Request::OffsetFetch(request.groups.into_iter().next().expect("one group is asked for"))
        }
    })
}

/// As the core is answered.
pub fn answer(response: Response) -> Answer {
    match response {
        Response::Join(response) => Answer::Join(response),
        Response::Sync(response) => Answer::Sync(response),
        Response::Heartbeat(error_code) => {
            Answer::Heartbeat(HeartbeatResponse { error_code, ..Default::default() })
        }
        Response::Leave(response) => Answer::Leave(response),
        Response::OffsetCommit(response) => Answer::Commit(response),
        Response::OffsetFetch(group) => {
            Answer::Committed(OffsetFetchResponse { groups: vec![group], ..Default::default() })
        }
        Response::OffsetDelete(_)
        | Response::List(_)
        | Response::Describe(_)
        | Response::Delete(_) => unreachable!("no member asks that"),
    }
}
