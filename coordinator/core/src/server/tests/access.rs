//! Access lists: who may do what, through real requests.

use bytes::Bytes;
use coordinator_protocol::{
    Acl, AddWatchMode, AddWatchRequest, AuthRequest, CheckRequest, ClientInfo, CreateRequest,
    ErrorCode, EventType, MultiOp, MultiReadOp, MultiReadResult, MultiResult, PathWatch,
    Permissions, Request, Response, SetAclRequest, SubscribeRequest, Zxid,
};

use super::ensemble::{Ensemble, Got, member};
use super::{create, delete, exists, get_data, set_data};
use crate::{ConnectionId, ServerId};

const OWNER: &str = "owner:secret";
/// What ZooKeeper makes of it.
const OWNER_ID: &str = "owner:Vj++wdU3sMAbt+g9TyKj1BT+usI=";

fn auth(scheme: &str, credentials: &str) -> Request {
    let auth = Some(Bytes::copy_from_slice(credentials.as_bytes()));
    Request::Auth(AuthRequest { auth_type: 0, scheme: scheme.into(), auth })
}

fn acl(permissions: i32, scheme: &str, id: &str) -> Acl {
    Acl { permissions, scheme: scheme.into(), id: id.into() }
}

fn create_with(path: &str, acl: Vec<Acl>) -> Request {
    Request::Create(CreateRequest { path: path.into(), data: None, acl, flags: 0 })
}

fn set_acl(path: &str, acl: Vec<Acl>, version: i32) -> Request {
    Request::SetAcl(SetAclRequest { path: path.into(), acl, version })
}

fn get_children(path: &str) -> Request {
    Request::GetChildren(PathWatch { path: path.into(), watch: false })
}

/// An owner, a stranger, and a follower that serves both.
fn two(size: u64) -> (Ensemble, ServerId, ConnectionId, ConnectionId) {
    let mut ensemble = Ensemble::with(size, |config| {
        config.super_digest = Some("super:D/InIHSb7yEEbrWz8b9l71RjZJU=".into())
    });
    let leader = ensemble.await_leader();
    let ids = (1..=size).map(member);
    let home = ids.rev().find(|id| size == 1 || *id != leader).unwrap();
    let (owner, stranger) = (ensemble.connect(home, 30_000), ensemble.connect(home, 30_000));
    assert_eq!(ensemble.ask(owner, auth("digest", OWNER)), Ok(Response::Empty));
    (ensemble, home, owner, stranger)
}

#[test]
fn refused_exists_leaves_no_watch() {
    let (mut ensemble, _, owner, stranger) = two(3);
    ensemble.ask(owner, create_with("/p", vec![acl(Permissions::ALL, "auth", "")])).unwrap();
    assert_eq!(ensemble.ask(stranger, exists("/p", true)), Err(ErrorCode::NoAuth));
    ensemble.ask(owner, set_acl("/p", Acl::open(), -1)).unwrap();
    ensemble.ask(owner, set_data("/p", "x")).unwrap();
    assert!(ensemble.ask(stranger, exists("/p", true)).is_ok());
    let told = |got: &&Got| matches!(got, Got::Notified(..));
    assert_eq!(ensemble.clients[&stranger].got.iter().filter(told).count(), 0);
    ensemble.ask(owner, set_data("/p", "y")).unwrap();
    ensemble.run_ms(50);
    assert_eq!(ensemble.clients[&stranger].got.iter().filter(told).count(), 1);
}

#[test]
fn only_who_the_list_names_may_do_what_it_says() {
    let (mut ensemble, _, owner, stranger) = two(3);
    let own = vec![acl(Permissions::ALL, "auth", "")];
    ensemble.ask(owner, create_with("/p", own.clone())).unwrap();
    ensemble.ask(owner, create_with("/p/c", own)).unwrap();
    let refused = Err(ErrorCode::NoAuth);
    for request in [
        get_data("/p", false),
        set_data("/p", "x"),
        create("/p/new", 0),
        delete("/p/c"),
        get_children("/p"),
        Request::GetAcl("/p".into()),
        Request::GetAllChildrenNumber("/p".into()),
        Request::Check(CheckRequest { path: "/p".into(), version: -1 }),
        set_acl("/p", Acl::open(), -1),
        Request::Subscribe(SubscribeRequest {
            subscription: 1,
            path: "/p".into(),
            from_zxid: Zxid::ZERO,
        }),
    ] {
        assert_eq!(ensemble.ask(stranger, request.clone()), refused, "{request:?}");
    }
    assert_eq!(ensemble.ask(stranger, exists("/p", false)), refused, "as in ZooKeeper 3.9.5");
    assert_eq!(ensemble.ask(stranger, delete("/p/missing")), refused);
    assert!(ensemble.ask(owner, get_data("/p", false)).is_ok());
    assert!(ensemble.ask(owner, set_data("/p", "x")).is_ok());
    assert!(ensemble.ask(owner, create("/p/new", 0)).is_ok());
    assert!(ensemble.ask(owner, delete("/p/c")).is_ok());
    // Whoever shows the same later may as well.
    ensemble.ask(stranger, auth("digest", OWNER)).unwrap();
    assert!(ensemble.ask(stranger, get_data("/p", false)).is_ok());
}

