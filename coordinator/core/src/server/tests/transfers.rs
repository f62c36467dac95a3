//! Leadership that an operator moves.

use coordinator_protocol::{
    Acl, AuthRequest, EnsembleInfo, ErrorCode, MemberInfo, Permissions, Request, Response,
    SetAclRequest, TransferAnswer, TransferOutcome, TransferRequest,
};

use super::ensemble::{Ensemble, member};
use super::{create, set_data};
use crate::server::TRANSFERS_MAX;
use crate::{ConnectionId, ServerId};

fn auth(credentials: &'static str) -> Request {
    let auth = Some(credentials.into());
    Request::Auth(AuthRequest { auth_type: 0, scheme: "digest".into(), auth })
}

fn transfer(to: u64) -> Request {
    Request::TransferLeader(TransferRequest { to: i32::try_from(to).unwrap() })
}

fn answer(outcome: TransferOutcome, leader: ServerId) -> Result<Response, ErrorCode> {
    let leader = i32::try_from(leader.get()).unwrap();
    Ok(Response::Transfer(TransferAnswer { outcome, leader }))
}

fn ensemble(size: u64) -> (Ensemble, ServerId) {
    let mut ensemble = Ensemble::with(size, |config| {
        config.super_digest = Some("super:D/InIHSb7yEEbrWz8b9l71RjZJU=".into());
    });
    let leader = ensemble.await_leader();
    (ensemble, leader)
}

fn operator(ensemble: &mut Ensemble, server: ServerId) -> ConnectionId {
    let id = ensemble.connect(server, 10_000);
    ensemble.ask(id, auth("super:test")).unwrap();
    id
}

fn others(leader: ServerId) -> Vec<ServerId> {
    (1..=3).map(member).filter(|id| *id != leader).collect()
}

#[test]
fn leadership_goes_to_who_is_named_and_nobody_is_disconnected() {
    let (mut ensemble, first) = ensemble(3);
    let heir = others(first)[1];
    // Asked at the leader, at the heir, and at the third.
    for asked in [first, heir, others(first)[0]] {
        let leader = ensemble.await_leader();
        let to = if leader == heir { first } else { heir };
        let id = operator(&mut ensemble, asked);
        let clients = [leader, to].map(|server| ensemble.connect(server, 10_000));
        let path = format!("/of-{asked}");
        ensemble.ask(clients[0], create(&path, 0)).unwrap();
        let begun = ensemble.now;
        let sent: Vec<_> =
            clients.iter().map(|client| ensemble.send(*client, set_data(&path, "x"))).collect();
        let done = answer(TransferOutcome::Done, to);
        assert_eq!(ensemble.ask(id, transfer(to.get())), done, "asked {asked}");
        assert!(ensemble.now.since(begun) < 100, "took {} ms", ensemble.now.since(begun));
        assert_eq!(ensemble.await_leader(), to);
        for (client, xid) in clients.iter().zip(sent) {
            ensemble.run_until("write", |e| e.clients[client].reply(xid).is_some());
            assert!(ensemble.clients[client].reply(xid).unwrap().is_ok());
            assert!(!ensemble.clients[client].is_closed());
        }
    }
}

#[test]
fn without_a_name_the_office_goes_to_another_server() {
    let (mut ensemble, leader) = ensemble(3);
    let id = operator(&mut ensemble, others(leader)[0]);
    let Ok(Response::Transfer(told)) = ensemble.ask(id, transfer(0)) else { panic!() };
    let now = ensemble.await_leader();
    assert_ne!(now, leader);
    assert_eq!(answer(told.outcome, now), answer(TransferOutcome::Done, now));
}

#[test]
fn what_cannot_be_is_said_at_once() {
    let (mut ensemble, leader) = ensemble(3);
    let [near, far] = others(leader)[..] else { panic!() };
    let id = operator(&mut ensemble, near);
    ensemble.crash(far);
    ensemble.run_ms(50);
    let begun = ensemble.now;
    let already = answer(TransferOutcome::AlreadyLeader, leader);
    assert_eq!(ensemble.ask(id, transfer(leader.get())), already);
    assert_eq!(ensemble.ask(id, transfer(far.get())), answer(TransferOutcome::NotUp, leader));
    for stranger in [4, 255, 70_000] {
        let refused = answer(TransferOutcome::NotMember, leader);
        assert_eq!(ensemble.ask(id, transfer(stranger)), refused);
    }
    assert!(ensemble.now.since(begun) < 50);
    assert_eq!(ensemble.await_leader(), leader);
    let (mut alone, only) = self::ensemble(1);
    let id = operator(&mut alone, only);
    assert_eq!(alone.ask(id, transfer(0)), answer(TransferOutcome::NotUp, only));
    let already = answer(TransferOutcome::AlreadyLeader, only);
    assert_eq!(alone.ask(id, transfer(only.get())), already);
}

