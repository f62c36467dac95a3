//! What the audit log is told, and by whom.

use bytes::Bytes;
use coordinator_protocol::{
    Acl, AuthRequest, CreateRequest, DeleteRequest, MultiOp, Permissions, Request, SetAclRequest,
};

use super::ensemble::{Ensemble, member};
use super::{create, delete, get_data, set_data};
use crate::ServerId;
use crate::server::{AUDIT_TEXT_BYTES_MAX, AuditRecord, Event};

fn audited(size: u64) -> Ensemble {
    Ensemble::with(size, |config| config.audit = true)
}

/// Operation, path, type or access list, and whether it was done.
fn told(ensemble: &mut Ensemble) -> Vec<(&'static str, String, String, bool)> {
    let short = |(_, record): (ServerId, AuditRecord)| {
        let kind = record.znode_type.map(str::to_owned).or(record.acl).unwrap_or_default();
        (record.operation, record.znode.unwrap_or_default(), kind, record.is_done)
    };
    std::mem::take(&mut ensemble.audited).into_iter().map(short).collect()
}

fn line(
    operation: &'static str,
    znode: &str,
    kind: &str,
    is_done: bool,
) -> (&'static str, String, String, bool) {
    (operation, znode.to_owned(), kind.to_owned(), is_done)
}

#[test]
fn changes_and_what_was_not_done_are_told_with_who_and_what() {
    let mut ensemble = audited(1);
    let id = ensemble.connect(member(1), 10_000);
    let auth = AuthRequest {
        auth_type: 0,
        scheme: "digest".into(),
        auth: Some(Bytes::from_static(b"bob:secret")),
    };
    ensemble.ask(id, Request::Auth(auth)).unwrap();
    ensemble.ask(id, create("/a", 0)).unwrap();
    let record = ensemble.audited[0].1.clone();
    assert_eq!(record.user.as_deref(), Some("10.1.2.3,bob"));
    assert_eq!(record.ip.as_deref(), Some("10.1.2.3"));
    assert_eq!(record.session, ensemble.clients[&id].response().session);
    ensemble.ask(id, create("/a/s-", 2)).unwrap();
    ensemble.ask(id, create("/a", 0)).unwrap_err();
    ensemble.ask(id, set_data("/a", "1")).unwrap();
    ensemble.ask(id, delete("/none")).unwrap_err();
    let acl = vec![Acl {
        permissions: Permissions::ALL,
        scheme: "digest".into(),
        id: "bob:+mmV7/nMWK8fZ60tnAsaVlS1tNQ=".into(),
    }];
    let set_acl = SetAclRequest { path: "/a".into(), acl, version: -1 };
    ensemble.ask(id, Request::SetAcl(set_acl)).unwrap();
    let other = ensemble.connect(member(1), 10_000);
    ensemble.ask(other, get_data("/a", false)).unwrap_err();
    ensemble.ask(other, set_data("/a", "2")).unwrap_err();
    let expected = [
        line("create", "/a", "persistent", true),
        line("create", "/a/s-0000000000", "persistent_sequential", true),
        line("create", "/a", "persistent", false),
        line("setData", "/a", "", true),
        line("delete", "/none", "", false),
        line("setAcl", "/a", "digest:bob:cdrwa", true),
        line("getData", "/a", "", false),
        line("setData", "/a", "", false),
    ];
    assert_eq!(told(&mut ensemble), expected);
}

#[test]
fn multi_is_told_by_its_operations_or_as_one_that_failed() {
    let mut ensemble = audited(1);
    let id = ensemble.connect(member(1), 10_000);
    let new = |path: &str| {
        let (path, data, acl) = (path.to_owned(), None, Acl::open());
        MultiOp::Create(CreateRequest { path, data, acl, flags: 0 })
    };
    let gone = MultiOp::Delete(DeleteRequest { path: "/a".into(), version: -1 });
    ensemble.ask(id, Request::Multi(vec![new("/a"), gone])).unwrap();
    let _ = ensemble.ask(id, Request::Multi(vec![new("/b"), new("/b")]));
    let expected = [
        line("create", "/a", "persistent", true),
        line("delete", "/a", "", true),
        line("multiOperation", "", "", false),
    ];
    assert_eq!(told(&mut ensemble), expected);
}

#[test]
fn one_server_of_the_ensemble_tells_of_a_write_and_the_leader_of_a_session_that_ended() {
    let mut ensemble = audited(3);
    let leader = ensemble.await_leader();
    let home = [1, 2, 3].map(member).into_iter().find(|id| *id != leader).unwrap();
    let id = ensemble.connect(home, 10_000);
    ensemble.ask(id, create("/e", 1)).unwrap();
    ensemble.ask(id, Request::CloseSession).unwrap();
    ensemble.run_ms(500);
    let by: Vec<ServerId> = ensemble.audited.iter().map(|(by, _)| *by).collect();
    assert_eq!(by, [home, leader]);
    let expected = [
        line("create", "/e", "ephemeral", true),
        line("ephemeralZNodeDeletionOnSessionCloseOrExpire", "/e", "", true),
    ];
    assert_eq!(told(&mut ensemble), expected);
}