#[test]
fn parents_list_decides_on_deleting_and_the_nodes_own_on_everything_else() {
    let (mut ensemble, _, owner, stranger) = two(1);
    let locked = vec![acl(Permissions::READ, "world", "anyone"), acl(31, "digest", OWNER_ID)];
    ensemble.ask(owner, create("/open", 0)).unwrap();
    ensemble.ask(owner, create_with("/open/locked", locked)).unwrap();
    assert_eq!(ensemble.ask(stranger, set_data("/open/locked", "x")), Err(ErrorCode::NoAuth));
    assert!(ensemble.ask(stranger, get_data("/open/locked", false)).is_ok());
    assert!(ensemble.ask(stranger, delete("/open/locked")).is_ok());
}

#[test]
fn set_acl_replaces_the_list_at_its_version_and_digests_are_masked() {
    let (mut ensemble, _, owner, stranger) = two(3);
    ensemble.ask(owner, create("/a", 0)).unwrap();
    let list = vec![acl(31, "digest", OWNER_ID), acl(Permissions::READ, "world", "anyone")];
    let stat = match ensemble.ask(owner, set_acl("/a", list.clone(), 0)) {
        Ok(Response::Stat(stat)) => stat,
        other => panic!("{other:?}"),
    };
    assert_eq!((stat.aversion, stat.version, stat.mzxid), (1, 0, stat.czxid));
    assert_eq!(ensemble.ask(owner, set_acl("/a", list.clone(), 0)), Err(ErrorCode::BadVersion));
    assert_eq!(ensemble.ask(owner, set_acl("/none", list.clone(), 0)), Err(ErrorCode::NoNode));
    for invalid in [vec![], vec![acl(31, "unknown", "x")]] {
        assert_eq!(ensemble.ask(owner, set_acl("/a", invalid, -1)), Err(ErrorCode::InvalidAcl));
    }
    let seen = |ensemble: &mut Ensemble, id| match ensemble.ask(id, Request::GetAcl("/a".into())) {
        Ok(Response::AclStat(acl, _)) => acl,
        other => panic!("{other:?}"),
    };
    assert_eq!(seen(&mut ensemble, owner), list);
    let masked = vec![acl(31, "digest", "owner:x"), list[1].clone()];
    assert_eq!(seen(&mut ensemble, stranger), masked);
}

#[test]
fn super_user_stands_above_all_lists() {
    let (mut ensemble, _, owner, stranger) = two(1);
    ensemble.ask(owner, create_with("/p", vec![acl(31, "auth", "")])).unwrap();
    ensemble.ask(stranger, auth("digest", "super:wrong")).unwrap();
    assert_eq!(ensemble.ask(stranger, get_data("/p", false)), Err(ErrorCode::NoAuth));
    ensemble.ask(stranger, auth("digest", "super:test")).unwrap();
    assert!(ensemble.ask(stranger, get_data("/p", false)).is_ok());
    assert!(ensemble.ask(stranger, set_acl("/p", Acl::open(), -1)).is_ok());
}

#[test]
fn who_am_i_tells_users_and_bad_credentials_end_the_connection() {
    let (mut ensemble, _, owner, stranger) = two(1);
    let info = |scheme: &str, user: &str| ClientInfo { scheme: scheme.into(), user: user.into() };
    let expected = vec![info("ip", Ensemble::ADDRESS), info("digest", "owner")];
    ensemble.ask(owner, auth("digest", OWNER)).unwrap();
    assert_eq!(ensemble.ask(owner, Request::WhoAmI), Ok(Response::ClientInfos(expected)));
    assert_eq!(ensemble.ask(stranger, auth("kerberos", "x")), Err(ErrorCode::AuthFailed));
    assert!(ensemble.clients[&stranger].is_closed());
}

