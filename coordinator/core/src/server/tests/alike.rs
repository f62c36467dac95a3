//! Members whose largest requests are not the same tell people of it.

use super::ensemble::{Ensemble, member};
use crate::ServerId;
use crate::server::{Config, NOTICE_PAUSE_MS, Notice, Noticed};

const OWN: usize = 4 << 20;

/// A server, and bytes of its largest request.
type Limit = (ServerId, u64);

fn others_of(noticed: &Noticed) -> Option<(Limit, Vec<Limit>)> {
    match &noticed.notice {
        Notice::UnlikeLimits { own, others } => Some((*own, others.clone())),
        _ => None,
    }
}

/// What was noticed at each since it was last asked for: of this kind, the last one.
fn told(ensemble: &mut Ensemble, id: u64) -> Option<(Limit, Vec<Limit>)> {
    let noticed = ensemble.server_mut(member(id)).take_notices();
    noticed.iter().rev().find_map(others_of)
}

#[test]
fn members_with_another_largest_request_name_one_another_on_all_sides() {
    let mut ensemble = Ensemble::with(3, |config| {
        if config.id == member(2) {
            config.request_bytes_max = OWN;
        }
    });
    ensemble.await_leader();
    ensemble.run_ms(2 * NOTICE_PAUSE_MS);
    let usual = coordinator_protocol::FRAME_BYTES_MAX as u64;
    let (large, small) = ((member(2), OWN as u64), |id| (member(id), usual));
    for id in [1, 3] {
        assert_eq!(told(&mut ensemble, id), Some((small(id), vec![large])));
    }
    let (own, others) = told(&mut ensemble, 2).expect("a notice");
    assert_eq!(own, large);
    assert!(!others.is_empty() && others.iter().all(|other| [small(1), small(3)].contains(other)));
    ensemble.run_ms(2 * NOTICE_PAUSE_MS);
    assert_eq!(told(&mut ensemble, 1), None, "it is said once");
    // Who was away is told again, and tells again.
    ensemble.crash(member(3));
    ensemble.start(member(3));
    ensemble.run_ms(2 * NOTICE_PAUSE_MS);
    assert_eq!(told(&mut ensemble, 3), Some((small(3), vec![large])));
    assert_eq!(told(&mut ensemble, 1), None);
}

#[test]
fn members_that_are_alike_say_nothing() {
    const CHANGES: [fn(&mut Config); 2] = [|_| {}, |config| config.request_bytes_max = OWN];
    for change in CHANGES {
        let mut ensemble = Ensemble::with(3, change);
        ensemble.await_leader();
        ensemble.run_ms(2 * NOTICE_PAUSE_MS);
        assert_eq!((1..=3).filter_map(|id| told(&mut ensemble, id)).count(), 0);
    }
}
