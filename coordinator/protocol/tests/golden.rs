//! Recorded exchanges between real clients and a real ZooKeeper: decoded and encoded again they are
//! the same bytes, and broken in every way that one byte or one cut can break them they never panic.

use bytes::Bytes;
use coordinator_protocol::{
    ConnectRequest, ConnectResponse, ErrorCode, OpCode, Reader, Record, ReplyHeader, Request,
    Response, WatcherEvent, Xid, decode_request, encode_event, encode_reply, encode_request,
};
use serde_json::Value;

const EXCHANGES: &str = include_str!("golden/zookeeper.jsonl");

/// The operation, the request's and the answer's frame content.
struct Exchange {
    op: Value,
    error: Option<i64>,
    request: Bytes,
    response: Bytes,
}

fn exchanges() -> Vec<Exchange> {
    EXCHANGES.lines().map(parse).collect()
}

fn parse(line: &str) -> Exchange {
    let value: Value = serde_json::from_str(line).unwrap();
    Exchange {
        op: value["op"].clone(),
        error: value["err"].as_i64(),
        request: unhex(value["request"].as_str().unwrap()),
        response: unhex(value["response"].as_str().unwrap()),
    }
}

fn unhex(text: &str) -> Bytes {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// Reads an answer as a client does that asked for `op`.
fn decode_answer(op: OpCode, frame: Bytes) -> Option<(ReplyHeader, Option<Response>)> {
    let mut reader = Reader::new(frame);
    let header = ReplyHeader::decode(&mut reader).ok()?;
    if !header.error.is_ok() {
        return Some((header, None));
    }
    let response = Response::decode(op, &mut reader).ok()?;
    (reader.left() == 0).then_some((header, Some(response)))
}

fn decode_event(frame: Bytes) -> Option<(ReplyHeader, WatcherEvent)> {
    let mut reader = Reader::new(frame);
    let header = ReplyHeader::decode(&mut reader).ok()?;
    let event = WatcherEvent::decode(&mut reader).ok()?;
    Some((header, event))
}

#[test]
fn recorded_requests_encode_to_the_same_bytes() {
    let mut seen = 0;
    for exchange in exchanges().iter().filter(|exchange| exchange.op.is_i64()) {
        let (header, request) = decode_request(exchange.request.clone()).unwrap();
        let request = request.unwrap();
        assert_eq!(i64::from(header.op.code()), exchange.op.as_i64().unwrap());
        assert!(!matches!(request, Request::Unknown(_)), "{request:?}");
        assert_eq!(encode_request(header.xid, &request)[4..], exchange.request, "{request:?}");
        if let Some(xid) = request.special_xid() {
            assert_eq!(header.xid, xid);
        }
        seen += 1;
    }
    assert_eq!(seen, 176);
}

#[test]
fn recorded_answers_encode_to_the_same_bytes() {
    for exchange in exchanges().iter().filter(|exchange| exchange.op.is_i64()) {
        let op = OpCode::from_code(i32::try_from(exchange.op.as_i64().unwrap()).unwrap());
        let (header, response) = decode_answer(op, exchange.response.clone()).unwrap();
        assert_eq!(i64::from(header.error.code()), exchange.error.unwrap());
        let outcome = response.as_ref().ok_or(header.error);
        let frame = encode_reply(header.xid, header.zxid, outcome);
        assert_eq!(frame[4..], exchange.response, "{op:?} {response:?}");
    }
}

#[test]
fn recorded_events_encode_to_the_same_bytes() {
    let events: Vec<_> =
        exchanges().into_iter().filter(|exchange| exchange.op == "event").collect();
    assert_eq!(events.len(), 22);
    for exchange in events {
        let (header, event) = decode_event(exchange.response.clone()).unwrap();
        assert_eq!((header.xid, header.error), (Xid::NOTIFICATION, ErrorCode::Ok));
        assert_eq!(encode_event(header.zxid, &event)[4..], exchange.response);
    }
}

#[test]
fn recorded_handshakes_encode_to_the_same_bytes() {
    let handshakes: Vec<_> =
        exchanges().into_iter().filter(|exchange| exchange.op == "connect").collect();
    assert_eq!(handshakes.len(), 3);
    for exchange in handshakes {
        let request = ConnectRequest::decode_frame(exchange.request.clone()).unwrap();
        assert_eq!(request.encode_frame()[4..], exchange.request);
        let response = ConnectResponse::decode_frame(exchange.response.clone()).unwrap();
        assert_eq!(response.encode_frame()[4..], exchange.response);
        assert_eq!(response.timeout_ms, request.timeout_ms);
    }
}

/// Feeds bytes to every decoder that could ever meet them; what comes out does not matter.
fn decode_somehow(op: OpCode, frame: &Bytes) {
    let _ = ConnectRequest::decode_frame(frame.clone());
    let _ = ConnectResponse::decode_frame(frame.clone());
    let _ = decode_request(frame.clone());
    let _ = decode_answer(op, frame.clone());
    let _ = decode_event(frame.clone());
}

#[test]
fn no_cut_and_no_changed_byte_panics() {
    for exchange in exchanges() {
        let op = OpCode::from_code(exchange.op.as_i64().map_or(0, |op| i32::try_from(op).unwrap()));
        for frame in [&exchange.request, &exchange.response] {
            for length in 0..frame.len() {
                decode_somehow(op, &frame.slice(..length));
            }
            for position in 0..frame.len() {
                for value in [0, 1, 0x7f, 0x80, 0xff, frame[position].wrapping_add(1)] {
                    let mut changed = frame.to_vec();
                    changed[position] = value;
                    decode_somehow(op, &Bytes::from(changed));
                }
            }
        }
    }
}

#[test]
fn a_request_cut_short_is_an_error_of_its_body() {
    for exchange in exchanges().iter().filter(|exchange| exchange.op.is_i64()) {
        for length in 0..exchange.request.len() {
            let decoded = decode_request(exchange.request.slice(..length));
            assert_eq!(decoded.is_err(), length < 8);
            if let Ok((_, body)) = decoded {
                assert!(body.is_err(), "{body:?} at {length} of {}", exchange.request.len());
            }
        }
    }
}
