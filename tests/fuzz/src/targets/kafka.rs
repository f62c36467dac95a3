//! Kafka's wire: every message at every version both ways, batches of records, what is packed in them.

use bytes::{Bytes, BytesMut};
use client_protocol::frame::{FRAME_BYTES_MIN, LENGTH_BYTES, split_frame};
use client_protocol::messages::consumer_protocol::{Assignment, Subscription};
use client_protocol::messages::*;
use client_protocol::pack::{pack, unpack};
use client_protocol::records::{
    BATCH_HEADER_BYTES, Batch, BatchBuilder, Batches, Compression, ProduceRules, Record,
    RecordsIter, assign_offsets, set_log_append_time, validate_fetched, validate_produced,
};
use client_protocol::{
    ApiKey, CorrelationId, DECODED_BYTES_MAX, LeaderEpoch, Offset, Reader, Records,
    decode_request_header, decode_response_header, encode_response,
};

use crate::budget::{Budget, within};
use crate::seeds::{framed, kafka_frames};
use crate::target::Target;

/// Three bytes on the wire are a topic of a hundred in memory, in a list that doubles as it grows.
const BUDGET: Budget = Budget { fixed: 8 << 10, per_byte: 192 };
/// Where the checksum of a batch is, and where what it covers begins.
const CRC: std::ops::Range<usize> = 17..21;
const LENGTH: std::ops::Range<usize> = 8..12;
const FRAMES_MAX: usize = 1 << 20;

pub const TARGETS: [Target; 6] = [
    Target {
        name: "kafka-stream",
        what: "what a client sends, from its first byte on",
        run: stream,
        seeds: || {
            kafka_frames(true)
                .chunks(6)
                .map(|some| some.iter().flat_map(|f| framed(&f.2)).collect())
                .collect()
        },
    },
    Target {
        name: "kafka-request",
        what: "a request of any api and version, with its header",
        run: request,
        seeds: || kafka_frames(true).into_iter().map(|(_, _, frame)| frame).collect(),
    },
    Target {
        name: "kafka-response",
        what: "two bytes for the api, two for the version, and the response",
        run: response,
        seeds: responses,
    },
    Target {
        name: "kafka-batches",
        what: "batches of records, with sound checksums and lengths",
        run: batches,
        seeds: batch_seeds,
    },
    Target {
        name: "kafka-packed",
        what: "a byte for the codec, and packed records",
        run: packed,
        seeds: packed_seeds,
    },
    Target {
        name: "kafka-consumer-protocol",
        what: "what members of a consumer group tell one another",
        run: consumer_protocol,
        seeds: consumer_seeds,
    },
];

/// Records that lie in a frame, taken out of it: written again, they are found in another place.
fn resolve(records: &mut Option<Records>, frame: &[u8]) {
    if let Some(range) = records.as_ref().and_then(Records::in_frame) {
        let bytes = range.of(frame).expect("a range of its own frame");
        *records = Some(Records::Inline(Bytes::copy_from_slice(bytes)));
    }
}

/// A message that can be compared with what it becomes.
trait Compared: Message + PartialEq + std::fmt::Debug {
    fn resolve(&mut self, _frame: &[u8]) {}
}

/// Decodes the body and what is written of it, which must be the same; what follows a body is not asked for.
fn again<M: Compared>(mut reader: Reader<'_>, frame: &[u8], version: i16) -> bool {
    let decode = || M::decode(&mut reader, version);
    let Ok(mut message) = within(frame.len(), BUDGET, decode) else { return false };
    message.resolve(frame);
    // A header of responses will do for both: it is as long as that, and read back.
    let whole = encode_response(CorrelationId::new(7), version, &message);
    let bytes = whole.expect("what was read can be written").bytes.slice(LENGTH_BYTES..);
    let mut reader = Reader::with_budget(&bytes, 2 * DECODED_BYTES_MAX);
    decode_response_header(&mut reader, M::KEY, version).expect("its own header");
    let mut read = M::decode(&mut reader, version).expect("its own writing");
    reader.finish().expect("its own writing to the end");
    read.resolve(&bytes);
    assert_eq!(read, message);
    true
}

macro_rules! exchanges {
    ($($key:ident $request:ident $response:ident;)*) => {
        $(
            exchanges!(compared $request);
            exchanges!(compared $response);
        )*

        fn request_of(key: ApiKey, reader: Reader<'_>, frame: &[u8], version: i16) -> bool {
            match key {
                $(ApiKey::$key => again::<$request>(reader, frame, version),)*
            }
        }

        fn response_of(key: ApiKey, reader: Reader<'_>, frame: &[u8], version: i16) -> bool {
            match key {
                $(ApiKey::$key => again::<$response>(reader, frame, version),)*
            }
        }
    };
    (compared ProduceRequest) => {
        impl Compared for ProduceRequest {
            fn resolve(&mut self, frame: &[u8]) {
                let partitions = self.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
                partitions.for_each(|partition| resolve(&mut partition.records, frame));
            }
        }
    };
    (compared FetchResponse) => {
        impl Compared for FetchResponse {
            fn resolve(&mut self, frame: &[u8]) {
                let partitions = self.responses.iter_mut().flat_map(|topic| &mut topic.partitions);
                partitions.for_each(|partition| resolve(&mut partition.records, frame));
            }
        }
    };
    (compared $message:ident) => {
        impl Compared for $message {}
    };
}

