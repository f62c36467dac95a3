//! One member alone: the paths of a request.

use bytes::Bytes;
use coordinator_protocol::{
    DecodeError, ErrorCode, EventType, MultiReadOp, MultiReadResult, OpCode, PathWatch, Request,
    RequestHeader, Response, SetDataRequest, WatcherEvent, Xid,
};

use super::ensemble::{Ensemble, Got, connect_request, member};
use super::{create, delete, exists, get_data, set_data};
use crate::server::{Event, MULTI_READ_BYTES_MAX};

fn data_of(answer: Result<Response, ErrorCode>) -> Bytes {
    match answer {
        Ok(Response::DataStat(data, _)) => data.unwrap(),
        other => panic!("no data: {other:?}"),
    }
}

#[test]
fn single_member_elects_itself_at_once_and_answers() {
    let mut ensemble = Ensemble::new(1);
    let begun = ensemble.now;
    ensemble.await_leader();
    assert!(ensemble.now.since(begun) < 20, "{}", ensemble.now);
    let id = ensemble.connect(member(1), 10_000);
    assert_eq!(ensemble.ask(id, create("/a", 0)), Ok(Response::Path("/a".into())));
    assert_eq!(ensemble.ask(id, create("/a", 0)), Err(ErrorCode::NodeExists));
    assert_eq!(data_of(ensemble.ask(id, get_data("/a", false))), "data");
    assert_eq!(ensemble.ask(id, delete("/a")), Ok(Response::Empty));
    assert_eq!(ensemble.ask(id, get_data("/a", false)), Err(ErrorCode::NoNode));
    assert_eq!(ensemble.ask(id, Request::Ping), Ok(Response::Empty));
}

#[test]
fn session_answer_has_id_password_and_clamped_timeout() {
    let mut ensemble = Ensemble::new(1);
    let id = ensemble.connect(member(1), 1);
    let response = ensemble.clients[&id].response().clone();
    assert_eq!(response.timeout_ms, 4_000);
    assert_eq!(response.session.get() >> 56, 1);
    assert_eq!(response.password.as_bytes().len(), 16);
    assert_eq!(response.read_only, Some(false));
    let other = ensemble.connect(member(1), 1_000_000);
    let other = ensemble.clients[&other].response().clone();
    assert_eq!(other.timeout_ms, 40_000);
    assert_ne!(other.session, response.session);
    assert_ne!(other.password, response.password);
}

