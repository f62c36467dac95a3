//! What is written is read back equal.

use bytes::Bytes;
use proptest::prelude::*;

use super::generate::Source;
use super::{Tested, Visit, decode_body, encode_body, shape, versions, visit_all};
use crate::messages::fetch::{FetchPartitionResponse, FetchTopicResponse};
use crate::*;

struct There<'a>(&'a [u8]);

impl Visit for There<'_> {
    fn visit<M: Tested>(&mut self) {
        for version in versions::<M>() {
            let shape = shape(M::KEY, version).unwrap();
            let message = M::generate(&mut Source(self.0), shape);
            let bytes = encode_body(&message, version);
            assert_eq!(decode_body::<M>(&bytes, version), Ok(message), "{:?} v{version}", M::KEY);
        }
    }
}

proptest! {
    #[test]
    fn every_message_comes_back_equal(drawn in prop::collection::vec(any::<u8>(), 0..800)) {
        visit_all(&mut There(&drawn));
    }
}

struct Defaults;

impl Visit for Defaults {
    fn visit<M: Tested>(&mut self) {
        for version in versions::<M>() {
            let message = M::generate(&mut Source(&[]), shape(M::KEY, version).unwrap());
            let bytes = encode_body(&message, version);
            assert_eq!(decode_body::<M>(&bytes, version), Ok(message), "{:?} v{version}", M::KEY);
        }
        let entry = M::KEY.entry();
        for version in [entry.min_version - 1, entry.max_version + 1] {
            let key = M::KEY.code();
            let message = M::generate(&mut Source(&[]), shape(M::KEY, entry.min_version).unwrap());
            let refused = message.encode(&mut Writer::new(), version);
            assert_eq!(refused, Err(EncodeError::Version { key, version }));
            let refused = M::decode(&mut Reader::new(&[]), version);
            assert_eq!(refused, Err(DecodeError::Version { key, version }));
        }
    }
}

#[test]
fn versions_outside_the_table_are_refused() {
    visit_all(&mut Defaults);
}

fn fetch_response(records: [Option<Records>; 3]) -> messages::FetchResponse {
    let partitions = records
        .into_iter()
        .map(|records| FetchPartitionResponse { records, ..FetchPartitionResponse::default() });
    let topic =
        FetchTopicResponse { partitions: partitions.collect(), ..FetchTopicResponse::default() };
    messages::FetchResponse { responses: vec![topic], ..messages::FetchResponse::default() }
}

#[test]
fn spliced_records_make_the_same_frame_as_inline_ones() {
    for version in versions::<messages::FetchResponse>() {
        let first = Bytes::from_static(b"the first partition's batches");
        let second = Bytes::from_static(b"the second's");
        let encode = |records| {
            encode_response(CorrelationId::new(1), version, &fetch_response(records)).unwrap()
        };
        let inline = encode([
            Some(Records::Inline(first.clone())),
            Some(Records::Inline(Bytes::new())),
            Some(Records::Inline(second.clone())),
        ]);
        let spliced = encode([
            Some(Records::Spliced(first.len())),
            Some(Records::Spliced(0)),
            Some(Records::Spliced(second.len())),
        ]);
        assert_eq!(spliced.splices.len(), 2);
        assert_eq!(spliced.length(), inline.bytes.len());
        let mut sent = Vec::new();
        let mut at = 0;
        for (splice, records) in spliced.splices.iter().zip([&first, &second]) {
            assert_eq!(splice.length, records.len());
            sent.extend_from_slice(&spliced.bytes[at..splice.position]);
            sent.extend_from_slice(records);
            at = splice.position;
        }
        sent.extend_from_slice(&spliced.bytes[at..]);
        assert_eq!(sent, inline.bytes, "v{version}");
    }
}

#[test]
fn records_of_another_frame_are_not_written() {
    let elsewhere = Some(Records::InFrame(ByteRange { start: 0, end: 3 }));
    let response = fetch_response([elsewhere, None, None]);
    let refused = encode_response(CorrelationId::new(1), 12, &response);
    assert_eq!(refused, Err(EncodeError::RecordsElsewhere));
}

#[test]
fn unknown_tagged_fields_are_skipped() {
    let mut writer = Writer::new();
    let cluster = messages::DescribeClusterRequest::default();
    cluster.encode(&mut writer, 1).unwrap();
    let (mut bytes, _) = writer.into_parts();
    // Instead of an empty tagged section: fields 3 (two bytes) and 90 (none).
    bytes.truncate(bytes.len() - 1);
    bytes.extend_from_slice(&[2, 3, 2, 0xaa, 0xbb, 90, 0]);
    assert_eq!(decode_body::<messages::DescribeClusterRequest>(&bytes, 1), Ok(cluster));
}

#[test]
fn unsupported_api_versions_answer_is_read_as_version_0() {
    let answer = messages::ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion,
        api_keys: vec![messages::api_versions::ApiVersionRange {
            api_key: 18,
            min_version: 0,
            max_version: 3,
        }],
        ..messages::ApiVersionsResponse::default()
    };
    let bytes = encode_body(&answer, 0);
    let read = messages::ApiVersionsResponse::decode_answer(&mut Reader::new(&bytes), 4);
    assert_eq!(read, Ok(answer));
}