exchanges! {
    AlterPartition AlterPartitionRequest AlterPartitionResponse;
    ApiVersions ApiVersionsRequest ApiVersionsResponse;
    ControlledShutdown ControlledShutdownRequest ControlledShutdownResponse;
    CreatePartitions CreatePartitionsRequest CreatePartitionsResponse;
    CreateTopics CreateTopicsRequest CreateTopicsResponse;
    DeleteGroups DeleteGroupsRequest DeleteGroupsResponse;
    DeleteTopics DeleteTopicsRequest DeleteTopicsResponse;
    DescribeCluster DescribeClusterRequest DescribeClusterResponse;
    DescribeConfigs DescribeConfigsRequest DescribeConfigsResponse;
    DescribeGroups DescribeGroupsRequest DescribeGroupsResponse;
    DescribeReplicas DescribeReplicasRequest DescribeReplicasResponse;
    ElectLeaders ElectLeadersRequest ElectLeadersResponse;
    Fetch FetchRequest FetchResponse;
    FindCoordinator FindCoordinatorRequest FindCoordinatorResponse;
    Heartbeat HeartbeatRequest HeartbeatResponse;
    InitProducerId InitProducerIdRequest InitProducerIdResponse;
    JoinGroup JoinGroupRequest JoinGroupResponse;
    LeaveGroup LeaveGroupRequest LeaveGroupResponse;
    ListGroups ListGroupsRequest ListGroupsResponse;
    ListOffsets ListOffsetsRequest ListOffsetsResponse;
    Metadata MetadataRequest MetadataResponse;
    OffsetCommit OffsetCommitRequest OffsetCommitResponse;
    OffsetDelete OffsetDeleteRequest OffsetDeleteResponse;
    OffsetFetch OffsetFetchRequest OffsetFetchResponse;
    OffsetForLeaderEpoch OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse;
    Produce ProduceRequest ProduceResponse;
    SyncGroup SyncGroupRequest SyncGroupResponse;
}

fn stream(input: &[u8]) -> bool {
    let mut bytes = BytesMut::from(input);
    let mut taken = false;
    while let Ok(Some(frame)) = split_frame(&mut bytes, FRAME_BYTES_MIN, FRAMES_MAX) {
        taken |= request(&frame);
    }
    taken
}

fn request(input: &[u8]) -> bool {
    let mut reader = Reader::new(input);
    let decode = || decode_request_header(&mut reader);
    let Ok(header) = within(input.len(), BUDGET, decode) else { return false };
    assert!(header.key.speaks(header.version));
    request_of(header.key, reader, input, header.version)
}

fn responses() -> Vec<Vec<u8>> {
    let parts = kafka_frames(false).into_iter();
    let whole = parts.map(|(key, version, frame)| {
        [&key.to_be_bytes()[..], &version.to_be_bytes(), &frame].concat()
    });
    whole.collect()
}

fn response(input: &[u8]) -> bool {
    let Some(([k0, k1, v0, v1], frame)) = input.split_first_chunk() else { return false };
    let version = i16::from_be_bytes([*v0, *v1]);
    let Some(key) = ApiKey::from_code(i16::from_be_bytes([*k0, *k1])) else { return false };
    if !key.speaks(version) {
        return false;
    }
    let mut reader = Reader::new(frame);
    decode_response_header(&mut reader, key, version).is_ok()
        && response_of(key, reader, frame, version)
}

fn some_records(count: u8) -> client_protocol::records::SealedBatch {
    let mut builder = BatchBuilder::new(1 << 16);
    for number in 0..count {
        let key = Some(Bytes::copy_from_slice(&[number]));
        let value = Some(Bytes::from(vec![number; 20]));
        let fits = builder.push(&Record {
            timestamp_ms: 1_000 + i64::from(number),
            key,
            value,
            ..Record::default()
        });
        assert!(fits, "a small record");
    }
    builder.seal().expect("it has records")
}

pub fn batch_seeds() -> Vec<Vec<u8>> {
    let whole = |codec: Compression| {
        let sealed = some_records(9);
        let (codec, payload) = pack(codec, sealed.records());
        let sealed = sealed.packed(codec, payload);
        let header = sealed.header(None).expect("a header");
        [&header[..], sealed.records()].concat()
    };
    let all = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ]
    .map(whole);
    let mut seeds = all.to_vec();
    seeds.push([&all[0][..], &all[0]].concat());
    seeds
}

