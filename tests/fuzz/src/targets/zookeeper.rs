//! ZooKeeper's wire, both directions, and our operations beside it.

use bytes::{Bytes, BytesMut};
use coordinator_protocol::{
    ConnectRequest, ConnectResponse, FourLetterWord, OpCode, Reader, Record, ReplyHeader, Response,
    SubscriptionEvent, WatcherEvent, decode_request, decode_request_frame, encode_event,
    encode_reply, encode_request, encode_subscription_event,
};

use crate::budget::{Budget, within};
use crate::seeds::{exchanges, framed};
use crate::target::Target;

/// An empty name is 4 bytes on the wire and 24 in memory, in a list that doubles as it grows.
const BUDGET: Budget = Budget { fixed: 8 << 10, per_byte: 48 };
/// Of a frame on the wire.
const PREFIX_BYTES: usize = 4;

pub const TARGETS: [Target; 7] = [
    Target {
        name: "zookeeper-stream",
        what: "what a client sends, from its first byte on",
        run: stream,
        seeds: streams,
    },
    Target {
        name: "zookeeper-connect-request",
        what: "a client's handshake",
        run: connect_request,
        seeds: || requests_of("connect"),
    },
    Target {
        name: "zookeeper-connect-response",
        what: "the answer to it",
        run: connect_response,
        seeds: || responses_of("connect"),
    },
    Target {
        name: "zookeeper-request",
        what: "a request of any operation",
        run: request,
        seeds: || requests_of(""),
    },
    Target {
        name: "zookeeper-reply",
        what: "the answer to the operation that the first four bytes name",
        run: reply,
        seeds: replies,
    },
    Target {
        name: "zookeeper-event",
        what: "a watch's notification",
        run: event,
        seeds: || responses_of("event"),
    },
    Target {
        name: "zookeeper-subscription",
        what: "an event of a subscription",
        run: subscription,
        seeds: subscriptions,
    },
];

fn requests_of(kind: &str) -> Vec<Vec<u8>> {
    let found = exchanges().into_iter().filter(|exchange| exchange.kind == kind);
    found.map(|exchange| exchange.request).collect()
}

fn responses_of(kind: &str) -> Vec<Vec<u8>> {
    let found = exchanges().into_iter().filter(|exchange| exchange.kind == kind);
    found.map(|exchange| exchange.response).collect()
}

/// Handshakes with some requests behind them, and the words that stand for one.
fn streams() -> Vec<Vec<u8>> {
    let requests = requests_of("");
    let hello = framed(&requests_of("connect").concat());
    let talks = requests.chunks(8).map(|some| {
        let frames: Vec<Vec<u8>> = some.iter().map(|request| framed(request)).collect();
        [hello.clone(), frames.concat()].concat()
    });
    let words = FourLetterWord::ALL.iter().map(|word| word.name().as_bytes().to_vec());
    talks.chain(words).collect()
}

/// All frames at once are the same as the bytes one after the other.
fn stream(input: &[u8]) -> bool {
    let word = input.first_chunk().and_then(|first| FourLetterWord::from_bytes(*first));
    let mut at_once = BytesMut::from(input);
    let mut frames = Vec::new();
    let end = loop {
        let left = at_once.len();
        match decode_request_frame(&mut at_once) {
            Ok(Some(frame)) => {
                assert_eq!(frame.len() + PREFIX_BYTES + at_once.len(), left);
                let _ = decode_request(frame.clone());
                frames.push(frame);
            }
            other => break other,
        }
    };
    assert!(word.is_none() || frames.is_empty(), "{word:?} begins a frame");
    let mut bit_by_bit = BytesMut::new();
    let mut again = Vec::new();
    let mut last = Ok(None);
    for byte in input {
        bit_by_bit.extend_from_slice(&[*byte]);
        last = decode_request_frame(&mut bit_by_bit);
        match &last {
            Ok(Some(frame)) => again.push(frame.clone()),
            Ok(None) => {}
            Err(_) => break,
        }
    }
    assert_eq!(frames, again);
    assert_eq!(end.is_err(), last.is_err(), "{end:?} and {last:?}");
    !frames.is_empty()
}

