//! One shard, step by step: what is asked, what is answered, what is written.

mod commits;
mod members;
mod restarts;

use client_protocol::messages::join_group::JoinGroupProtocol;
use client_protocol::messages::sync_group::SyncGroupAssignment;
use client_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse,
};

use super::*;
use crate::ids::Millis;

/// A shard with its log, its clock and its answers.
pub(super) struct Bench {
    pub shard: Shard,
    pub log: Vec<LogRecord>,
    pub now: Now,
    pub answers: Vec<(Ticket, Response)>,
    pub writes: Vec<(WriteId, Vec<LogRecord>)>,
    next_ticket: u64,
}

/// A day in 1970.
const WALL_MS: i64 = 1_000_000;

impl Bench {
    pub fn new() -> Self {
        Self::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Self {
        let mut shard = Shard::new(settings);
        let now = Now { mono: Millis::new(0), wall_ms: WALL_MS };
        shard.loaded(now);
        let (log, answers, writes) = (Vec::new(), Vec::new(), Vec::new());
        Self { shard, log, now, answers, writes, next_ticket: 0 }
    }

    /// Another shard that replays the log of this one.
    pub fn reload(&self, settings: Settings) -> Self {
        let mut other = Self::with(settings);
        other.shard = Shard::new(Settings::default());
        for record in &self.log {
            let record = GroupRecord::decode(&record.key, record.value.as_deref());
            other.shard.replay(record.expect("our own record"));
        }
        other.log.clone_from(&self.log);
        other.now = self.now;
        other.shard.loaded(self.now);
        other.shard.check();
        other
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Respond { ticket, response } => self.answers.push((ticket, response)),
                Effect::Write { write, records } => self.writes.push((write, records)),
            }
        }
        self.shard.check();
    }

    /// Asks; answers and writes are kept until they are looked at.
    pub fn ask(&mut self, request: Request) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let mut effects = Vec::new();
        self.shard.handle(ticket, &request, self.now, &mut effects);
        self.take(effects);
        ticket
    }

    /// What was asked is answered already, or, with `commit`, once the log has what is on its way.
    pub fn answer(&mut self, ticket: Ticket) -> Option<Response> {
        let at = self.answers.iter().position(|(other, _)| *other == ticket)?;
        Some(self.answers.remove(at).1)
    }

    /// The log takes all that is on its way.
    pub fn commit(&mut self) {
        while !self.writes.is_empty() {
            let (write, records) = self.writes.remove(0);
            self.log.extend(records);
            self.settle(write, Ok(()));
        }
    }

    /// What becomes of one write.
    pub fn settle(&mut self, write: WriteId, result: Result<(), client_protocol::ErrorCode>) {
        let mut effects = Vec::new();
        self.shard.settled(write, result, self.now, &mut effects);
        self.take(effects);
    }

    pub fn forget_topics(&mut self, topics: &[&str]) {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let mut effects = Vec::new();
        self.shard.forget_topics(&topics, self.now, &mut effects);
        self.take(effects);
    }

    /// Time passes, and everything that falls due on the way happens at its time.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now.mono.plus(ms);
        while let Some(next) = self.shard.next_deadline().filter(|next| *next <= end) {
            self.advance(next);
        }
        self.advance(end);
    }

    fn advance(&mut self, to: Millis) {
        let ms = to.since(self.now.mono);
        self.now.mono = self.now.mono.plus(ms);
        self.now.wall_ms += i64::try_from(ms).expect("short");
        let mut effects = Vec::new();
        self.shard.tick(self.now, &mut effects);
        self.take(effects);
    }

    pub fn join(&mut self, member: Client<'_>) -> Ticket {
        let join = member.join(self.next_ticket);
        self.ask(Request::Join(Box::new(join)))
    }

    pub fn joined(&mut self, ticket: Ticket) -> JoinGroupResponse {
        match self.answer(ticket) {
            Some(Response::Join(response)) => response,
            other => panic!("not an answer to a JoinGroup: {other:?}"),
        }
    }

    pub fn synced(&mut self, ticket: Ticket) -> SyncGroupResponse {
        match self.answer(ticket) {
            Some(Response::Sync(response)) => response,
            other => panic!("not an answer to a SyncGroup: {other:?}"),
        }
    }

    pub fn sync(&mut self, generation: i32, member: &str, work: &[(&str, &str)]) -> Ticket {
        self.sync_as(generation, member, None, work)
    }

    pub fn sync_static(
        &mut self,
        generation: i32,
        member: &str,
        instance: &str,
        work: &[(&str, &str)],
    ) -> Ticket {
        self.sync_as(generation, member, Some(instance), work)
    }

    fn sync_as(
        &mut self,
        generation: i32,
        member: &str,
        instance: Option<&str>,
        work: &[(&str, &str)],
    ) -> Ticket {
        let assignments = work.iter().map(|(member, work)| SyncGroupAssignment {
            member_id: (*member).to_owned(),
            assignment: (*work).to_owned().into(),
        });
        self.ask(Request::Sync(SyncGroupRequest {
            group_id: GROUP.to_owned(),
            generation_id: generation,
            member_id: member.to_owned(),
            group_instance_id: instance.map(str::to_owned),
            assignments: assignments.collect(),
            ..Default::default()
        }))
    }

    pub fn heartbeat(&mut self, generation: i32, member: &str) -> client_protocol::ErrorCode {
        let ticket = self.ask(Request::Heartbeat(HeartbeatRequest {
            group_id: GROUP.to_owned(),
            generation_id: generation,
            member_id: member.to_owned(),
            group_instance_id: None,
        }));
        match self.answer(ticket) {
            Some(Response::Heartbeat(error)) => error,
            other => panic!("not an answer to a Heartbeat: {other:?}"),
        }
    }

    /// A group of one member in its first generation; yields the member's id.
    pub fn alone(&mut self) -> String {
        let ticket = self.join(Client::default());
        self.pass(Settings::default().initial_rebalance_delay_ms);
        let id = self.joined(ticket).member_id;
        let ticket = self.sync(1, &id, &[(&id, "all")]);
        self.commit();
        assert_eq!(self.synced(ticket).assignment, "all");
        id
    }
}

