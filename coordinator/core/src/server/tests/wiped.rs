//! Members that lost their disks: what they had acknowledged must not be lost with them.

use bytes::Bytes;
use coordinator_protocol::{Acl, CreateRequest, Request};

use super::ensemble::{Ensemble, member};
use super::{create, exists};
use crate::ServerId;

/// Longer than any election takes that can succeed.
const LONG_MS: u64 = 60_000;

fn all() -> Vec<ServerId> {
    [1, 2, 3].map(member).to_vec()
}

/// 1 goes, then `/kept` is acknowledged by 2 and 3, and both go.
fn with_a_stale_member() -> Ensemble {
    let mut ensemble = Ensemble::new(3);
    ensemble.await_leader();
    let id = ensemble.connect(member(2), 10_000);
    (0..20).for_each(|number| assert!(ensemble.ask(id, large(number)).is_ok()));
    ensemble.run_ms(100);
    ensemble.crash(member(1));
    ensemble.await_leader();
    let id = ensemble.connect(member(2), 10_000);
    ensemble.ask(id, create("/kept", 0)).unwrap();
    ensemble.crash(member(3));
    ensemble.crash(member(2));
    ensemble.place(member(3), all());
    ensemble
}

fn assert_kept(ensemble: &mut Ensemble) {
    ensemble.await_leader();
    ensemble.run_ms(5_000);
    for id in all() {
        let client = ensemble.connect(id, 10_000);
        assert!(ensemble.ask(client, exists("/kept", false)).is_ok(), "{id} lost it");
    }
    assert!(all().into_iter().all(|id| !ensemble.server(id).status().is_new));
}

#[test]
fn wiped_member_elects_nobody_who_may_lack_what_it_had() {
    let mut ensemble = with_a_stale_member();
    ensemble.start(member(1));
    ensemble.start(member(3));
    ensemble.run_ms(LONG_MS);
    assert_eq!(ensemble.leader(), None);
    assert!(ensemble.server(member(3)).status().is_new);
    ensemble.start(member(2));
    assert_kept(&mut ensemble);
}

fn large(number: usize) -> Request {
    let data = Some(Bytes::from(vec![7; 200_000]));
    let (path, acl) = (format!("/large{number}"), Acl::open());
    Request::Create(CreateRequest { path, data, acl, flags: 0 })
}

/// Nor while it has a part of it; and it remembers that over a restart.
#[test]
fn wiped_member_votes_when_it_has_caught_up_and_not_before() {
    let mut ensemble = with_a_stale_member();
    let stale = ensemble.logged_entries(member(1)).len();
    // 1 and 2 elect a leader, which 3 gets the first entries from.
    ensemble.slow_ms.insert(member(3), 20);
    ensemble.slow_ms.insert(member(1), 5_000);
    ensemble.start(member(1));
    ensemble.start(member(2));
    ensemble.run_until("a leader", |e| e.leader() == Some(member(2)));
    ensemble.start(member(3));
    let has = |ensemble: &Ensemble| ensemble.logged_entries(member(3)).len();
    ensemble.run_until("a part of the log", |e| has(e) > 0);
    ensemble.crash(member(2));
    ensemble.crash(member(1));
    ensemble.crash(member(3));
    assert!(has(&ensemble) < stale && ensemble.logged_entries(member(1)).len() == stale);
    for _ in 0..2 {
        ensemble.start(member(1));
        ensemble.start(member(3));
        ensemble.run_ms(LONG_MS);
        assert_eq!(ensemble.leader(), None);
        assert!(ensemble.server(member(3)).status().is_new);
        ensemble.crash(member(1));
        ensemble.crash(member(3));
    }
    ensemble.slow_ms.clear();
    all().into_iter().for_each(|id| ensemble.start(id));
    assert_kept(&mut ensemble);
    // With what it has now, it votes as the others do.
    ensemble.crash(member(1));
    ensemble.run_until("a leader", |e| e.leader().is_some_and(|id| id != member(1)));
    ensemble.start(member(1));
    ensemble.run_ms(2_000);
    ensemble.crash(member(2));
    ensemble.run_until("a leader", |e| e.leader().is_some_and(|id| id != member(2)));
}

#[test]
fn members_that_founded_the_ensemble_vote_at_once() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    ensemble.run_ms(100);
    assert!(all().into_iter().all(|id| !ensemble.server(id).status().is_new));
    ensemble.crash(leader);
    ensemble.run_until("another leader", |e| e.leader().is_some_and(|id| id != leader));
}
