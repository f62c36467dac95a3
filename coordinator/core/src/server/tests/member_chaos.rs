//! Members that come and go while servers are killed and cut off, by seed: no two servers ever differ in what they
//! have applied, and nothing that was acknowledged is lost.

use std::collections::{BTreeMap, BTreeSet};

use coordinator_protocol::{ReconfigRequest, Request, Response};

use super::ensemble::{Ensemble, Got, member};
use super::{create, get_data, set_data};
use crate::members::Member;
use crate::server::Config;
use crate::{ConnectionId, ServerId};

/// More of them when looking for trouble: 25 have passed.
const SEEDS: u64 = 10;
const SERVERS: u64 = 6;
const FOUNDERS: u64 = 3;

fn spec(id: ServerId, role: &str) -> String {
    format!("10.0.0.{id}:2888:3888:{role};10.0.0.{id}:2181")
}

fn configure(config: &mut Config) {
    let server = |id: &ServerId| (*id, Member::parse(&spec(*id, "participant")).unwrap());
    config.servers = config.members.iter().map(server).collect();
    config.reconfig_enabled = true;
    config.skip_acl = true;
    config.snapshot_entries = 30;
    config.log_entries_kept = 10;
}

struct Chaos {
    ensemble: Ensemble,
    state: u64,
    down: BTreeSet<ServerId>,
    cut: BTreeSet<(ServerId, ServerId)>,
    /// What a server had applied at an index, as far as any has said.
    history: BTreeMap<u64, u32>,
    looked_at: BTreeMap<ServerId, u64>,
    writers: Vec<ConnectionId>,
    changes: u64,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut ensemble = Ensemble::with(FOUNDERS, configure);
        let leader = ensemble.await_leader();
        let id = ensemble.connect(leader, 40_000);
        ensemble.ask(id, create("/data", 0)).unwrap();
        for id in FOUNDERS + 1..=SERVERS {
            ensemble.place(member(id), (1..=FOUNDERS).chain([id]).map(member).collect());
            ensemble.start(member(id));
        }
        let (down, cut, history) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        let state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let looked_at = BTreeMap::new();
        Self { ensemble, state, down, cut, history, looked_at, writers: vec![id], changes: 0 }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) % bound
    }

    fn any(&mut self) -> ServerId {
        member(self.below(SERVERS) + 1)
    }

    /// Runs on, and looks at everybody.
    fn run(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(5) {
            self.ensemble.run_exactly_ms(5);
            for id in (1..=SERVERS).map(member).filter(|id| !self.down.contains(id)) {
                let state = self.ensemble.server(id).state();
                if self.looked_at.insert(id, state.applied_index()) == Some(state.applied_index()) {
                    continue;
                }
                let digest = crc32fast::hash(&state.encode_snapshot());
                let known = *self.history.entry(state.applied_index()).or_insert(digest);
                assert_eq!(known, digest, "{id} differs at {}", state.applied_index());
            }
            assert!(self.ensemble.halted.is_empty(), "{:?}", self.ensemble.halted);
        }
    }

    fn act(&mut self) {
        match self.below(10) {
            0..=2 => self.change_members(),
            3 => {
                let id = self.any();
                if self.down.insert(id) {
                    self.ensemble.crash(id);
                }
            }
            4 | 5 => {
                if let Some(id) = self.down.pop_first() {
                    self.ensemble.start(id);
                }
            }
            6 => {
                let (a, b) = (self.any(), self.any());
                if a != b && self.cut.len() < 4 {
                    self.cut.insert((a, b));
                    self.ensemble.cut_peers(a, b, true);
                }
            }
            7 => self.mend(),
            _ => self.write(),
        }
    }

    fn mend(&mut self) {
        for (a, _) in std::mem::take(&mut self.cut) {
            self.ensemble.mend(a);
        }
    }

    fn change_members(&mut self) {
        let id = self.any();
        let server = |id: ServerId, role: &str| format!("server.{id}={}", spec(id, role));
        let all: Vec<ServerId> = (1..=SERVERS).map(member).collect();
        let (joining, leaving, new) = match self.below(4) {
            0 => (Some(server(id, "participant")), None, None),
            1 => (Some(server(id, "observer")), None, None),
            2 => (None, Some(id.to_string()), None),
            _ => {
                let mut chosen = Vec::new();
                for id in all {
                    if self.below(2) == 0 {
                        chosen.push(server(id, "participant"));
                    }
                }
                (None, None, Some(chosen.join(",")))
            }
        };
        let request = Request::Reconfig(ReconfigRequest {
            joining_servers: joining,
            leaving_servers: leaving,
            new_members: new,
            config_id: -1,
        });
        if let Some(id) = self.client() {
            self.ensemble.send(id, request);
            // One that waits for the end of the change would hold up the next writes.
            self.writers.retain(|writer| *writer != id);
            self.changes += 1;
        }
    }

    fn client(&mut self) -> Option<ConnectionId> {
        let open = |e: &Ensemble, id: &ConnectionId| {
            e.clients[id].got.iter().any(|got| matches!(got, Got::Connected(_)))
                && !e.clients[id].is_closed()
        };
        let found = self.writers.iter().copied().find(|id| open(&self.ensemble, id));
        if found.is_none() {
            let up: Vec<_> =
                (1..=SERVERS).map(member).filter(|id| !self.down.contains(id)).collect();
            let chosen = usize::try_from(self.below(SERVERS)).unwrap() % up.len().max(1);
            let server = up.get(chosen)?;
            let request = super::ensemble::connect_request(40_000);
            let id = self.ensemble.dial(*server, request);
            self.writers.push(id);
        }
        found
    }

    fn write(&mut self) {
        if let Some(id) = self.client() {
            self.ensemble.send(id, set_data("/data", "x"));
        }
    }

    /// Writes that clients were told of.
    fn acknowledged(&self) -> i32 {
        let versions = self.ensemble.clients.values().flat_map(|client| &client.got);
        let version = |got: &Got| match got {
            Got::Reply(_, _, Ok(Response::Stat(stat))) => Some(stat.version),
            _ => None,
        };
        versions.filter_map(version).max().unwrap_or(0)
    }

    fn end(&mut self) {
        self.mend();
        for id in std::mem::take(&mut self.down) {
            self.ensemble.start(id);
        }
        for _ in 0..60 {
            self.run(1_000);
            let settled = self.ensemble.leader().is_some_and(|leader| {
                let server = self.ensemble.server(leader);
                server.state().membership().is_some_and(|all| all.change.is_none())
                    && server.status().confirmed
            });
            if settled {
                break;
            }
        }
        let leader = self.ensemble.leader().expect("all are up, and somebody leads");
        let id = self.ensemble.connect(leader, 40_000);
        let Ok(Response::DataStat(_, stat)) = self.ensemble.ask(id, get_data("/data", false))
        else {
            panic!("it is there")
        };
        assert!(stat.version >= self.acknowledged(), "an acknowledged write is lost");
        self.ensemble.ask(id, set_data("/data", "end")).unwrap();
    }
}

#[test]
fn no_two_servers_differ_whatever_members_are_changed() {
    let mut finished = 0;
    for seed in 1..=SEEDS {
        let mut chaos = Chaos::new(seed);
        for _ in 0..60 {
            chaos.act();
            let pause = chaos.below(400);
            chaos.run(pause);
        }
        chaos.end();
        assert!(chaos.changes > 0 && chaos.acknowledged() > 0, "seed {seed}: nothing happened");
        finished += chaos.ensemble.clients.values().flat_map(|client| &client.got).filter(|got| {
            matches!(got, Got::Reply(_, _, Ok(Response::DataStat(Some(text), _))) if text.starts_with(b"server."))
        }).count();
    }
    assert!(finished > usize::try_from(2 * SEEDS).unwrap(), "{finished} changes");
}
