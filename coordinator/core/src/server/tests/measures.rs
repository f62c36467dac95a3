//! What metrics are told.

use coordinator_protocol::{AuthRequest, ErrorCode, Request, TransferRequest};

use super::ensemble::{Ensemble, member};
use super::{create, exists, get_data, set_data};
use crate::server::{Event, Summary};

#[test]
fn answers_are_counted_by_operation_and_events_by_change() {
    let mut ensemble = Ensemble::new(1);
    let watchers = [0; 3].map(|_| ensemble.connect(member(1), 10_000));
    for id in watchers {
        let _ = ensemble.ask(id, exists("/a", true));
    }
    ensemble.ask(watchers[0], create("/a", 0)).unwrap();
    ensemble.ask(watchers[0], set_data("/a", "1")).unwrap();
    ensemble.ask(watchers[0], get_data("/none", false)).unwrap_err();
    let measures = ensemble.server(member(1)).measures();
    let counts =
        measures.latencies_ms.iter().map(|(name, found)| (*name, found.counts.iter().sum::<u64>()));
    let expected = [("create", 1), ("exists", 3), ("getData", 1), ("setData", 1)];
    assert_eq!(counts.collect::<Vec<_>>(), expected);
    assert_eq!((measures.reads_ms.count, measures.updates_ms.count), (4, 2));
    assert!(measures.updates_ms.sum >= 4, "a sync takes 2 ms: {measures:?}");
    assert_eq!(measures.fired.created, Summary { count: 1, sum: 3 });
    assert_eq!(measures.fired.changed, Summary::default(), "nobody watched it any more");
    assert_eq!(measures.fan_out.sum, 3);
    assert_eq!(measures.fan_out.counts.iter().sum::<u64>(), 2);
}

#[test]
fn refused_writes_count_as_writes_and_what_neither_reads_nor_writes_as_neither() {
    let mut ensemble = Ensemble::with(1, |config| config.disk_free_bytes_min = 1 << 20);
    let id = ensemble.connect(member(1), 10_000);
    ensemble.step(member(1), Event::DiskRoom { free_bytes: 0 });
    ensemble.run_ms(100);
    assert_eq!(ensemble.ask(id, create("/a", 0)), Err(ErrorCode::QuotaExceeded));
    ensemble.ask(id, Request::TransferLeader(TransferRequest { to: 2 })).unwrap_err();
    ensemble.ask(id, Request::WhoAmI).unwrap();
    let auth = Some(bytes::Bytes::from_static(b"a:b"));
    let auth = AuthRequest { auth_type: 0, scheme: "digest".into(), auth };
    ensemble.ask(id, Request::Auth(auth)).unwrap();
    let measures = ensemble.server(member(1)).measures();
    assert_eq!((measures.reads_ms.count, measures.updates_ms.count), (0, 1));
}

#[test]
fn leader_knows_who_has_what_is_committed() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let followers: Vec<_> = [1, 2, 3].map(member).into_iter().filter(|id| *id != leader).collect();
    let id = ensemble.connect(leader, 30_000);
    ensemble.ask(id, create("/a", 0)).unwrap();
    ensemble.run_ms(200);
    let measures = ensemble.server(leader).measures();
    assert_eq!((measures.quorum_size, measures.synced_followers), (3, 2));
    assert_eq!(ensemble.server(followers[0]).measures().synced_followers, 0);
    ensemble.crash(followers[0]);
    ensemble.ask(id, set_data("/a", "1")).unwrap();
    assert_eq!(ensemble.server(leader).measures().synced_followers, 1);
}
