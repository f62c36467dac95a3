//! Soft limits of quotas: people are warned, and nobody is refused.

use bytes::Bytes;
use coordinator_protocol::{Acl, CreateRequest, Request};

use super::ensemble::{Ensemble, member};
use super::{create, set_data};
use crate::server::Notice;

#[test]
fn every_server_warns_of_a_write_beyond_a_soft_limit_and_lets_it_pass() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let id = ensemble.connect(leader, 10_000);
    let limits = b"count=2,bytes=-1=;byteHardLimit=-1;countHardLimit=-1";
    ensemble.ask(id, create("/a", 0)).unwrap();
    ensemble.ask(id, create("/zookeeper/quota/a", 0)).unwrap();
    let quota = CreateRequest {
        path: "/zookeeper/quota/a/zookeeper_limits".into(),
        data: Some(Bytes::from_static(limits)),
        acl: Acl::open(),
        flags: 0,
    };
    ensemble.ask(id, Request::Create(quota)).unwrap();
    ensemble.ask(id, create("/a/1", 0)).unwrap();
    ensemble.ask(id, create("/b", 0)).unwrap();
    ensemble.run_ms(100);
    let servers = [1, 2, 3].map(member);
    assert!(servers.iter().all(|one| ensemble.server_mut(*one).take_notices().is_empty()));
    ensemble.ask(id, create("/a/2", 0)).unwrap();
    ensemble.ask(id, set_data("/a/2", "more")).unwrap();
    ensemble.ask(id, set_data("/b", "more")).unwrap();
    ensemble.run_ms(100);
    let notice = Notice::SoftQuota { path: "/a".into(), what: "count", limit: 2, usage: 3 };
    for one in servers {
        let noticed = ensemble.server_mut(one).take_notices();
        let [only] = noticed.as_slice() else { panic!("{noticed:?}") };
        assert_eq!((&only.notice, only.times), (&notice, 2), "{one}");
    }
}

#[test]
fn both_limits_are_warned_of_and_nothing_again_after_a_restart() {
    let mut ensemble = Ensemble::new(1);
    let id = ensemble.connect(member(1), 10_000);
    for (path, limits) in [
        ("/a", "count=1,bytes=-1=;byteHardLimit=-1;countHardLimit=-1"),
        ("/b", "count=-1,bytes=5=;byteHardLimit=-1;countHardLimit=-1"),
    ] {
        ensemble.ask(id, create(path, 0)).unwrap();
        ensemble.ask(id, create(&format!("/zookeeper/quota{path}"), 0)).unwrap();
        let quota = CreateRequest {
            path: format!("/zookeeper/quota{path}/zookeeper_limits"),
            data: Some(Bytes::copy_from_slice(limits.as_bytes())),
            acl: Acl::open(),
            flags: 0,
        };
        ensemble.ask(id, Request::Create(quota)).unwrap();
    }
    let told = |ensemble: &mut Ensemble| -> Vec<&'static str> {
        let noticed = ensemble.server_mut(member(1)).take_notices();
        let what = noticed.into_iter().map(|one| match one.notice {
            Notice::SoftQuota { what, .. } => what,
            other => panic!("{other:?}"),
        });
        what.collect()
    };
    ensemble.ask(id, create("/a/1", 0)).unwrap();
    ensemble.ask(id, set_data("/b", "longer")).unwrap();
    assert_eq!(told(&mut ensemble), ["bytes", "count"]);
    ensemble.crash(member(1));
    ensemble.start(member(1));
    ensemble.await_leader();
    assert!(ensemble.server(member(1)).state().tree().get("/a/1").is_some());
    assert_eq!(told(&mut ensemble), [""; 0]);
    let id = ensemble.connect(member(1), 10_000);
    ensemble.ask(id, set_data("/b", "longer still")).unwrap();
    assert_eq!(told(&mut ensemble), ["bytes"]);
}
