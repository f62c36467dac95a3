//! Members that come and go.

use coordinator_protocol::{
    AuthRequest, ErrorCode, PathWatch, ReconfigRequest, Request, Response, Stat, WatcherEvent,
};

use super::ensemble::{Ensemble, Got, member};
use super::{create, get_data, set_data};
use crate::members::{Member, MemberIds};
use crate::server::{Config, ConfigError, Event, Mode};
use crate::{ConnectionId, ServerId};

pub(super) const PATH: &str = "/zookeeper/config";

pub(super) fn spec(id: ServerId, role: &str) -> String {
    format!("10.0.0.{id}:2888:3888:{role};10.0.0.{id}:2181")
}

pub(super) fn configure(config: &mut Config) {
    let server = |id: &ServerId| (*id, Member::parse(&spec(*id, "participant")).unwrap());
    config.servers = config.members.iter().map(server).collect();
    config.reconfig_enabled = true;
    config.super_digest = Some("super:D/InIHSb7yEEbrWz8b9l71RjZJU=".into());
    // Joiners are brought up by snapshots now and then.
    config.snapshot_entries = 20;
    config.log_entries_kept = 10;
}

pub(super) struct World {
    pub ensemble: Ensemble,
    pub operator: ConnectionId,
}

pub(super) fn request(joining: Option<String>, leaving: Option<String>) -> Request {
    Request::Reconfig(ReconfigRequest {
        joining_servers: joining,
        leaving_servers: leaving,
        new_members: None,
        config_id: -1,
    })
}

pub(super) fn joining(id: u64, role: &str) -> Request {
    let id = member(id);
    request(Some(format!("server.{id}={}", spec(id, role))), None)
}

pub(super) fn leaving(id: u64) -> Request {
    request(None, Some(id.to_string()))
}

pub(super) fn voters(ids: &[u64]) -> MemberIds {
    MemberIds::of_voters(ids.iter().copied().map(member))
}

pub(super) fn text_of(answer: Result<Response, ErrorCode>) -> (String, Stat) {
    match answer {
        Ok(Response::DataStat(Some(data), stat)) => {
            (String::from_utf8(data.to_vec()).unwrap(), stat)
        }
        other => panic!("{other:?}"),
    }
}

impl World {
    pub fn new(size: u64) -> Self {
        Self::with(size, configure)
    }

    pub fn with(size: u64, configure: fn(&mut Config)) -> Self {
        let mut ensemble = Ensemble::with(size, configure);
        let leader = ensemble.await_leader();
        let operator = Self::log_in(&mut ensemble, leader);
        let mut world = Self { ensemble, operator };
        world.ensemble.ask(operator, create("/data", 0)).unwrap();
        world.await_members(&voters(&(1..=size).collect::<Vec<_>>()));
        world
    }

    pub fn log_in(ensemble: &mut Ensemble, at: ServerId) -> ConnectionId {
        let operator = ensemble.connect(at, 30_000);
        let auth = Some("super:test".into());
        let auth = AuthRequest { auth_type: 0, scheme: "digest".into(), auth };
        ensemble.ask(operator, Request::Auth(auth)).unwrap();
        operator
    }

    /// The operator at whoever leads now.
    pub fn operator(&mut self) -> ConnectionId {
        if self.ensemble.clients[&self.operator].is_closed() {
            let leader = self.ensemble.await_leader();
            self.operator = Self::log_in(&mut self.ensemble, leader);
        }
        self.operator
    }

    pub fn await_members(&mut self, ids: &MemberIds) {
        self.ensemble.run_until("members", |ensemble| {
            ensemble.leader().is_some_and(|leader| {
                let membership = ensemble.server(leader).state().membership();
                membership.is_some_and(|all| all.ids == *ids && all.change.is_none())
            })
        });
    }

    /// A machine with an empty disk that names those who are there and itself.
    pub fn boot(&mut self, id: u64, others: &[u64]) {
        let named = others.iter().copied().chain([id]);
        let mut named: Vec<_> = named.map(member).collect();
        named.sort_unstable();
        named.dedup();
        self.ensemble.place(member(id), named);
        self.ensemble.start(member(id));
        self.ensemble.run_ms(50);
    }

    pub fn ask(&mut self, request: Request) -> Result<Response, ErrorCode> {
        let operator = self.operator();
        self.ensemble.ask(operator, request)
    }

    pub fn write(&mut self) {
        let leader = self.ensemble.await_leader();
        let id = self.ensemble.connect(leader, 10_000);
        self.ensemble.ask(id, set_data("/data", "x")).unwrap();
        self.ensemble.hang_up(id, false);
    }