/// The bytes with each batch's checksum made what it should be, and of the first its length.
pub fn mended(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    if bytes.len() < BATCH_HEADER_BYTES {
        return bytes;
    }
    // Of an odd last byte the length is left as it is.
    if bytes.last().is_some_and(|last| last % 2 == 0)
        && let Ok(length) = i32::try_from(bytes.len() - LENGTH.end)
    {
        bytes[LENGTH].copy_from_slice(&length.to_be_bytes());
    }
    let mut at = 0;
    while let Ok(batch) = Batch::first(&bytes[at..]) {
        let size = batch.bytes.len();
        let sum = crc32c::crc32c(&bytes[at + CRC.end..at + size]);
        bytes[at..][CRC].copy_from_slice(&sum.to_be_bytes());
        at += size;
    }
    bytes
}

fn batches(input: &[u8]) -> bool {
    let bytes = mended(input);
    let budget = Budget { fixed: 8 << 10, per_byte: 64 };
    let validated =
        within(bytes.len(), budget, || validate_produced(&bytes, &ProduceRules::default()));
    let _ = within(bytes.len(), budget, || validate_fetched(&bytes, Offset::new(0), None));
    for batch in Batches::new(&bytes).map_while(Result::ok) {
        let _ =
            (batch.header.last_offset(), batch.header.end_offset(), batch.header.last_sequence());
        let Ok(records) = batch.records() else { continue };
        within(batch.bytes.len(), budget, || {
            let found = records.map_while(Result::ok);
            found.for_each(|record| record.headers().for_each(drop));
        });
    }
    let Ok(header) = validated else { return false };
    // What a broker takes it can number and hand on, and a follower takes it too.
    let mut numbered = bytes.clone();
    assign_offsets(&mut numbered, Offset::new(7), LeaderEpoch::new(3))
        .expect("a batch that was taken");
    let next = 7 + i64::from(header.record_count);
    let taken = validate_fetched(&numbered, Offset::new(7), Some(LeaderEpoch::new(3)));
    assert_eq!(taken, Ok((numbered.len(), Offset::new(next))));
    set_log_append_time(&mut numbered, 9_000).expect("a batch that was taken");
    let batch = Batch::first(&numbered).expect("a batch that was taken");
    batch.check_crc().expect("a checksum that was made anew");
    if let Ok(records) = batch.records() {
        let found: Vec<_> = records.collect::<Result<_, _>>().expect("records that were checked");
        assert_eq!(found.len(), usize::try_from(header.record_count).expect("not negative"));
    }
    true
}

fn packed_seeds() -> Vec<Vec<u8>> {
    let records = some_records(30);
    let codecs = [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    let mut seeds: Vec<Vec<u8>> = codecs
        .into_iter()
        .zip(1_u8..)
        .map(|(codec, code)| [&[code][..], &pack(codec, records.records()).1].concat())
        .collect();
    seeds.push([&[0][..], records.records()].concat());
    seeds
}

fn packed(input: &[u8]) -> bool {
    let Some((codec, payload)) = input.split_first() else { return false };
    let payload = Bytes::copy_from_slice(payload);
    let codec = Compression::from_code(i16::from(codec % 8));
    let Ok(records) = unpack(codec, &payload) else { return false };
    let sealed = some_records(1);
    let header = sealed.header(None).expect("a header");
    let Ok(batch) =
        Batch::first(&[&header[..], sealed.records()].concat()).map(|batch| batch.header)
    else {
        unreachable!("a batch of our own")
    };
    let found = RecordsIter::new(&batch, &records).map_while(Result::ok);
    found.take(1_000).for_each(|record| record.headers().for_each(drop));
    true
}

fn consumer_seeds() -> Vec<Vec<u8>> {
    let topics = vec!["a".to_owned(), "b".to_owned()];
    let subscription = Subscription {
        topics,
        user_data: Some(Bytes::from_static(b"u")),
        ..Subscription::default()
    };
    vec![
        subscription.encode().expect("short").to_vec(),
        Assignment::default().encode().expect("short").to_vec(),
        b"\0\x01\0\0\0\x01\0\x01t\0\0\0\x02\0\0\0\0\0\0\0\x07\xff\xff\xff\xff".to_vec(),
    ]
}

fn consumer_protocol(input: &[u8]) -> bool {
    let mut taken = false;
    if let Ok(subscription) = within(input.len(), BUDGET, || Subscription::decode(input)) {
        taken = true;
        let again = subscription.encode().expect("what was read can be written");
        assert_eq!(Subscription::decode(&again), Ok(subscription));
    }
    if let Ok(assignment) = within(input.len(), BUDGET, || Assignment::decode(input)) {
        taken = true;
        let again = assignment.encode().expect("what was read can be written");
        assert_eq!(Assignment::decode(&again), Ok(assignment));
    }
    taken
}
