//! What consumers tell each other through JoinGroup and SyncGroup: the bytes that brokers pass on unread.
//!
//! *Called by* the client's group membership and tools. The version stands in front of each; a later one is read as the
//! latest known here, because fields are only ever added at the end.

use bytes::Bytes;

use crate::declare::wire_structs;
use crate::field::{Field, Shape};
use crate::ids::PartitionId;
use crate::reader::{DecodeError, Reader};
use crate::writer::{EncodeError, Writer};

/// The protocol type of consumers.
pub const PROTOCOL_TYPE: &str = "consumer";

const SUBSCRIPTION_VERSION: i16 = 3;
const ASSIGNMENT_VERSION: i16 = 3;

wire_structs! {
    /// What a member wants and has. Versions 0-3.
    pub struct Subscription {
        /// The topics.
        topics: Vec<String> [0..],
        /// The assignor's own.
        user_data: Option<Bytes> [0.., nullable 0..],
        /// What the member has from the last generation.
        owned_partitions: Vec<TopicPartitions> [1..],
        /// That generation; -1 for none.
        generation_id: i32 [2.., default -1],
        /// The member's rack.
        rack_id: Option<String> [3.., nullable 3..],
    }

    /// What a member gets. Versions 0-3, all the same.
    pub struct Assignment {
        /// By topic.
        assigned_partitions: Vec<TopicPartitions> [0..],
        /// The assignor's own.
        user_data: Option<Bytes> [0.., nullable 0..],
    }

    /// Partitions of one topic.
    pub struct TopicPartitions {
        /// The topic's name.
        topic: String [0..],
        /// Its partitions.
        partitions: Vec<PartitionId> [0..],
    }
}

fn encode<T: Field>(value: &T, version: i16) -> Result<Bytes, EncodeError> {
    let mut writer = Writer::new();
    writer.put(&version.to_be_bytes());
    value.write(&mut writer, Shape { version, flexible: false, nullable: false })?;
    Ok(writer.into_parts().0.freeze())
}

fn decode<T: Field>(bytes: &[u8], latest: i16) -> Result<T, DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = i16::from_be_bytes(reader.take_array()?);
    if version < 0 {
        return Err(DecodeError::Version { key: -1, version });
    }
    let version = version.min(latest);
    T::read(&mut reader, Shape { version, flexible: false, nullable: false })
}

impl Subscription {
    /// The bytes, version in front.
    ///
    /// # Errors
    /// [`EncodeError`] for a name that is too long.
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        encode(self, SUBSCRIPTION_VERSION)
    }

    /// Reads what any client sent.
    ///
    /// # Errors
    /// [`DecodeError`]: the member speaks something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode(bytes, SUBSCRIPTION_VERSION)
    }
}

impl Assignment {
    /// The bytes, version in front.
    ///
    /// # Errors
    /// [`EncodeError`] for a name that is too long.
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        encode(self, ASSIGNMENT_VERSION)
    }

    /// Reads what any leader sent; no bytes at all are an empty assignment.
    ///
    /// # Errors
    /// [`DecodeError`]: the leader speaks something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.is_empty() { Ok(Self::default()) } else { decode(bytes, ASSIGNMENT_VERSION) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
    use kafka_protocol::protocol::{Decodable, Encodable};

    fn partitions(topic: &str) -> Vec<TopicPartitions> {
        let partitions = vec![PartitionId::new(0), PartitionId::new(7)];
        vec![TopicPartitions { topic: topic.to_owned(), partitions }]
    }

    #[test]
    fn another_codec_reads_what_is_written_and_the_other_way_round() {
        let subscription = Subscription {
            topics: vec!["a".to_owned(), "b".to_owned()],
            user_data: Some(Bytes::from_static(&[0, 0, 0, 9])),
            owned_partitions: partitions("a"),
            generation_id: 9,
            rack_id: Some("r".to_owned()),
        };
        let bytes = subscription.encode().unwrap();
        assert_eq!(bytes[..2], [0, 3]);
        let theirs = ConsumerProtocolSubscription::decode(&mut bytes.slice(2..), 3).unwrap();
        for version in 0..=3i16 {
            let mut again = version.to_be_bytes().to_vec();
            let mut cut = theirs.clone();
            if version < 1 {
                cut.owned_partitions.clear();
            }
            if version < 2 {
                cut.generation_id = -1;
            }
            if version < 3 {
                cut.rack_id = None;
            }
            cut.encode(&mut again, version).unwrap();
            let read = Subscription::decode(&again).unwrap();
            assert_eq!(read.topics, subscription.topics);
            let owned = if version < 1 { Vec::new() } else { partitions("a") };
            assert_eq!(read.owned_partitions, owned);
            assert_eq!(read.generation_id, if version < 2 { -1 } else { 9 });
        }
        let assignment = Assignment { assigned_partitions: partitions("t"), user_data: None };
        let bytes = assignment.encode().unwrap();
        let theirs = ConsumerProtocolAssignment::decode(&mut bytes.slice(2..), 3).unwrap();
        let mut again = 3i16.to_be_bytes().to_vec();
        theirs.encode(&mut again, 3).unwrap();
        assert_eq!(again, bytes);
        assert_eq!(Assignment::decode(&again), Ok(assignment));
    }

    #[test]
    fn later_versions_are_read_and_nonsense_is_refused() {
        let mut later = Assignment::default().encode().unwrap().to_vec();
        later[1] = 9;
        later.extend_from_slice(b"more");
        assert_eq!(Assignment::decode(&later), Ok(Assignment::default()));
        assert_eq!(Assignment::decode(&[]), Ok(Assignment::default()));
        assert!(Assignment::decode(&[0, 0, 0x7f, 0xff, 0xff, 0xff]).is_err());
        assert!(Subscription::decode(&[0xff, 0xff, 0, 0, 0, 0]).is_err());
    }
}
