//! Members change while those who lead, leave or join are lost at the worst moment.

use coordinator_protocol::{ErrorCode, ReconfigRequest, Request, TransferRequest};

use super::create;
use super::ensemble::{Ensemble, connect_request, member};
use super::reconfiguration::{World, joining, leaving, spec, text_of, voters};
use crate::ServerId;
use crate::members::Member;
use crate::state::{Command, Entry, State};

/// To these servers, whoever is there.
fn exchange(ids: &[u64]) -> Request {
    let line = |id: &u64| format!("server.{id}={}", spec(member(*id), "participant"));
    Request::Reconfig(ReconfigRequest {
        joining_servers: None,
        leaving_servers: None,
        new_members: Some(ids.iter().map(line).collect::<Vec<_>>().join(",")),
        config_id: -1,
    })
}

fn lead(id: u64) -> Request {
    Request::TransferLeader(TransferRequest { to: i32::try_from(id).unwrap() })
}

#[test]
fn leader_that_loses_its_vote_in_office_hands_over() {
    for delay in (0..120).step_by(5) {
        let mut world = World::new(4);
        let leader = world.ensemble.await_leader();
        let other = World::log_in(&mut world.ensemble, leader);
        let leaver = (1..=4).rev().map(member).find(|id| *id != leader).unwrap();
        let operator = world.operator();
        // It has the entry that takes its vote long before a quorum has, and is elected meanwhile.
        for id in (1..=4).map(member).filter(|id| *id != leaver) {
            world.ensemble.slow_ms.insert(id, 30);
        }
        world.ensemble.send(operator, leaving(leaver.get()));
        world.ensemble.run_exactly_ms(delay);
        world.ensemble.send(other, lead(leaver.get()));
        world.ensemble.run_ms(6_000);
        assert!(world.ensemble.halted.is_empty(), "{:?}", world.ensemble.halted);
        let rest: Vec<_> = (1..=4).filter(|id| *id != leaver.get()).collect();
        world.await_members(&voters(&rest));
        world.write();
    }
}

/// Consensus is told of the first members an entry later than the state: who stops with a snapshot of in between has
/// the members of its settings.
#[test]
fn ensemble_goes_on_from_a_snapshot_of_its_founding() {
    for size in [1, 3] {
        let mut world = World::new(size);
        let ids: Vec<_> = (1..=size).map(member).collect();
        let server = |id: &ServerId| (*id, Member::parse(&spec(*id, "participant")).unwrap());
        let servers = ids.iter().map(server).collect();
        let mut state = State::new();
        let commands = vec![Command::FoundMembers { servers }];
        state.apply(1, 1, &Entry { wall_ms: 7, commands });
        for id in &ids {
            world.ensemble.crash(*id);
            world.ensemble.begin_from(*id, (1, 1), state.encode_snapshot());
        }
        for id in &ids {
            world.ensemble.start(*id);
        }
        world.await_members(&voters(&(1..=size).collect::<Vec<_>>()));
        world.ask(create("/data", 0)).unwrap();
        world.write();
    }
}

/// One that is down and is to be replaced leaves before its successor has a vote: if that is lost, too, the rest go on.
#[test]
fn loss_of_a_joiner_does_not_stop_the_others() {
    for delay in (0..100).step_by(4) {
        let mut world = World::new(3);
        world.operator = World::log_in(&mut world.ensemble, member(1));
        let operator = world.operator;
        world.ensemble.crash(member(3));
        world.boot(4, &[1, 2, 3]);
        world.ensemble.await_leader();
        world.ensemble.send(operator, exchange(&[1, 2, 4]));
        world.ensemble.run_exactly_ms(delay);
        world.ensemble.crash(member(4));
        world.ensemble.run_ms(2_000);
        world.write();
    }
}

#[test]
fn exchange_waits_for_a_quorum_and_turns_back() {
    let mut world = World::new(3);
    for id in [4, 5, 6] {
        world.boot(id, &[1, 2, 3]);
    }
    world.operator = World::log_in(&mut world.ensemble, member(1));
    let operator = world.operator;
    let asked = world.ensemble.send(operator, exchange(&[4, 5, 6]));
    world.ensemble.run_until("votes", |ensemble| {
        let leader = ensemble.leader().unwrap();
        let ids = &ensemble.server(leader).state().membership().unwrap().ids;
        ids.voters.contains(&member(4))
    });
    for id in [5, 6] {
        world.ensemble.crash(member(id));
    }
    for _ in 0..20 {
        world.ensemble.run_ms(2_000);
        world.write();
        let _ = world.ensemble.send(operator, Request::Ping);
    }
    let answer = world.ensemble.clients[&operator].reply(asked);
    assert_eq!(answer, Some(Err(ErrorCode::NewConfigNoQuorum)));
    world.await_members(&voters(&[1, 2, 3]));
}