fn connect_request(input: &[u8]) -> bool {
    let frame = Bytes::copy_from_slice(input);
    let decode = || ConnectRequest::decode_frame(frame);
    let Ok(request) = within(input.len(), BUDGET, decode) else { return false };
    let again = request.encode_frame().slice(PREFIX_BYTES..);
    assert_eq!(ConnectRequest::decode_frame(again), Ok(request));
    true
}

fn connect_response(input: &[u8]) -> bool {
    let frame = Bytes::copy_from_slice(input);
    let decode = || ConnectResponse::decode_frame(frame);
    let Ok(response) = within(input.len(), BUDGET, decode) else { return false };
    let again = response.encode_frame().slice(PREFIX_BYTES..);
    assert_eq!(ConnectResponse::decode_frame(again), Ok(response));
    true
}

fn request(input: &[u8]) -> bool {
    let frame = Bytes::copy_from_slice(input);
    let decoded = within(input.len(), BUDGET, || decode_request(frame));
    let Ok((header, Ok(request))) = decoded else { return false };
    let again = encode_request(header.xid, &request).slice(PREFIX_BYTES..);
    let decoded = decode_request(again).expect("its own header");
    assert_eq!(decoded.0.xid, header.xid);
    assert_eq!(decoded.1.as_ref(), Ok(&request), "operation {:?}", header.op);
    true
}

fn replies() -> Vec<Vec<u8>> {
    let with_op = exchanges().into_iter().filter_map(|exchange| {
        let op = exchange.op?.to_be_bytes();
        Some([&op[..], &exchange.response].concat())
    });
    with_op.collect()
}

fn reply(input: &[u8]) -> bool {
    let Some((op, frame)) = input.split_first_chunk() else { return false };
    let op = OpCode::from_code(i32::from_be_bytes(*op));
    let decode = |frame: Bytes| {
        let mut reader = Reader::new(frame);
        let header = ReplyHeader::decode(&mut reader).ok()?;
        let body =
            if header.error.is_ok() { Some(Response::decode(op, &mut reader).ok()?) } else { None };
        Some((header, body))
    };
    let copy = Bytes::copy_from_slice(frame);
    let Some((header, body)) = within(frame.len(), BUDGET, || decode(copy)) else { return false };
    let outcome = body.as_ref().ok_or(header.error);
    let again = encode_reply(header.xid, header.zxid, outcome).slice(PREFIX_BYTES..);
    assert_eq!(decode(again), Some((header, body)));
    true
}

fn event(input: &[u8]) -> bool {
    let decode = |frame: Bytes| {
        let mut reader = Reader::new(frame);
        let header = ReplyHeader::decode(&mut reader).ok()?;
        Some((header.zxid, WatcherEvent::decode(&mut reader).ok()?))
    };
    let copy = Bytes::copy_from_slice(input);
    let Some((zxid, event)) = within(input.len(), BUDGET, || decode(copy)) else { return false };
    let again = encode_event(zxid, &event).slice(PREFIX_BYTES..);
    assert_eq!(decode(again), Some((zxid, event)));
    true
}

fn subscriptions() -> Vec<Vec<u8>> {
    // Nobody but ours sends them: a Stat of zeros is as good as any.
    let mut items = vec![0, 0, 0, 2];
    for (kind, path) in [(0_i32, "/a"), (3, "/a/b")] {
        items.extend(kind.to_be_bytes());
        items.extend(framed(path.as_bytes()));
        items.extend(framed(b"data"));
        items.extend([0; 68]);
    }
    let event = |kind: i32, items: &[u8]| {
        let header = [&(-9_i32).to_be_bytes()[..], &7_i64.to_be_bytes(), &[0; 4]].concat();
        let head = [&[0, 0, 0, 5][..], &kind.to_be_bytes(), &7_i64.to_be_bytes()].concat();
        [header, head, items.to_vec()].concat()
    };
    vec![event(4, &[0; 4]), event(1, &items), event(3, &items)]
}

fn subscription(input: &[u8]) -> bool {
    let decode = |frame: Bytes| {
        let mut reader = Reader::new(frame);
        ReplyHeader::decode(&mut reader).ok()?;
        SubscriptionEvent::decode(&mut reader).ok()
    };
    let copy = Bytes::copy_from_slice(input);
    let Some(event) = within(input.len(), BUDGET, || decode(copy)) else { return false };
    let again = encode_subscription_event(&event).slice(PREFIX_BYTES..);
    assert_eq!(decode(again), Some(event));
    true
}