#[test]
fn pipelined_reads_see_exactly_the_writes_before_them() {
    let mut ensemble = Ensemble::new(1);
    let id = ensemble.connect(member(1), 10_000);
    ensemble.ask(id, create("/a", 0)).unwrap();
    let mut xids = Vec::new();
    for value in ["1", "2", "3"] {
        ensemble.send(id, set_data("/a", value));
        xids.push((ensemble.send(id, get_data("/a", false)), value));
    }
    ensemble.run_ms(50);
    for (xid, value) in xids {
        assert_eq!(data_of(ensemble.clients[&id].reply(xid).unwrap()), value);
    }
    let order: Vec<i32> = ensemble.clients[&id]
        .got
        .iter()
        .filter_map(|got| match got {
            Got::Reply(xid, _, _) => Some(xid.get()),
            _ => None,
        })
        .collect();
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn sync_between_writes_keeps_their_order() {
    let mut ensemble = Ensemble::new(1);
    let id = ensemble.connect(member(1), 10_000);
    ensemble.ask(id, create("/a", 0)).unwrap();
    ensemble.send(id, set_data("/a", "1"));
    let sync = ensemble.send(id, Request::Sync("/a".into()));
    let before = ensemble.send(id, get_data("/a", false));
    ensemble.send(id, set_data("/a", "2"));
    let after = ensemble.send(id, get_data("/a", false));
    ensemble.run_ms(100);
    let client = &ensemble.clients[&id];
    assert_eq!(client.reply(sync), Some(Ok(Response::Path("/a".into()))));
    assert_eq!(data_of(client.reply(before).unwrap()), "1");
    assert_eq!(data_of(client.reply(after).unwrap()), "2");
}

#[test]
fn notification_leaves_before_the_reply_that_reveals_the_change() {
    let mut ensemble = Ensemble::new(1);
    let id = ensemble.connect(member(1), 10_000);
    assert_eq!(ensemble.ask(id, exists("/a", true)), Err(ErrorCode::NoNode));
    ensemble.ask(id, create("/a", 0)).unwrap();
    let got = &ensemble.clients[&id].got;
    let told = got.iter().position(|got| {
        matches!(got, Got::Notified(_, event)
            if *event == WatcherEvent::new(EventType::NodeCreated, "/a"))
    });
    assert_eq!(told, Some(got.len() - 2));
    assert!(matches!(got.last(), Some(Got::Reply(_, _, Ok(Response::Path(_))))));
}

#[test]
fn multi_read_answers_until_it_is_large_and_refuses_the_rest() {
    let mut ensemble = Ensemble::new(1);
    let id = ensemble.connect(member(1), 10_000);
    ensemble.ask(id, create("/a", 0)).unwrap();
    let data = Some(Bytes::from(vec![7; 1 << 19]));
    let set = SetDataRequest { path: "/a".into(), data: data.clone(), version: -1 };
    ensemble.ask(id, Request::SetData(set)).unwrap();
    let read = || MultiReadOp::GetData(PathWatch { path: "/a".into(), watch: false });
    let fit = MULTI_READ_BYTES_MAX >> 19;
    let mut answers = |count: usize| {
        let request = Request::MultiRead((0..count).map(|_| read()).collect());
        match ensemble.ask(id, request) {
            Ok(Response::MultiRead(results)) => results,
            other => panic!("{other:?}"),
        }
    };
    let whole = |result: &MultiReadResult| match result {
        MultiReadResult::GetData(got, _) => *got == data,
        _ => false,
    };
    assert!(answers(fit).iter().all(whole));
    let results = answers(fit + 2);
    assert!(results[..fit].iter().all(whole));
    let refused = MultiReadResult::Error(ErrorCode::ThrottledOp);
    assert_eq!(results[fit..], [refused.clone(), refused]);
}

#[test]
fn unknown_and_malformed_requests_keep_the_session() {
    let mut ensemble = Ensemble::new(1);
    let id = ensemble.connect(member(1), 10_000);
    assert_eq!(ensemble.ask(id, Request::Unknown(4_711)), Err(ErrorCode::Unimplemented));
    let xid = Xid::new(77);
    let header = RequestHeader { xid, op: OpCode::Create };
    let request = Err(DecodeError::InvalidValue { what: "a test", value: 1 });
    ensemble.clients.get_mut(&id).unwrap().expect(xid, OpCode::Create);
    ensemble.step(member(1), Event::Request { connection: id, header, request });
    assert_eq!(ensemble.clients[&id].reply(xid), Some(Err(ErrorCode::MarshallingError)));
    assert_eq!(ensemble.ask(id, Request::Ping), Ok(Response::Empty));
}

#[test]
fn close_session_is_answered_then_closed_and_takes_its_ephemerals() {
    let mut ensemble = Ensemble::new(1);
    let id = ensemble.connect(member(1), 10_000);
    let watcher = ensemble.connect(member(1), 10_000);
    ensemble.ask(id, create("/e", 1)).unwrap();
    ensemble.ask(watcher, exists("/e", true)).unwrap();
    assert_eq!(ensemble.ask(id, Request::CloseSession), Ok(Response::Empty));
    assert_eq!(ensemble.clients[&id].got.last(), Some(&Got::Closed));
    ensemble.run_ms(20);
    let told = WatcherEvent::new(EventType::NodeDeleted, "/e");
    assert!(matches!(
        ensemble.clients[&watcher].got.last(),
        Some(Got::Notified(_, event)) if *event == told
    ));
}

#[test]
fn client_that_saw_more_than_this_server_waits_and_is_let_go() {
    let mut ensemble = Ensemble::new(1);
    ensemble.await_leader();
    let mut request = connect_request(10_000);
    request.last_zxid_seen = coordinator_protocol::Zxid::from_parts(9, 9);
    let id = ensemble.dial(member(1), request);
    ensemble.run_ms(4_900);
    assert!(ensemble.clients[&id].got.is_empty());
    ensemble.run_ms(300);
    assert_eq!(ensemble.clients[&id].got, vec![Got::Closed]);
}
