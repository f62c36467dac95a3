//! Real frames of real clients and of Kafka's broker: decoded, encoded again, compared byte by byte.

use bytes::Bytes;

use super::{Tested, Visit, visit_all};
use crate::frame::LENGTH_BYTES;
use crate::*;

const EXCHANGES: &str = include_str!("../../../tests/golden/kafka.jsonl");

/// One recorded frame.
pub(super) struct Recorded {
    pub(super) key: ApiKey,
    pub(super) version: i16,
    pub(super) is_request: bool,
    pub(super) frame: Vec<u8>,
    pub(super) client: String,
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// Both frames of each exchange.
pub(super) fn recorded() -> Vec<Recorded> {
    let frames = EXCHANGES.lines().flat_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let number = |name: &str| i16::try_from(line[name].as_i64().unwrap()).unwrap();
        [("request", true), ("response", false)].map(|(side, is_request)| Recorded {
            key: ApiKey::from_code(number("api_key")).unwrap(),
            version: number("api_version"),
            is_request,
            frame: unhex(line[side].as_str().unwrap()),
            client: line["client"].as_str().unwrap().to_owned(),
        })
    });
    frames.collect()
}

/// Decodes header and body of a recorded frame; counts frames, and those that come out as they went in.
struct Again<'a> {
    recorded: &'a Recorded,
    visited: usize,
}

impl Visit for Again<'_> {
    fn visit<M: Tested>(&mut self) {
        let Recorded { key, version, is_request, frame, client } = self.recorded;
        if M::KEY != *key || M::IS_REQUEST != *is_request {
            return;
        }
        self.visited += 1;
        let what = format!("{key:?} v{version} request={is_request} of {client}");
        let mut reader = Reader::new(frame);
        if *is_request {
            let header = decode_request_header(&mut reader).expect(&what);
            assert_eq!((header.key, header.version), (*key, *version), "{what}");
        } else {
            decode_response_header(&mut reader, *key, *version).expect(&what);
        }
        let body_at = reader.position();
        let mut message = M::decode(&mut reader, *version).expect(&what);
        reader.finish().expect(&what);
        message.resolve(frame);
        let encoded = super::encode_body(&message, *version);
        assert_eq!(encoded, Bytes::copy_from_slice(&frame[body_at..]), "{what}: {message:?}");
    }
}

#[test]
fn recorded_frames_come_out_as_they_went_in() {
    let recorded = recorded();
    assert_eq!(recorded.len(), 2 * EXCHANGES.lines().count());
    for recorded in &recorded {
        let mut again = Again { recorded, visited: 0 };
        visit_all(&mut again);
        assert_eq!(again.visited, 1, "{:?}", recorded.key);
    }
}

#[test]
fn whole_frames_are_encoded_with_header_and_length() {
    let versions = recorded()
        .into_iter()
        .find(|r| r.key == ApiKey::ApiVersions && r.version == 4 && r.is_request)
        .unwrap();
    let mut reader = Reader::new(&versions.frame);
    let header = decode_request_header(&mut reader).unwrap();
    let body = messages::ApiVersionsRequest::decode(&mut reader, header.version).unwrap();
    let client_id = header.client_id.as_deref();
    let frame = encode_request(header.correlation_id, client_id, 4, &body).unwrap();
    assert_eq!(frame.bytes[LENGTH_BYTES..], versions.frame[..]);
    let length = i32::try_from(versions.frame.len()).unwrap();
    assert_eq!(frame.bytes[..LENGTH_BYTES], length.to_be_bytes());

    let answer = messages::ApiVersionsResponse::default();
    let frame = encode_response(CorrelationId::new(7), 3, &answer).unwrap();
    // Header v0: the body's error code follows the correlation id at once, although version 3 is flexible.
    assert_eq!(frame.bytes[..], *b"\0\0\0\x0c\0\0\0\x07\0\0\x01\0\0\0\0\0");
    let answer = messages::MetadataResponse::default();
    let frame = encode_response(CorrelationId::new(7), 9, &answer).unwrap();
    assert_eq!(frame.bytes[4..9], *b"\0\0\0\x07\0");
}
