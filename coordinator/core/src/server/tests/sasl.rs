//! Passwords proved by SASL, and what is answered to those who have proved none.

use bytes::Bytes;
use coordinator_protocol::{Acl, CreateRequest, ErrorCode, Permissions, Request, Response};

use super::ensemble::{Ensemble, member};
use super::{create, get_data};
use crate::ConnectionId;
use crate::digest_md5::{Secret, prove};

fn ensemble(required: bool) -> Ensemble {
    let configure = |config: &mut crate::server::Config| {
        for (user, password) in [("bob", "b"), ("eve", "e"), ("root", "r")] {
            config.sasl.users.insert(user.to_owned(), Secret::new(user, password));
        }
        config.sasl.super_user = Some("root".to_owned());
    };
    let mut ensemble = match required {
        false => Ensemble::with(1, configure),
        true => Ensemble::with(1, |config| {
            config.sasl.users.insert("bob".to_owned(), Secret::new("bob", "b"));
            config.sasl.required = true;
        }),
    };
    ensemble.await_leader();
    ensemble
}

fn token(text: &str) -> Request {
    Request::Sasl(Some(Bytes::copy_from_slice(text.as_bytes())))
}

/// The nonce of a connection's challenge.
fn nonce(ensemble: &mut Ensemble, id: ConnectionId) -> String {
    let answer = ensemble.ask(id, token(""));
    let Ok(Response::Token(Some(challenge))) = answer else { panic!("{answer:?}") };
    let challenge = String::from_utf8(challenge.to_vec()).unwrap();
    challenge.split('"').nth(3).unwrap().to_owned()
}

fn show(
    ensemble: &mut Ensemble,
    id: ConnectionId,
    who: (&str, &str),
) -> Result<Response, ErrorCode> {
    let nonce = nonce(ensemble, id);
    ensemble.ask(id, token(&prove(who, &nonce)))
}

#[test]
fn who_proved_a_password_is_who_the_list_names() {
    let mut ensemble = ensemble(false);
    let [bob, eve, root] = [(); 3].map(|()| ensemble.connect(member(1), 10_000));
    for (id, who) in [(bob, ("bob", "b")), (eve, ("eve", "e")), (root, ("root", "r"))] {
        let answer = show(&mut ensemble, id, who);
        let Ok(Response::Token(Some(text))) = answer else { panic!("{who:?}: {answer:?}") };
        assert!(text.starts_with(b"rspauth="), "it knows the password, too");
    }
    let acl = vec![Acl { permissions: Permissions::ALL, scheme: "sasl".into(), id: "bob".into() }];
    let request = CreateRequest { path: "/bobs".into(), data: None, acl, flags: 0 };
    ensemble.ask(bob, Request::Create(request)).unwrap();
    assert!(ensemble.ask(bob, get_data("/bobs", false)).is_ok());
    assert_eq!(ensemble.ask(eve, get_data("/bobs", false)), Err(ErrorCode::NoAuth));
    assert!(ensemble.ask(root, get_data("/bobs", false)).is_ok());
    let shown = ensemble.ask(bob, Request::WhoAmI);
    let Ok(Response::ClientInfos(infos)) = shown else { panic!("{shown:?}") };
    assert!(infos.iter().any(|info| (&*info.scheme, &*info.user) == ("sasl", "bob")), "{infos:?}");
}

#[test]
fn a_wrong_proof_ends_the_connection() {
    let mut ensemble = ensemble(false);
    let other = ensemble.connect(member(1), 10_000);
    let others = nonce(&mut ensemble, other);
    for wrong in [prove(("bob", "B"), ""), prove(("bob", "b"), &others), "x".to_owned()] {
        let id = ensemble.connect(member(1), 10_000);
        let own = nonce(&mut ensemble, id);
        assert_ne!(own, others, "each connection has a nonce of its own");
        let wrong = wrong.replace("nonce=\"\"", &format!("nonce=\"{own}\""));
        assert_eq!(ensemble.ask(id, token(&wrong)), Err(ErrorCode::AuthFailed), "{wrong}");
        assert!(ensemble.clients[&id].is_closed());
    }
}

#[test]
fn nothing_else_is_answered_where_a_proof_is_required() {
    let mut ensemble = ensemble(true);
    let id = ensemble.connect(member(1), 10_000);
    assert!(ensemble.ask(id, Request::Ping).is_ok());
    let refused = ensemble.ask(id, create("/a", 0));
    assert_eq!(refused, Err(ErrorCode::SessionClosedRequireSaslAuth));
    assert!(ensemble.clients[&id].is_closed());
    let id = ensemble.connect(member(1), 10_000);
    assert!(show(&mut ensemble, id, ("bob", "b")).is_ok());
    assert!(ensemble.ask(id, create("/a", 0)).is_ok());
    let leaving = ensemble.connect(member(1), 10_000);
    assert!(ensemble.ask(leaving, Request::CloseSession).is_ok());
}

#[test]
fn without_users_the_answer_is_an_empty_token() {
    let mut ensemble = Ensemble::new(1);
    ensemble.await_leader();
    let id = ensemble.connect(member(1), 10_000);
    assert_eq!(ensemble.ask(id, token("")), Ok(Response::Token(None)));
    assert!(ensemble.ask(id, create("/a", 0)).is_ok());
}