/// The group of these tests.
pub(super) const GROUP: &str = "g";

/// A client that joins.
#[derive(Clone, Copy)]
pub(super) struct Client<'a> {
    pub member: &'a str,
    pub instance: Option<&'a str>,
    pub protocols: &'a [(&'a str, &'a str)],
    pub member_id_required: bool,
    pub knows_skip_assignment: bool,
    pub kind: &'a str,
}

impl Default for Client<'_> {
    fn default() -> Self {
        Self {
            member: "",
            instance: None,
            protocols: &[("range", "topics")],
            member_id_required: false,
            knows_skip_assignment: true,
            kind: "consumer",
        }
    }
}

impl Client<'_> {
    fn join(&self, number: u64) -> Join {
        let mut entropy = [0; 16];
        entropy[8..].copy_from_slice(&number.to_be_bytes());
        let protocols = self.protocols.iter().map(|(name, metadata)| JoinGroupProtocol {
            name: (*name).to_owned(),
            metadata: (*metadata).to_owned().into(),
        });
        Join {
            request: JoinGroupRequest {
                group_id: GROUP.to_owned(),
                session_timeout_ms: 10_000,
                rebalance_timeout_ms: 60_000,
                member_id: self.member.to_owned(),
                group_instance_id: self.instance.map(str::to_owned),
                protocol_type: self.kind.to_owned(),
                protocols: protocols.collect(),
                reason: None,
            },
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            entropy,
            member_id_required: self.member_id_required,
            knows_skip_assignment: self.knows_skip_assignment,
        }
    }
}