    pub fn can_write(&mut self, without: &[u64]) {
        for id in without {
            self.ensemble.crash(member(*id));
        }
        self.write();
        for id in without {
            self.ensemble.start(member(*id));
        }
        self.ensemble.run_ms(1_000);
    }
}

#[test]
fn configuration_is_founded_by_the_first_leaders_settings() {
    let mut world = World::new(3);
    world.ensemble.run_ms(200);
    let (text, stat) = text_of(world.ask(get_data(PATH, false)));
    let line = |id: u64| format!("server.{id}={}\n", spec(member(id), "participant"));
    let version = format!("version={:x}", stat.mzxid.get());
    assert_eq!(text, [line(1), line(2), line(3), version].concat());
    assert_eq!(stat.version, -1);
    for id in [1, 2, 3] {
        let server = world.ensemble.server(member(id));
        assert_eq!(server.state().membership().unwrap().ids, voters(&[1, 2, 3]));
    }
}

#[test]
fn server_joins_with_a_vote_once_it_has_the_log() {
    let mut world = World::new(3);
    for _ in 0..50 {
        world.write();
    }
    let operator = world.operator();
    text_of(world.ensemble.ask(operator, get_data(PATH, true)));
    world.boot(4, &[1, 2, 3]);
    assert_eq!(world.ensemble.server(member(4)).status().mode, Mode::Looking);
    let (text, stat) = text_of(world.ask(joining(4, "participant")));
    let line = format!("\nserver.4={}\n", spec(member(4), "participant"));
    assert!(text.contains(&line) && text.ends_with(&format!("version={:x}", stat.mzxid.get())));
    assert_eq!(text_of(world.ask(get_data(PATH, false))), (text, stat));
    let told = world.ensemble.clients[&operator].got.iter().any(|got| {
        matches!(got, Got::Notified(zxid, WatcherEvent { path, .. })
            if path == PATH && *zxid == stat.mzxid)
    });
    assert!(told, "the watch fires");
    world.ensemble.run_ms(200);
    for id in 1..=4 {
        let server = world.ensemble.server(member(id));
        assert_eq!(server.state().membership().unwrap().ids, voters(&[1, 2, 3, 4]), "{id}");
    }
    // It serves, and its vote counts: of four no two are enough.
    let at_four = world.ensemble.connect(member(4), 10_000);
    world.ensemble.ask(at_four, set_data("/data", "y")).unwrap();
    let leader = world.ensemble.await_leader();
    let gone: Vec<_> = (1..=3).map(member).filter(|id| *id != leader).collect();
    for id in &gone {
        world.ensemble.crash(*id);
    }
    world.ensemble.run_ms(5_000);
    assert!(world.ensemble.clients[&at_four].is_closed(), "no quorum, no answers");
    world.ensemble.start(gone[0]);
    world.write();
}

#[test]
fn five_go_on_without_any_two_and_members_outlive_restarts() {
    let mut world = World::new(3);
    for id in [4, 5] {
        world.boot(id, &(1..id).collect::<Vec<_>>());
        text_of(world.ask(joining(id, "participant")));
    }
    for a in 1..=5 {
        for b in a + 1..=5 {
            world.can_write(&[a, b]);
        }
    }
    for id in 1..=5 {
        world.ensemble.crash(member(id));
    }
    for id in 1..=5 {
        world.ensemble.start(member(id));
    }
    world.write();
    world.await_members(&voters(&[1, 2, 3, 4, 5]));
    assert!(world.ensemble.halted.is_empty(), "{:?}", world.ensemble.halted);
}

