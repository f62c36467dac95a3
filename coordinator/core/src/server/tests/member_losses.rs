//! Members change while those who lead, leave or join are lost at the worst moment.

use coordinator_protocol::{Request, TransferRequest};

use super::create;
use super::ensemble::member;
use super::reconfiguration::{World, leaving, spec, voters};
use crate::ServerId;
use crate::members::Member;
use crate::state::{Command, Entry, State};

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
