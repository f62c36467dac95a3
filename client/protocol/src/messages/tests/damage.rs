//! Damaged frames: cut short anywhere, any byte changed, absurd counts. Errors, never a panic, never much memory.

use super::golden::{Recorded, recorded};
use super::{Tested, Visit, decode_body, versions, visit_all};
use crate::*;

/// Decodes a whole frame as far as it goes.
struct Decode<'a> {
    recorded: &'a Recorded,
    frame: &'a [u8],
    result: Option<Result<(), DecodeError>>,
}

impl Visit for Decode<'_> {
    fn visit<M: Tested>(&mut self) {
        let Recorded { key, version, is_request, .. } = self.recorded;
        if M::KEY == *key && M::IS_REQUEST == *is_request {
            self.result = Some(decode::<M>(self.frame, *version));
        }
    }
}

fn decode<M: Tested>(frame: &[u8], version: i16) -> Result<(), DecodeError> {
    let mut reader = Reader::new(frame);
    if M::IS_REQUEST {
        match decode_request_header(&mut reader) {
            Err(HeaderError::Decode(error)) => return Err(error),
            Err(_) => return Ok(()),
            Ok(header) if header.version != version || header.key != M::KEY => return Ok(()),
            Ok(_) => {}
        }
    } else {
        decode_response_header(&mut reader, M::KEY, version)?;
    }
    M::decode(&mut reader, version)?;
    reader.finish()
}

fn result(recorded: &Recorded, frame: &[u8]) -> Result<(), DecodeError> {
    let mut decode = Decode { recorded, frame, result: None };
    visit_all(&mut decode);
    decode.result.unwrap()
}

/// One frame of each API, version and direction, the shortest.
fn samples() -> Vec<Recorded> {
    let mut recorded = recorded();
    let kind = |r: &Recorded| (r.key, r.version, r.is_request);
    recorded.sort_by_key(|r| (kind(r), r.frame.len()));
    recorded.dedup_by_key(|r| kind(r));
    recorded
}

#[test]
fn a_frame_cut_short_anywhere_is_refused() {
    for recorded in &samples() {
        for end in 0..recorded.frame.len() {
            let cut = &recorded.frame[..end];
            let result = result(recorded, cut);
            assert!(result.is_err(), "{:?} v{} at {end}", recorded.key, recorded.version);
        }
        assert_eq!(result(recorded, &recorded.frame), Ok(()));
    }
}

#[test]
fn a_frame_with_any_byte_changed_is_read_or_refused() {
    for recorded in &samples() {
        let mut frame = recorded.frame.clone();
        // Records are ranges: their inside is tested in `records`.
        for at in 0..frame.len().min(1500) {
            let original = frame[at];
            for value in [0x00, 0x01, 0x7f, 0x80, 0xff, original ^ 0x10] {
                frame[at] = value;
                let _read_or_refused = result(recorded, &frame);
            }
            frame[at] = original;
        }
    }
}

struct Absurd<'a>(&'a [u8]);

impl Visit for Absurd<'_> {
    fn visit<M: Tested>(&mut self) {
        for version in versions::<M>() {
            let _read_or_refused = decode_body::<M>(self.0, version);
        }
    }
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_are_read_or_refused(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
    ) {
        visit_all(&mut Absurd(&bytes));
    }

    #[test]
    fn arbitrary_bytes_are_no_header_or_one(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..40),
    ) {
        let _read_or_refused = decode_request_header(&mut Reader::new(&bytes));
    }
}

#[test]
fn declared_counts_reserve_nothing() {
    // Metadata v1 with 2^31 - 1 topics, v9 with 2^32 - 2.
    let refused = decode_body::<messages::MetadataRequest>(&[0x7f, 0xff, 0xff, 0xff], 1);
    assert!(matches!(refused, Err(DecodeError::Count { count: 0x7fff_ffff, left: 0 })));
    let refused = decode_body::<messages::MetadataRequest>(&[0xff, 0xff, 0xff, 0xff, 0x0f], 9);
    assert!(matches!(refused, Err(DecodeError::Count { .. })));
}

#[test]
fn small_elements_on_the_wire_are_charged_at_their_size_in_memory() {
    // Topics of three bytes each on the wire (empty name, no partitions, no tags): 64 bytes and more in memory.
    let count = 1_000_000u32;
    let mut writer = Writer::new();
    writer.put(&[1, 0]);
    writer.put(&1i16.to_be_bytes());
    writer.put(&1i32.to_be_bytes());
    writer.unsigned_varint(count + 1);
    for _ in 0..count {
        writer.put(&[1, 1, 0]);
    }
    writer.put(&[0]);
    let bytes = writer.into_parts().0;
    let decode = |budget| {
        let mut reader = Reader::with_budget(&bytes[1..], budget);
        messages::ProduceRequest::decode(&mut reader, 9)
    };
    assert_eq!(decode(DECODED_BYTES_MAX), Err(DecodeError::Budget));
    let elements = size_of::<messages::produce::ProduceTopic>() * 1_000_000;
    assert!(decode(elements).is_ok());
    assert_eq!(decode(elements - 1), Err(DecodeError::Budget));
}

#[test]
fn headers_of_unknown_apis_and_versions_say_so() {
    let header = |key: i16, version: i16| {
        let mut writer = Writer::new();
        for part in [key, version, 0, 7, -1] {
            writer.put(&part.to_be_bytes());
        }
        decode_request_header(&mut Reader::new(&writer.into_parts().0))
    };
    assert_eq!(header(4, 0), Err(HeaderError::UnknownApi(4)));
    assert_eq!(
        header(18, 9),
        Err(HeaderError::UnsupportedVersion {
            key: ApiKey::ApiVersions,
            version: 9,
            correlation_id: CorrelationId::new(7),
        })
    );
    assert!(matches!(header(0, 2), Err(HeaderError::UnsupportedVersion { .. })));
    assert!(header(18, 2).is_ok_and(|header| header.client_id.is_none()));
}
