//! A client that changes the ensemble itself: servers join and leave, vote or only follow, and leadership moves.
//!
//! Called by: `client`. Calls: nothing. Invariant: it asks one thing at a time, of what it was told of the members last. `model`
//! says what must come of it, `audit::members` judges what it was told. It does not know which servers are up.

use std::collections::BTreeSet;

use coordinator_core::ServerId;
use coordinator_core::members::Member;
use coordinator_protocol::{
    AuthRequest, ErrorCode, PathWatch, ReconfigRequest, Request, Response, TransferRequest,
};

use super::client::{Action, Client};
use super::schedule::{MS, SECOND, Time};

/// Where the configuration is.
pub(super) const CONFIG: &str = "/zookeeper/config";
/// Who has these credentials stands above all access lists...
const CREDENTIALS: &str = "super:test";
/// ...as the servers' settings say.
pub(super) const SUPER_DIGEST: &str = "super:D/InIHSb7yEEbrWz8b9l71RjZJU=";

/// What it knows.
#[derive(Debug, Default)]
pub(super) struct Operator {
    /// All machines that there are, members or not.
    machines: u64,
    /// As told last.
    servers: BTreeSet<u64>,
    version: i64,
}

/// A server, as settings and requests have it behind `server.N=`.
pub(super) fn spec(id: u64, votes: bool) -> String {
    let role = if votes { "participant" } else { "observer" };
    format!("10.0.0.{id}:2888:3888:{role};10.0.0.{id}:2181")
}

/// The same for settings.
pub(super) fn member(id: ServerId) -> (ServerId, Member) {
    (id, Member::parse(&spec(id.get(), true)).expect("written well"))
}

fn line(id: u64, votes: bool) -> String {
    format!("server.{id}={}", spec(id, votes))
}

impl Operator {
    /// What an answer says of the servers.
    fn learn(&mut self, outcome: &Result<Response, ErrorCode>) {
        let Ok(Response::DataStat(Some(data), stat)) = outcome else { return };
        let text = String::from_utf8(data.to_vec()).expect("text");
        let number = |line: &str| line.strip_prefix("server.")?.split('=').next()?.parse().ok();
        self.servers = text.lines().filter_map(number).collect();
        self.version = stat.mzxid.get();
    }
}

impl Client {
    /// Turns a client into an operator.
    pub(super) fn want_members(&mut self, machines: usize) {
        let machines = machines as u64;
        self.operator = Some(Operator { machines, ..Operator::default() });
    }

    /// What an operator says first on each connection; one in twenty times it forgets.
    pub(super) fn log_in(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.operator.is_some() && self.random.chance(19, 20) {
            let auth = Some(CREDENTIALS.into());
            let auth = AuthRequest { auth_type: 0, scheme: "digest".into(), auth };
            self.send(now, Request::Auth(auth), actions);
        }
    }

    pub(super) fn operate(&mut self, now: Time, actions: &mut Vec<Action>) {
        let pause = 50 * MS + self.random.below(2 * SECOND);
        self.ask_at = now + pause * self.pace;
        let request = match self.random.below(20) {
            0..=2 => Request::GetData(PathWatch { path: CONFIG.into(), watch: false }),
            3..=6 => Request::TransferLeader(TransferRequest { to: self.heir() }),
            7 => return self.give_up(now, actions),
            _ => Request::Reconfig(self.reconfig()),
        };
        self.send(now, request, actions);
    }

    pub(super) fn take_told(&mut self, request: &Request, outcome: &Result<Response, ErrorCode>) {
        if let (Request::GetData(_) | Request::Reconfig(_), Some(operator)) =
            (request, &mut self.operator)
        {
            operator.learn(outcome);
        }
    }

    fn machine(&mut self) -> u64 {
        let machines = self.operator.as_ref().map_or(1, |operator| operator.machines);
        1 + self.random.below(machines)
    }

    /// One in four times anybody else.
    fn heir(&mut self) -> i32 {
        match self.random.chance(1, 4) {
            true => 0,
            false => i32::try_from(self.machine()).expect("small"),
        }
    }

    fn reconfig(&mut self) -> ReconfigRequest {
        let id = self.machine();
        let operator = self.operator.as_ref().expect("it operates");
        let (is_in, version) = (operator.servers.contains(&id), operator.version);
        let votes = self.random.chance(3, 4);
        let config_id = if self.random.chance(1, 4) { version } else { -1 };
        let mut request = ReconfigRequest {
            joining_servers: None,
            leaving_servers: None,
            new_members: None,
            config_id,
        };
        match self.random.below(6) {
            0 => {
                let all = 1..=operator_machines(self);
                let chosen: Vec<String> = all
                    .filter_map(|id| {
                        let (comes, votes) = (self.random.chance(1, 2), self.random.chance(5, 6));
                        comes.then(|| line(id, votes))
                    })
                    .collect();
                request.new_members = Some(chosen.join(","));
            }
            1 => {
                let other = self.machine();
                request.joining_servers = Some(line(id, votes)).filter(|_| id != other);
                request.leaving_servers = Some(other.to_string());
            }
            2..=4 if is_in => request.leaving_servers = Some(id.to_string()),
            _ => request.joining_servers = Some(line(id, votes)),
        }
        request
    }
}

fn operator_machines(client: &Client) -> u64 {
    client.operator.as_ref().map_or(1, |operator| operator.machines)
}