#[test]
fn address_is_an_identity() {
    let (mut ensemble, _, owner, _) = two(1);
    ensemble.ask(owner, create_with("/near", vec![acl(31, "ip", "10.1.0.0/16")])).unwrap();
    ensemble.ask(owner, create_with("/far", vec![acl(31, "ip", "10.2.0.0/16")])).unwrap();
    assert!(ensemble.ask(owner, get_data("/near", false)).is_ok());
    assert_eq!(ensemble.ask(owner, get_data("/far", false)), Err(ErrorCode::NoAuth));
}

#[test]
fn multi_and_multi_read_obey_the_lists() {
    let (mut ensemble, _, owner, stranger) = two(1);
    ensemble.ask(owner, create_with("/p", vec![acl(31, "auth", "")])).unwrap();
    let ops = vec![
        MultiOp::create("/q", None, coordinator_protocol::CreateMode::Persistent),
        MultiOp::set_data("/p", None, None),
    ];
    let codes = [ErrorCode::Ok, ErrorCode::NoAuth].map(MultiResult::Error).to_vec();
    assert_eq!(ensemble.ask(stranger, Request::Multi(ops)), Ok(Response::Multi(codes)));
    assert_eq!(ensemble.ask(stranger, exists("/q", false)), Err(ErrorCode::NoNode));
    let read = MultiReadOp::GetData(PathWatch { path: "/p".into(), watch: false });
    let expected = vec![MultiReadResult::Error(ErrorCode::NoAuth)];
    let got = ensemble.ask(stranger, Request::MultiRead(vec![read]));
    assert_eq!(got, Ok(Response::MultiRead(expected)));
}

#[test]
fn who_could_read_a_node_hears_of_its_end_whatever_takes_its_place() {
    let (mut ensemble, _, owner, stranger) = two(3);
    for path in ["/s", "/s/x", "/s/x/y"] {
        ensemble.ask(owner, create(path, 0)).unwrap();
    }
    ensemble.ask(stranger, get_data("/s/x/y", true)).unwrap();
    let children = PathWatch { path: "/s/x".into(), watch: true };
    ensemble.ask(stranger, Request::GetChildren(children)).unwrap();
    let before = ensemble.clients[&stranger].got.len();
    let own = vec![acl(Permissions::ALL, "auth", "")];
    let created = |path: &str| {
        MultiOp::Create(CreateRequest { path: path.into(), data: None, acl: own.clone(), flags: 0 })
    };
    let ops = vec![
        MultiOp::delete("/s/x/y", None),
        MultiOp::delete("/s/x", None),
        created("/s/x"),
        created("/s/x/y"),
    ];
    ensemble.ask(owner, Request::Multi(ops)).unwrap();
    ensemble.run_ms(20);
    let got = ensemble.clients[&stranger].got[before..].iter();
    let heard: Vec<(EventType, String)> = got
        .filter_map(|got| match got {
            Got::Notified(_, told) => Some((told.event, told.path.clone())),
            _ => None,
        })
        .collect();
    let told = |event, path: &str| (event, path.to_owned());
    let expected =
        [told(EventType::NodeDeleted, "/s/x/y"), told(EventType::NodeChildrenChanged, "/s/x")];
    assert_eq!(heard, expected);
}

#[test]
fn nobody_hears_of_what_they_may_not_read() {
    let (mut ensemble, _, owner, stranger) = two(3);
    ensemble.ask(owner, create("/s", 0)).unwrap();
    for id in [owner, stranger] {
        let (path, mode) = ("/s".into(), AddWatchMode::PersistentRecursive);
        ensemble.ask(id, Request::AddWatch(AddWatchRequest { path, mode })).unwrap();
        let subscribe =
            SubscribeRequest { subscription: 1, path: "/s".into(), from_zxid: Zxid::ZERO };
        ensemble.ask(id, Request::Subscribe(subscribe)).unwrap();
    }
    let before = ensemble.clients[&stranger].got.len();
    let own = ensemble.clients[&owner].got.len();
    ensemble.ask(owner, create_with("/s/hidden", vec![acl(31, "auth", "")])).unwrap();
    ensemble.ask(owner, set_data("/s/hidden", "x")).unwrap();
    ensemble.ask(owner, delete("/s/hidden")).unwrap();
    ensemble.run_ms(20);
    let heard = |ensemble: &Ensemble, id: ConnectionId, from: usize| {
        let got = ensemble.clients[&id].got[from..].iter();
        let told = got.filter(|got| match got {
            Got::Notified(_, event) => event.path == "/s/hidden",
            Got::Told(event) => !event.items.is_empty(),
            _ => false,
        });
        told.count()
    };
    assert_eq!(heard(&ensemble, stranger, before), 0, "{:?}", ensemble.clients[&stranger].got);
    assert_eq!(heard(&ensemble, owner, own), 6, "{:?}", ensemble.clients[&owner].got);
}
