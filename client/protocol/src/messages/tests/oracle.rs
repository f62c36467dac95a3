//! Another codec, written by others from Kafka's own schemas: it must read what we write, and write what we wrote.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable, Message as OracleMessage};
use proptest::prelude::*;

use super::generate::Source;
use super::{Tested, Visit, decode_body, encode_body, shape, versions, visit_all};

/// `bytes` decoded and encoded by the other codec.
pub(super) fn through<M: Decodable + Encodable + OracleMessage>(
    mut bytes: Bytes,
    version: i16,
) -> Option<Bytes> {
    if !(M::VERSIONS.min..=M::VERSIONS.max).contains(&version) {
        return None;
    }
    let message = M::decode(&mut bytes, version).unwrap_or_else(|error| panic!("oracle: {error}"));
    assert!(bytes.is_empty(), "the oracle leaves {} bytes", bytes.len());
    let mut again = BytesMut::new();
    message.encode(&mut again, version).unwrap_or_else(|error| panic!("oracle: {error}"));
    Some(again.freeze())
}

struct Compare<'a> {
    drawn: &'a [u8],
    compared: usize,
}

impl Visit for Compare<'_> {
    fn visit<M: Tested>(&mut self) {
        for version in versions::<M>() {
            let shape = shape(M::KEY, version).unwrap();
            let message = M::generate(&mut Source(self.drawn), shape);
            let ours = encode_body(&message, version);
            let Some(theirs) = M::through_oracle(ours.clone(), version) else { continue };
            assert_eq!(theirs, ours, "{:?} v{version} {message:?}", M::KEY);
            assert_eq!(decode_body::<M>(&theirs, version).as_ref(), Ok(&message));
            self.compared += 1;
        }
    }
}

proptest! {
    #[test]
    fn another_codec_reads_and_writes_the_same(drawn in prop::collection::vec(any::<u8>(), 0..800)) {
        let mut compare = Compare { drawn: &drawn, compared: 0 };
        visit_all(&mut compare);
        // All messages and versions but ControlledShutdown (1) and DescribeReplicas (1), which it does not know.
        let all: usize = crate::api::API_TABLE
            .iter()
            .map(|entry| 2 * versions_of(entry))
            .sum();
        prop_assert_eq!(compare.compared, all - 4);
    }
}

fn versions_of(entry: &crate::api::ApiEntry) -> usize {
    usize::try_from(entry.max_version - entry.min_version + 1).unwrap()
}