#[test]
fn server_that_leaves_stops_serving_and_the_rest_go_on() {
    let mut world = World::new(4);
    let leader = world.ensemble.await_leader();
    for gone in [(1..=4).map(member).find(|id| *id != leader).unwrap(), leader] {
        let at_gone = world.ensemble.connect(gone, 10_000);
        world.ensemble.ask(at_gone, set_data("/data", "x")).unwrap();
        let serves = |id: &ServerId| world.ensemble.server(*id).status().confirmed;
        let rest = (1..=4).map(member).find(|id| *id != gone && serves(id));
        world.operator = World::log_in(&mut world.ensemble, rest.unwrap());
        let (text, _) = text_of(world.ask(leaving(gone.get())));
        assert!(!text.contains(&format!("server.{gone}=")), "{text}");
        world.ensemble.run_ms(500);
        assert!(world.ensemble.clients[&at_gone].is_closed());
        let status = world.ensemble.server(gone).status();
        assert_eq!((status.mode, status.confirmed), (Mode::Looking, false));
        let late = world.ensemble.dial(gone, super::ensemble::connect_request(10_000));
        world.ensemble.run_ms(50);
        assert!(world.ensemble.clients[&late].is_closed());
        let term = world.ensemble.server(world.ensemble.leader().unwrap()).status().term;
        world.ensemble.run_ms(20_000);
        let now = world.ensemble.server(world.ensemble.leader().unwrap()).status().term;
        assert_eq!(now, term, "who has left disturbs nobody");
        world.write();
        // Also with what it finds after a restart.
        world.ensemble.crash(gone);
        world.ensemble.start(gone);
        world.ensemble.run_ms(5_000);
        assert_ne!(world.ensemble.leader(), Some(gone));
        let status = world.ensemble.server(gone).status();
        assert_eq!((status.mode, status.confirmed), (Mode::Looking, false));
    }
}

#[test]
fn id_joins_again_with_an_empty_disk() {
    let mut world = World::new(3);
    let leader = world.ensemble.await_leader();
    let id = (1..=3).map(member).find(|id| *id != leader).unwrap();
    world.boot(4, &[1, 2, 3]);
    text_of(world.ask(joining(4, "participant")));
    text_of(world.ask(leaving(id.get())));
    world.ensemble.crash(id);
    let others: Vec<_> = (1..=4).filter(|other| *other != id.get()).collect();
    world.boot(id.get(), &others);
    text_of(world.ask(joining(id.get(), "participant")));
    world.await_members(&voters(&[1, 2, 3, 4]));
    for other in 1..=4 {
        world.can_write(&[other]);
    }
}

#[test]
fn observer_follows_without_a_vote() {
    let mut world = World::new(3);
    world.boot(4, &[1, 2, 3]);
    text_of(world.ask(joining(4, "observer")));
    world.ensemble.run_ms(200);
    assert_eq!(world.ensemble.server(member(4)).status().mode, Mode::Observer);
    let at_four = world.ensemble.connect(member(4), 10_000);
    world.ensemble.ask(at_four, set_data("/data", "z")).unwrap();
    let read = Request::GetData(PathWatch { path: "/data".into(), watch: false });
    assert_eq!(text_of(world.ensemble.ask(at_four, read)).0, "z");
    // It is counted in no quorum.
    let leader = world.ensemble.await_leader();
    world.ensemble.run_ms(200);
    let measures = world.ensemble.server(leader).measures();
    assert_eq!((measures.synced_followers, measures.synced_observers), (2, 1));
    for id in (1..=3).map(member).filter(|id| *id != leader) {
        world.ensemble.crash(id);
    }
    world.ensemble.run_ms(5_000);
    assert!(world.ensemble.clients[&at_four].is_closed(), "no quorum, no answers");
    assert_eq!(world.ensemble.leader(), None);
    for id in (1..=3).map(member).filter(|id| *id != leader) {
        world.ensemble.start(id);
    }
    world.write();
    // It may get a vote later, and lose it again.
    for (role, mode) in [("participant", Mode::Follower), ("observer", Mode::Observer)] {
        text_of(world.ask(joining(4, role)));
        world.ensemble.run_ms(200);
        assert_eq!(world.ensemble.server(member(4)).status().mode, mode);
    }
}

#[test]
fn joiner_that_does_not_come_is_out_after_a_while() {
    let mut world = World::new(3);
    let operator = world.operator();
    let before = text_of(world.ask(get_data(PATH, false)));
    let begun = world.ensemble.now;
    let asked = world.ensemble.send(operator, joining(4, "participant"));
    world.ensemble.run_ms(1_000);
    let other = World::log_in(&mut world.ensemble, member(2));
    let second = world.ensemble.ask(other, joining(5, "participant"));
    assert_eq!(second, Err(ErrorCode::ReconfigInProgress));
    world.write();
    let ping = world.ensemble.send(operator, Request::Ping);
    assert!(world.ensemble.clients[&operator].reply(ping).is_some(), "at once");
    while world.ensemble.clients[&operator].reply(asked).is_none() {
        world.ensemble.run_ms(1_000);
        world.ensemble.ask(other, Request::Ping).unwrap();
    }
    let refused = world.ensemble.clients[&operator].reply(asked).unwrap();
    assert_eq!(refused, Err(ErrorCode::NewConfigNoQuorum));
    assert!((30_000..35_000).contains(&world.ensemble.now.since(begun)));
    world.await_members(&voters(&[1, 2, 3]));
    assert_eq!(text_of(world.ensemble.ask(other, get_data(PATH, false))), before);
}

