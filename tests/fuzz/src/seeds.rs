//! Bytes that real programs exchanged, as the crates' own tests have them.
//!
//! Called by: targets. Calls: nothing.

use std::collections::BTreeMap;

use serde_json::Value;

const ZOOKEEPER: &str = include_str!("../../../coordinator/protocol/tests/golden/zookeeper.jsonl");
const KAFKA: &str = include_str!("../../../client/protocol/tests/golden/kafka.jsonl");

/// One exchange of a client with ZooKeeper.
pub struct Exchange {
    /// The operation; none of a handshake or a notification.
    pub op: Option<i32>,
    /// `connect`, `event`, or empty.
    pub kind: String,
    /// The request's frame, without its length.
    pub request: Vec<u8>,
    /// The answer's.
    pub response: Vec<u8>,
}

/// All that were recorded.
pub fn exchanges() -> Vec<Exchange> {
    let parse = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("recorded as JSON");
        let op = value["op"].as_i64().and_then(|op| i32::try_from(op).ok());
        let kind = value["op"].as_str().unwrap_or_default().to_owned();
        let frame = |name: &str| unhex(value[name].as_str().expect("a frame"));
        Exchange { op, kind, request: frame("request"), response: frame("response") }
    };
    ZOOKEEPER.lines().map(parse).collect()
}

/// A frame with its length before it.
pub fn framed(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("recorded frames are short");
    [&length.to_be_bytes()[..], content].concat()
}

pub fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(digit).collect()
}

/// Api key, version and frame of each request, or each response, that real clients and Kafka's broker exchanged; one for each key
/// and version, the shortest.
pub fn kafka_frames(requests: bool) -> Vec<(i16, i16, Vec<u8>)> {
    let mut shortest: BTreeMap<(i16, i16), Vec<u8>> = BTreeMap::new();
    for line in KAFKA.lines() {
        let value: Value = serde_json::from_str(line).expect("recorded as JSON");
        let number = |name: &str| value[name].as_i64().and_then(|n| i16::try_from(n).ok());
        let (Some(key), Some(version)) = (number("api_key"), number("api_version")) else {
            continue;
        };
        let side = if requests { "request" } else { "response" };
        let frame = unhex(value[side].as_str().expect("a frame"));
        let known = shortest.entry((key, version)).or_insert_with(|| frame.clone());
        if frame.len() < known.len() {
            *known = frame;
        }
    }
    shortest.into_iter().map(|((key, version), frame)| (key, version, frame)).collect()
}
