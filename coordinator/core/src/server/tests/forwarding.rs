//! Commands on their way to the leader: none is lost, and none is logged over and over.

use coordinator_protocol::{Request, Response};

use super::create;
use super::ensemble::{Ensemble, member};
use crate::state::{Command, Entry};

/// Writes in the log on a member's disk, repetitions included.
fn logged_writes(ensemble: &Ensemble, id: crate::ServerId) -> usize {
    let entries = ensemble.logged_entries(id).into_iter().filter(|entry| !entry.data.is_empty());
    let commands = entries.flat_map(|entry| Entry::decode(&entry.data).unwrap().commands);
    commands.filter(|command| matches!(command, Command::Write { .. })).count()
}

#[test]
fn slow_disk_and_broken_streams_make_no_repetitions_in_the_log() {
    for at_leader in [false, true] {
        let mut ensemble = Ensemble::with(3, |config| config.proposals_in_flight_max = 1);
        let leader = ensemble.await_leader();
        let home =
            [1, 2, 3].map(member).into_iter().find(|id| (*id == leader) == at_leader).unwrap();
        let id = ensemble.connect(home, 30_000);
        ensemble.ask(id, create("/s", 0)).unwrap();
        let before = logged_writes(&ensemble, leader);
        ensemble.sync_ms = 900;
        let mut last = ensemble.send(id, create("/s/n", 2));
        for round in 0..99 {
            if round % 20 == 10 && !at_leader {
                ensemble.cut_peers(home, leader, true);
                ensemble.run_ms(2);
                ensemble.connect_peers(home, leader);
            }
            ensemble.run_ms(40);
            last = ensemble.send(id, create("/s/n", 2));
        }
        ensemble.run_until("all answers", |e| e.clients[&id].reply(last).is_some());
        ensemble.sync_ms = 2;
        let count = ensemble.ask(id, Request::GetAllChildrenNumber("/s".into()));
        assert_eq!(count, Ok(Response::Count(100)));
        ensemble.run_ms(2_000);
        assert_eq!(logged_writes(&ensemble, leader) - before, 100, "at the leader: {at_leader}");
    }
}

#[test]
fn overtaken_command_is_sent_again_while_the_log_moves_on() {
    let mut ensemble = Ensemble::with(3, |_| {});
    let leader = ensemble.await_leader();
    let home = [1, 2, 3].map(member).into_iter().find(|id| *id != leader).unwrap();
    let [lost, other] = [0, 1].map(|_| ensemble.connect(home, 30_000));
    let before = logged_writes(&ensemble, leader);
    ensemble.lose_silently(home, leader, true);
    let missing = ensemble.send(lost, create("/lost", 0));
    ensemble.lose_silently(home, leader, false);
    let started = ensemble.now;
    for number in 0..20 {
        ensemble.ask(other, create(&format!("/other-{number}"), 0)).unwrap();
    }
    ensemble.run_until("the lost one", |e| e.clients[&lost].reply(missing).is_some());
    assert!(ensemble.clients[&lost].reply(missing).unwrap().is_ok());
    let took_ms = ensemble.now.since(started);
    assert!(took_ms < 1_000, "{took_ms} ms");
    ensemble.run_ms(30_000);
    assert_eq!(logged_writes(&ensemble, leader) - before, 21);
}

#[test]
fn lost_command_is_sent_again_while_only_others_move_the_log() {
    let mut ensemble = Ensemble::with(3, |_| {});
    let leader = ensemble.await_leader();
    let home = [1, 2, 3].map(member).into_iter().find(|id| *id != leader).unwrap();
    let [lost, other] = [home, leader].map(|server| ensemble.connect(server, 30_000));
    let before = logged_writes(&ensemble, leader);
    ensemble.lose_silently(home, leader, true);
    let missing = ensemble.send(lost, create("/lost", 0));
    ensemble.lose_silently(home, leader, false);
    for number in 0..20 {
        ensemble.ask(other, create(&format!("/other-{number}"), 0)).unwrap();
        ensemble.run_ms(100);
    }
    let reply = ensemble.clients[&lost].reply(missing).expect("sent again within two seconds");
    assert!(reply.is_ok());
    ensemble.run_ms(30_000);
    assert_eq!(logged_writes(&ensemble, leader) - before, 21);
}