#[test]
fn restart_tells_nothing_twice() {
    let mut ensemble = audited(1);
    let id = ensemble.connect(member(1), 10_000);
    ensemble.ask(id, create("/a", 0)).unwrap();
    ensemble.crash(member(1));
    ensemble.start(member(1));
    let id = ensemble.connect(member(1), 10_000);
    ensemble.ask(id, set_data("/a", "1")).unwrap();
    let expected = [line("create", "/a", "persistent", true), line("setData", "/a", "", true)];
    assert_eq!(told(&mut ensemble), expected);
}

#[test]
fn refusals_for_want_of_room_are_told_where_there_is_room_and_counted_where_there_is_none() {
    let mut ensemble = audited(3);
    let leader = ensemble.await_leader();
    let other = [1, 2, 3].map(member).into_iter().find(|id| *id != leader).unwrap();
    let clients = [leader, other].map(|id| ensemble.connect(id, 10_000));
    ensemble.ask(clients[0], create("/a", 0)).unwrap();
    ensemble.ask(clients[0], create("/b", 0)).unwrap();
    ensemble.audited.clear();
    ensemble.step(leader, Event::DiskRoom { free_bytes: 0 });
    ensemble.run_ms(100);
    for id in clients {
        ensemble.ask(id, set_data("/a", "1")).unwrap_err();
    }
    ensemble.ask(clients[0], delete("/b")).unwrap();
    assert_eq!(ensemble.audited.iter().map(|(by, _)| *by).collect::<Vec<_>>(), [other]);
    assert_eq!(told(&mut ensemble), [line("setData", "/a", "", false)]);
    let left_out = |ensemble: &Ensemble, id| ensemble.server(id).measures().audit_left_out;
    assert_eq!((left_out(&ensemble, leader), left_out(&ensemble, other)), (2, 0));
    ensemble.step(leader, Event::DiskRoom { free_bytes: u64::MAX });
    ensemble.ask(clients[0], set_data("/a", "1")).unwrap();
    assert_eq!(told(&mut ensemble), [line("setData", "/a", "", true)]);
}

#[test]
fn records_are_of_a_bounded_size_whatever_a_client_sends() {
    let mut ensemble = audited(1);
    let id = ensemble.connect(member(1), 10_000);
    let path = format!("/{}", "a".repeat(AUDIT_TEXT_BYTES_MAX));
    for user in 0..8 {
        let auth = Some(format!("{user}{}:x", "u".repeat(1_000)).into());
        let auth = AuthRequest { auth_type: 0, scheme: "digest".into(), auth };
        ensemble.ask(id, Request::Auth(auth)).unwrap();
    }
    ensemble.audited.clear();
    ensemble.ask(id, create(&path, 1)).unwrap();
    let entry = |number| Acl {
        permissions: Permissions::ALL,
        scheme: "ip".into(),
        id: format!("10.0.{}.{}", number / 250, number % 250),
    };
    let set_acl =
        SetAclRequest { path: path.clone(), acl: (0..500).map(entry).collect(), version: -1 };
    ensemble.ask(id, Request::SetAcl(set_acl)).unwrap();
    let read = ensemble.connect(member(1), 10_000);
    ensemble.ask(read, get_data(&path, false)).unwrap_err();
    ensemble.ask(id, set_data(&format!("{path}b"), "1")).unwrap_err();
    ensemble.ask(id, Request::CloseSession).unwrap();
    let records: Vec<AuditRecord> =
        std::mem::take(&mut ensemble.audited).into_iter().map(|(_, record)| record).collect();
    let operations: Vec<&str> = records.iter().map(|record| record.operation).collect();
    let end = "ephemeralZNodeDeletionOnSessionCloseOrExpire";
    assert_eq!(operations, ["create", "setAcl", "getData", "setData", end]);
    for record in records {
        let cut = |text: &String| text.len() == AUDIT_TEXT_BYTES_MAX && text.ends_with("...");
        assert!(record.znode.as_ref().is_some_and(cut), "{record:?}");
        assert!(record.acl.as_ref().is_none_or(cut), "{record:?}");
        assert!(record.bytes() < 4 * AUDIT_TEXT_BYTES_MAX);
    }
}

#[test]
fn nothing_is_told_unless_it_is_asked_for() {
    let mut ensemble = Ensemble::new(1);
    let id = ensemble.connect(member(1), 10_000);
    ensemble.ask(id, create("/a", 1)).unwrap();
    ensemble.ask(id, Request::CloseSession).unwrap();
    assert!(ensemble.audited.is_empty());
}