#[test]
fn heir_that_does_not_come_is_given_up_and_writes_go_on() {
    let (mut ensemble, leader) = ensemble(3);
    let [near, far] = others(leader)[..] else { panic!() };
    let id = operator(&mut ensemble, near);
    let writer = ensemble.connect(near, 10_000);
    ensemble.ask(writer, create("/a", 0)).unwrap();
    // It has a stream and does nothing with it.
    ensemble.freeze(far, true);
    let begun = ensemble.now;
    let asked = ensemble.send(id, transfer(far.get()));
    ensemble.run_ms(1);
    let written = ensemble.send(writer, set_data("/a", "x"));
    ensemble.run_until("write", |e| e.clients[&writer].reply(written).is_some());
    assert!(ensemble.clients[&writer].reply(written).unwrap().is_ok());
    ensemble.run_until("transfer", |e| e.clients[&id].reply(asked).is_some());
    let late = answer(TransferOutcome::TookTooLong, leader);
    assert_eq!(ensemble.clients[&id].reply(asked), Some(late));
    assert!(ensemble.now.since(begun) <= 4_100, "took {} ms", ensemble.now.since(begun));
}

#[test]
fn only_who_may_write_the_configuration_moves_leadership() {
    let (mut ensemble, leader) = ensemble(3);
    let stranger = ensemble.connect(leader, 10_000);
    ensemble.ask(stranger, auth("operator:secret")).unwrap();
    let heir = others(leader)[0];
    assert_eq!(ensemble.ask(stranger, transfer(heir.get())), Err(ErrorCode::NoAuth));
    let id = operator(&mut ensemble, leader);
    let path = "/zookeeper/config".to_owned();
    let acl = vec![Acl {
        permissions: Permissions::READ | Permissions::WRITE,
        scheme: "digest".into(),
        // Of operator:secret.
        id: "operator:7jWRZ6rRChO2XKqMVWLii1hb7YQ=".into(),
    }];
    let set = Request::SetAcl(SetAclRequest { path, acl, version: -1 });
    assert_eq!(ensemble.ask(stranger, set.clone()), Err(ErrorCode::NoAuth));
    ensemble.ask(id, set).unwrap();
    let done = answer(TransferOutcome::Done, heir);
    assert_eq!(ensemble.ask(stranger, transfer(heir.get())), done);
}

#[test]
fn servers_that_skip_access_lists_let_everybody() {
    let mut ensemble = Ensemble::with(3, |config| config.skip_acl = true);
    let leader = ensemble.await_leader();
    let id = ensemble.connect(leader, 10_000);
    let heir = others(leader)[0];
    let done = answer(TransferOutcome::Done, heir);
    assert_eq!(ensemble.ask(id, transfer(heir.get())), done);
}

#[test]
fn transfers_that_wait_are_bounded() {
    let (mut ensemble, leader) = ensemble(3);
    let far = others(leader)[0];
    ensemble.freeze(far, true);
    let ids: Vec<_> = (0..TRANSFERS_MAX).map(|_| operator(&mut ensemble, leader)).collect();
    let last = operator(&mut ensemble, leader);
    let sent: Vec<_> = ids.iter().map(|id| ensemble.send(*id, transfer(far.get()))).collect();
    assert_eq!(ensemble.ask(last, transfer(far.get())), Err(ErrorCode::ThrottledOp));
    ensemble.run_ms(5_000);
    assert!(ids.iter().zip(sent).all(|(id, xid)| ensemble.clients[id].reply(xid).is_some()));
}

#[test]
fn ensemble_is_described_as_a_server_sees_it() {
    let (mut ensemble, leader) = ensemble(3);
    let gone = others(leader)[1];
    ensemble.crash(gone);
    ensemble.run_ms(50);
    let id = ensemble.connect(leader, 10_000);
    let told = ensemble.ask(id, Request::DescribeEnsemble);
    let wire = |id: ServerId| i32::try_from(id.get()).unwrap();
    let members =
        (1..=3).map(|id| MemberInfo { id: wire(member(id)), up: member(id) != gone }).collect();
    let term = i64::try_from(ensemble.server(leader).status().term).unwrap();
    let (server, leader) = (wire(leader), wire(leader));
    let info = EnsembleInfo { server, leader, term, members };
    assert_eq!(told, Ok(Response::Ensemble(info)));
}

#[test]
fn ensemble_is_described_to_who_may_read_its_configuration() {
    let (mut ensemble, leader) = ensemble(3);
    let stranger = ensemble.connect(leader, 10_000);
    let operator = operator(&mut ensemble, leader);
    let digest = "super:D/InIHSb7yEEbrWz8b9l71RjZJU=";
    let acl = vec![Acl { permissions: 31, scheme: "digest".into(), id: digest.into() }];
    let set = SetAclRequest { path: "/zookeeper/config".into(), acl, version: -1 };
    ensemble.ask(operator, Request::SetAcl(set)).unwrap();
    assert_eq!(ensemble.ask(stranger, Request::DescribeEnsemble), Err(ErrorCode::NoAuth));
    assert!(ensemble.ask(operator, Request::DescribeEnsemble).is_ok());
}

#[test]
fn standing_tells_of_a_transfer_and_links_of_who_is_there() {
    let (mut ensemble, first) = ensemble(3);
    let [heir, third] = others(first)[..] else { panic!("three servers") };
    let standing = ensemble.server(first).standing();
    assert_eq!((standing.leader, standing.heir, standing.confirmed), (Some(first), None, true));
    assert_eq!(ensemble.server(first).links().up, others(first));
    let operator = operator(&mut ensemble, third);
    ensemble.ask(operator, transfer(heir.get())).unwrap();
    assert_eq!(ensemble.server(third).standing().transfers_asked, 1);
    assert_eq!(ensemble.server(heir).standing().leader, Some(heir));
    ensemble.crash(third);
    ensemble.run_ms(100);
    assert_eq!(ensemble.server(heir).links().missing, [third]);
}
