//! Subscribers: what they hear comes before the replies that could reveal it.

use bytes::Bytes;
use coordinator_protocol::{
    Acl, CreateRequest, Request, Response, SubscribeRequest, SubscriptionEventKind as Kind, Zxid,
};

use super::ensemble::{Ensemble, Got, member};
use super::{create, get_data, set_data};
use crate::ConnectionId;
use crate::server::{Event, SUBSCRIPTION_BYTES_PER_STEP};

fn subscribe(ensemble: &mut Ensemble, id: ConnectionId, subscription: i32, path: &str) {
    let request = SubscribeRequest { subscription, path: path.into(), from_zxid: Zxid::ZERO };
    assert_eq!(ensemble.ask(id, Request::Subscribe(request)), Ok(Response::Empty));
}

/// The subscription of each event and the kinds, with `reply` between them.
fn heard(ensemble: &Ensemble, id: ConnectionId, from: usize) -> Vec<String> {
    let got = ensemble.clients[&id].got[from..].iter().map(|got| match got {
        Got::Told(event) => format!("{} {:?}", event.subscription, event.kind),
        Got::Reply(..) => "reply".to_owned(),
        other => panic!("{other:?}"),
    });
    got.collect()
}

#[test]
fn replies_wait_while_a_connection_has_no_room_for_its_events() {
    let mut ensemble = Ensemble::new(1);
    ensemble.await_leader();
    let id = ensemble.connect(member(1), 30_000);
    ensemble.ask(id, create("/s", 0)).unwrap();
    subscribe(&mut ensemble, id, 5, "/s");
    ensemble.run_ms(200);
    let before = ensemble.clients[&id].got.len();
    ensemble.step(member(1), Event::Backlogged { connection: id, backlogged: true });
    ensemble.send(id, set_data("/s", "x"));
    ensemble.send(id, Request::Ping);
    ensemble.send(id, get_data("/s", false));
    let writer = ensemble.connect(member(1), 30_000);
    ensemble.ask(writer, set_data("/s", "y")).unwrap();
    ensemble.run_ms(1_000);
    assert_eq!(heard(&ensemble, id, before), [""; 0]);
    ensemble.step(member(1), Event::Backlogged { connection: id, backlogged: false });
    let rest = ["5 Changes", "5 Changes", "reply", "reply", "reply"];
    assert_eq!(heard(&ensemble, id, before), rest);
    let answer = ensemble.clients[&id].got.last();
    let read = |data: &'static [u8]| {
        matches!(answer, Some(Got::Reply(_, _, Ok(Response::DataStat(found, _))))
            if found.as_deref() == Some(data))
    };
    assert!(read(b"y"), "the read runs when its turn comes: {answer:?}");
}

/// What the reads of `/s` were answered, in order.
fn read(ensemble: &Ensemble, id: ConnectionId, from: usize) -> Vec<String> {
    let data = ensemble.clients[&id].got[from..].iter().filter_map(|got| match got {
        Got::Reply(_, _, Ok(Response::DataStat(data, _))) => {
            Some(String::from_utf8(data.clone().unwrap().to_vec()).unwrap())
        }
        _ => None,
    });
    data.collect()
}

#[test]
fn read_that_waits_for_room_does_not_see_the_write_behind_it() {
    let mut ensemble = Ensemble::new(1);
    ensemble.await_leader();
    let id = ensemble.connect(member(1), 30_000);
    ensemble.ask(id, create("/s", 0)).unwrap();
    ensemble.ask(id, set_data("/s", "0")).unwrap();
    subscribe(&mut ensemble, id, 5, "/s");
    ensemble.run_ms(200);
    let before = ensemble.clients[&id].got.len();
    // On their way when the room ends: the reads between them are answered in time...
    ensemble.send(id, set_data("/s", "1"));
    ensemble.send(id, get_data("/s", true));
    ensemble.send(id, set_data("/s", "2"));
    ensemble.send(id, get_data("/s", false));
    ensemble.step(member(1), Event::Backlogged { connection: id, backlogged: true });
    ensemble.run_ms(100);
    // ...and what comes later waits with the reads before it.
    ensemble.send(id, set_data("/s", "3"));
    ensemble.send(id, get_data("/s", false));
    ensemble.send(id, set_data("/s", "4"));
    ensemble.run_ms(100);
    assert_eq!(ensemble.clients[&id].got.len(), before, "no room");
    ensemble.step(member(1), Event::Backlogged { connection: id, backlogged: false });
    ensemble.run_ms(100);
    assert_eq!(read(&ensemble, id, before), ["1", "2", "3"]);
    let got = &ensemble.clients[&id].got[before..];
    let first = |which: fn(&Got) -> bool| got.iter().position(which).unwrap();
    let answered = first(|got| matches!(got, Got::Reply(_, _, Ok(Response::DataStat(..)))));
    assert!(answered < first(|got| matches!(got, Got::Notified(..))), "its watch fired before it");
}

#[test]
fn long_snapshot_neither_delays_a_live_subscription_nor_fills_a_step() {
    let mut ensemble = Ensemble::new(1);
    ensemble.await_leader();
    let id = ensemble.connect(member(1), 30_000);
    ensemble.ask(id, create("/big", 0)).unwrap();
    ensemble.ask(id, create("/live", 0)).unwrap();
    let data = Bytes::from(vec![b'x'; 200_000]);
    for number in 0..40 {
        let path = format!("/big/{number}");
        let data = Some(data.clone());
        let request = CreateRequest { path, data, acl: Acl::open(), flags: 0 };
        ensemble.ask(id, Request::Create(request)).unwrap();
    }
    subscribe(&mut ensemble, id, 9, "/live");
    ensemble.run_ms(200);
    let before = ensemble.clients[&id].got.len();
    let whole = SubscribeRequest { subscription: 1, path: "/big".into(), from_zxid: Zxid::ZERO };
    ensemble.send(id, Request::Subscribe(whole));
    let first = heard(&ensemble, id, before);
    assert_eq!(first[..2], ["reply", "1 SnapshotBegin"]);
    assert!(first.len() <= 3 + SUBSCRIPTION_BYTES_PER_STEP / 200_000, "{first:?}");
    ensemble.step(member(1), Event::Backlogged { connection: id, backlogged: true });
    let half = ensemble.clients[&id].got.len();
    for _ in 0..3 {
        ensemble.send(id, set_data("/live", "x"));
    }
    ensemble.run_ms(100);
    assert_eq!(ensemble.clients[&id].got.len(), half, "no room");
    ensemble.step(member(1), Event::Backlogged { connection: id, backlogged: false });
    let then = heard(&ensemble, id, half);
    let first = ["9 Changes", "9 Changes", "9 Changes", "reply", "reply", "reply"];
    assert_eq!(then[..6], first);
    assert_eq!(then[6], "1 SnapshotChunk");
    assert!(then.len() <= 7 + SUBSCRIPTION_BYTES_PER_STEP / 200_000, "{then:?}");
    ensemble.ask(id, set_data("/live", "x")).unwrap();
    ensemble.run_ms(1_000);
    let rest = heard(&ensemble, id, half + then.len());
    let end = rest.iter().position(|heard| *heard == format!("1 {:?}", Kind::SnapshotEnd));
    assert!(end.is_some(), "{rest:?}");
    let of_live: Vec<&String> = rest.iter().filter(|heard| !heard.starts_with('1')).collect();
    assert_eq!(of_live, ["9 Changes", "reply"]);
}