/// Who was down while others joined and left hears from them that they are members now.
#[test]
fn member_that_missed_the_change_follows_the_new_ones() {
    let mut world = World::new(3);
    world.operator = World::log_in(&mut world.ensemble, member(2));
    for id in [4, 5] {
        world.boot(id, &[1, 2, 3]);
    }
    world.ensemble.crash(member(3));
    text_of(world.ask(exchange(&[2, 3, 4, 5])));
    world.operator = World::log_in(&mut world.ensemble, member(4));
    text_of(world.ask(exchange(&[3, 4, 5])));
    world.ensemble.crash(member(1));
    world.ensemble.crash(member(2));
    world.ensemble.start(member(3));
    world.ensemble.run_ms(3_000);
    world.ensemble.crash(member(5));
    world.ensemble.run_ms(3_000);
    world.write();
}

#[test]
fn wiped_servers_do_not_elect_one_that_missed_their_removal() {
    let mut world = World::new(5);
    let leader = world.ensemble.await_leader();
    let others: Vec<_> = (1..=5).map(member).filter(|id| *id != leader).collect();
    let (stale, wiped) = (others[0], [others[1], others[2]]);
    world.operator = World::log_in(&mut world.ensemble, leader);
    let ids: Vec<_> = (1..=5).map(member).collect();
    for id in ids.iter().filter(|id| **id != stale) {
        world.ensemble.apart.insert((stale, *id));
        world.ensemble.cut_peers(stale, *id, true);
    }
    for id in wiped {
        text_of(world.ask(leaving(id.get())));
        world.ensemble.crash(id);
    }
    world.write();
    for (id, out) in [leader, others[3]].into_iter().flat_map(|id| wiped.map(|out| (id, out))) {
        world.ensemble.apart.insert((id, out));
    }
    for id in wiped {
        world.ensemble.apart.remove(&(stale, id));
        world.ensemble.place(id, ids.clone());
        world.ensemble.start(id);
    }
    world.ensemble.run_ms(20_000);
    assert!(world.ensemble.server(stale).status().peers_up == 2, "they hear one another");
    for id in [stale, wiped[0], wiped[1]] {
        assert!(!world.ensemble.server(id).status().confirmed, "{id}");
    }
    world.write();
}

/// What a joiner gets first is older than the one that sends it: it does not forget that one over it.
#[test]
fn joiner_keeps_its_link_to_a_leader_that_joined_later() {
    let mut world = World::new(3);
    world.boot(4, &[1, 2, 3]);
    text_of(world.ask(joining(4, "participant")));
    world.ensemble.run_ms(200);
    world.ask(lead(4)).unwrap();
    world.ensemble.run_ms(500);
    world.operator = World::log_in(&mut world.ensemble, member(4));
    assert_eq!(world.ensemble.await_leader(), member(4));
    world.boot(5, &[1, 2, 3, 4]);
    let begun = world.ensemble.now;
    text_of(world.ask(joining(5, "participant")));
    assert!(world.ensemble.now.since(begun) < 1_000);
}

/// Nobody votes beside an only voter: it is in office before its vote is on the disk, and after a power cut again in the same term.
/// What it has put into its log by then may be another: nobody must have the first.
#[test]
fn only_voter_tells_nobody_of_a_term_that_it_may_begin_again() {
    let mut ensemble = Ensemble::with(2, |config| {
        let server = |id: u64, role| (member(id), Member::parse(&spec(member(id), role)).unwrap());
        config.servers = [server(1, "participant"), server(2, "observer")].into();
        config.members.retain(|id| *id == member(1));
    });
    let id = ensemble.connect(member(1), 40_000);
    ensemble.ask(id, create("/data", 0)).unwrap();
    ensemble.run_ms(100);
    ensemble.crash(member(1));
    ensemble.slow_ms.insert(member(1), 1_000);
    ensemble.start(member(1));
    let _lost = ensemble.dial(member(1), connect_request(40_000));
    ensemble.run_exactly_ms(500);
    ensemble.crash(member(1));
    ensemble.slow_ms.clear();
    ensemble.start(member(1));
    let id = ensemble.connect(member(1), 30_000);
    for path in ["/a", "/b"] {
        ensemble.ask(id, create(path, 0)).unwrap();
    }
    ensemble.run_ms(500);
    let state = |id| ensemble.server(member(id)).state();
    assert_eq!(state(2).applied_index(), state(1).applied_index());
    assert!(state(2).encode_snapshot() == state(1).encode_snapshot(), "they differ");
}