#[test]
fn change_goes_on_under_the_next_leader() {
    let mut world = World::new(3);
    let leader = world.ensemble.await_leader();
    world.boot(4, &[1, 2, 3]);
    let rest = (1..=3).map(member).find(|id| *id != leader).unwrap();
    world.operator = World::log_in(&mut world.ensemble, rest);
    let operator = world.operator;
    for killed_after in [0, 3, 6, 9, 12, 15, 20, 25, 30, 40] {
        let (id, role) = (4, if killed_after % 2 == 0 { "participant" } else { "observer" });
        let leader = world.ensemble.await_leader();
        let asked = world.ensemble.send(operator, joining(id, role));
        world.ensemble.run_exactly_ms(killed_after);
        let kill = leader != rest && leader != member(4);
        if kill {
            world.ensemble.crash(leader);
        }
        world.ensemble.run_until("answer", |e| e.clients[&operator].reply(asked).is_some());
        text_of(world.ensemble.clients[&operator].reply(asked).unwrap());
        if kill {
            world.ensemble.start(leader);
        }
        world.ensemble.run_ms(3_000);
    }
}

#[test]
fn two_of_three_can_be_exchanged_at_once() {
    let mut world = World::new(3);
    for id in [4, 5] {
        world.boot(id, &[1, 2, 3]);
    }
    let all = |ids: &[u64]| {
        let line = |id: &u64| format!("server.{id}={}", spec(member(*id), "participant"));
        ids.iter().map(line).collect::<Vec<_>>().join(",")
    };
    let change = ReconfigRequest {
        joining_servers: None,
        leaving_servers: None,
        new_members: Some(all(&[3, 4, 5])),
        config_id: -1,
    };
    let operator = World::log_in(&mut world.ensemble, member(3));
    world.operator = operator;
    text_of(world.ask(Request::Reconfig(change)));
    world.await_members(&voters(&[3, 4, 5]));
    for id in [1, 2] {
        world.ensemble.crash(member(id));
    }
    world.write();
}

#[test]
fn first_members_have_addresses_where_others_find_them() {
    for host in ["0.0.0.0", "[::]"] {
        let mut config = Config::new(member(1), (1..=3).map(member).collect());
        configure(&mut config);
        assert_eq!(config.validate(), Ok(()));
        let nowhere = Member::parse(&format!("{host}:2888:3888")).unwrap();
        config.servers.insert(member(1), nowhere);
        assert_eq!(config.validate(), Err(ConfigError::Nowhere), "{host} would go into the log");
        config.reconfig_enabled = false;
        assert_eq!(config.validate(), Ok(()));
    }
}

#[test]
fn observer_that_nobody_can_find_joins_and_leaves_as_in_zookeeper() {
    let mut world = World::new(3);
    let line = "server.100=0.0.0.0:1:2:observer;0.0.0.0:3";
    let (text, _) = text_of(world.ask(request(Some(line.into()), None)));
    assert!(text.contains(line), "{text}");
    world.write();
    let (text, _) = text_of(world.ask(leaving(100)));
    assert!(!text.contains("server.100"), "{text}");
    world.write();
}

#[test]
fn what_cannot_be_is_refused_with_zookeepers_codes() {
    let mut world = World::new(3);
    let stranger = world.ensemble.connect(member(1), 10_000);
    let beyond = request(Some("server.999=0.0.0.0:1:2:observer;3".into()), None);
    for (asked, refused) in [
        (joining(9, "observer"), ErrorCode::NoAuth),
        (beyond.clone(), ErrorCode::NoAuth),
        (request(Some("some thing".into()), None), ErrorCode::BadArguments),
    ] {
        assert_eq!(world.ensemble.ask(stranger, asked), Err(refused), "as in ZooKeeper");
    }
    assert_eq!(world.ask(beyond), Err(ErrorCode::BadArguments));
    let (_, stat) = text_of(world.ask(get_data(PATH, false)));
    let with_version = |config_id| match joining(4, "observer") {
        Request::Reconfig(change) => Request::Reconfig(ReconfigRequest { config_id, ..change }),
        other => other,
    };
    let ahead = with_version(stat.mzxid.get() + 1);
    assert_eq!(world.ask(ahead), Err(ErrorCode::BadVersion));
    let bad = |text: &str| request(Some(text.into()), None);
    for wrong in [
        bad("some thing"),
        bad("server.4=a:1:2"),
        bad("server.255=a:1:2;3"),
        bad("server.4=0.0.0.0:1:2;3"),
        bad(&format!("server.4={}", spec(member(1), "participant"))),
        request(None, Some("x".into())),
        request(None, Some("1,2".into())),
        request(None, Some("1,2,3".into())),
        request(
            Some(
                (4..=10)
                    .map(|id| format!("server.{id}={}", spec(member(id), "participant")))
                    .collect::<Vec<_>>()
                    .join(","),
            ),
            None,
        ),
    ] {
        assert_eq!(world.ask(wrong.clone()), Err(ErrorCode::BadArguments), "{wrong:?}");
    }
    let mut closed = Ensemble::new(3);
    let leader = closed.await_leader();
    let id = closed.connect(leader, 10_000);
    assert_eq!(closed.ask(id, leaving(3)), Err(ErrorCode::ReconfigDisabled));
    let mut alone = Ensemble::with(1, |config| config.reconfig_enabled = true);
    let leader = alone.await_leader();
    let id = alone.connect(leader, 10_000);
    assert_eq!(alone.ask(id, leaving(1)), Err(ErrorCode::Unimplemented));
}

#[test]
fn stop_in_the_middle_of_everything_leaves_members_whole() {
    let mut world = World::new(3);
    world.boot(4, &[1, 2, 3]);
    let mut present = false;
    for round in 0..12 {
        let change = if present { leaving(4) } else { joining(4, "participant") };
        if round % 3 == 0 && !present {
            world.ensemble.crash(member(4));
            world.boot(4, &[1, 2, 3]);
        }
        let operator = world.operator();
        world.ensemble.send(operator, change);
        world.ensemble.run_exactly_ms(round * 4);
        for id in 1..=4 {
            world.ensemble.crash(member(id));
        }
        for id in 1..=4 {
            world.ensemble.start(member(id));
        }
        world.ensemble.run_until("end of the change", |ensemble| {
            ensemble.leader().is_some_and(|leader| {
                let membership = ensemble.server(leader).state().membership().unwrap();
                membership.change.is_none()
            })
        });
        let leader = world.ensemble.leader().unwrap();
        present =
            world.ensemble.server(leader).state().membership().unwrap().ids.contains(member(4));
        world.write();
        assert!(world.ensemble.halted.is_empty(), "{:?}", world.ensemble.halted);
    }
}

#[test]
fn resigning_leader_does_not_hand_over_to_an_observer() {
    let mut world = World::new(2);
    world.boot(3, &[1, 2]);
    text_of(world.ask(joining(3, "observer")));
    for _ in 0..4 {
        let leader = world.ensemble.await_leader();
        world.ensemble.step(leader, Event::Resign);
        world.ensemble.run_ms(2_000);
        assert_ne!(world.ensemble.await_leader(), member(3));
    }
}

#[test]
fn one_that_was_named_may_become_two_and_three() {
    let mut world = World::new(1);
    for id in [2, 3] {
        world.boot(id, &(1..id).collect::<Vec<_>>());
        text_of(world.ask(joining(id, "participant")));
    }
    for id in 1..=3 {
        world.can_write(&[id]);
    }
}

#[test]
fn settings_alone_may_name_an_observer() {
    let mut ensemble = Ensemble::with(4, |config| {
        configure(config);
        config.reconfig_enabled = false;
        let observer = Member::parse(&spec(member(4), "observer")).unwrap();
        config.servers.insert(member(4), observer);
        config.members.retain(|id| *id != member(4));
    });
    let leader = ensemble.await_leader();
    assert_ne!(leader, member(4));
    let at_four = ensemble.connect(member(4), 10_000);
    ensemble.ask(at_four, create("/a", 0)).unwrap();
    assert_eq!(ensemble.server(member(4)).status().mode, Mode::Observer);
    let (text, stat) = text_of(ensemble.ask(at_four, get_data(PATH, false)));
    assert!(text.contains("10.0.0.4:2888:3888:observer;") && text.ends_with("\nversion=0"));
    assert_eq!((stat.version, stat.data_length), (-1, i32::try_from(text.len()).unwrap()));
    for id in (1..=3).map(member).filter(|id| *id != leader) {
        ensemble.crash(id);
    }
    ensemble.run_ms(5_000);
    assert!(ensemble.clients[&at_four].is_closed(), "two of four are no quorum of three");
    assert_eq!(ensemble.leader(), None);
}
