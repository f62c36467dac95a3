//! Every message at every version: against recordings, against another codec, against damage.
//!
//! Values are generated from the bytes that proptest draws (`generate`), so that they shrink; what a version has no
//! field for keeps its default, so that a value must come back equal.

mod damage;
pub(crate) mod generate;
mod golden;
mod oracle;
mod round_trip;

use bytes::Bytes;

use super::*;
use crate::Records;
use generate::Generate;

/// A message under test.
pub(crate) trait Tested: Message + Generate + PartialEq + std::fmt::Debug {
    /// A request, not a response.
    const IS_REQUEST: bool;

    /// Decodes with the other codec and encodes again; `None` when it does not know the message or version.
    fn through_oracle(bytes: Bytes, version: i16) -> Option<Bytes>;

    /// Puts the records that lie in `frame` into the message, so that it can be encoded or compared.
    fn resolve(&mut self, _frame: &[u8]) {}
}

fn resolve(records: &mut Option<Records>, frame: &[u8]) {
    if let Some(range) = records.as_ref().and_then(Records::in_frame) {
        *records = Some(Records::Inline(Bytes::copy_from_slice(range.of(frame).unwrap())));
    }
}

/// Something done to every message.
pub(crate) trait Visit {
    fn visit<M: Tested>(&mut self);
}

macro_rules! tested {
    ($($name:ident $is_request:literal [$($oracle:ident)?] $(resolve |$message:ident, $frame:ident| $resolve:block)?;)*) => {
        $(impl Tested for $name {
            const IS_REQUEST: bool = $is_request;

            fn through_oracle(_bytes: Bytes, _version: i16) -> Option<Bytes> {
                let answers: &[Option<Bytes>] =
                    &[$(oracle::through::<kafka_protocol::messages::$oracle>(_bytes, _version))?];
                answers.first().cloned().flatten()
            }

            $(fn resolve(&mut self, $frame: &[u8]) {
                let $message = self;
                $resolve
            })?
        })*

        pub(crate) fn visit_all(visitor: &mut impl Visit) {
            $(visitor.visit::<$name>();)*
        }
    };
}

tested! {
    AlterPartitionRequest true [AlterPartitionRequest];
    AlterPartitionResponse false [AlterPartitionResponse];
    ApiVersionsRequest true [ApiVersionsRequest];
    ApiVersionsResponse false [ApiVersionsResponse];
    ControlledShutdownRequest true [];
    ControlledShutdownResponse false [];
    CreatePartitionsRequest true [CreatePartitionsRequest];
    CreatePartitionsResponse false [CreatePartitionsResponse];
    CreateTopicsRequest true [CreateTopicsRequest];
    CreateTopicsResponse false [CreateTopicsResponse];
    DeleteGroupsRequest true [DeleteGroupsRequest];
    DeleteGroupsResponse false [DeleteGroupsResponse];
    DeleteTopicsRequest true [DeleteTopicsRequest];
    DeleteTopicsResponse false [DeleteTopicsResponse];
    DescribeClusterRequest true [DescribeClusterRequest];
    DescribeClusterResponse false [DescribeClusterResponse];
    DescribeConfigsRequest true [DescribeConfigsRequest];
    DescribeConfigsResponse false [DescribeConfigsResponse];
    DescribeGroupsRequest true [DescribeGroupsRequest];
    DescribeGroupsResponse false [DescribeGroupsResponse];
    DescribeReplicasRequest true [];
    DescribeReplicasResponse false [];
    ElectLeadersRequest true [ElectLeadersRequest];
    ElectLeadersResponse false [ElectLeadersResponse];
    FetchRequest true [FetchRequest];
    FetchResponse false [FetchResponse] resolve |message, frame| {
        for partition in message.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
            resolve(&mut partition.records, frame);
        }
    };
    FindCoordinatorRequest true [FindCoordinatorRequest];
    FindCoordinatorResponse false [FindCoordinatorResponse];
    HeartbeatRequest true [HeartbeatRequest];
    HeartbeatResponse false [HeartbeatResponse];
    JoinGroupRequest true [JoinGroupRequest];
    JoinGroupResponse false [JoinGroupResponse];
    LeaveGroupRequest true [LeaveGroupRequest];
    LeaveGroupResponse false [LeaveGroupResponse];
    OffsetCommitRequest true [OffsetCommitRequest];
    OffsetCommitResponse false [OffsetCommitResponse];
    OffsetDeleteRequest true [OffsetDeleteRequest];
    OffsetDeleteResponse false [OffsetDeleteResponse];
    OffsetFetchRequest true [OffsetFetchRequest];
    OffsetFetchResponse false [OffsetFetchResponse];
    SyncGroupRequest true [SyncGroupRequest];
    SyncGroupResponse false [SyncGroupResponse];
    InitProducerIdRequest true [InitProducerIdRequest];
    InitProducerIdResponse false [InitProducerIdResponse];
    ListGroupsRequest true [ListGroupsRequest];
    ListGroupsResponse false [ListGroupsResponse];
    ListOffsetsRequest true [ListOffsetsRequest];
    ListOffsetsResponse false [ListOffsetsResponse];
    MetadataRequest true [MetadataRequest];
    MetadataResponse false [MetadataResponse];
    OffsetForLeaderEpochRequest true [OffsetForLeaderEpochRequest];
    OffsetForLeaderEpochResponse false [OffsetForLeaderEpochResponse];
    ProduceRequest true [ProduceRequest] resolve |message, frame| {
        for partition in message.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            resolve(&mut partition.records, frame);
        }
    };
    ProduceResponse false [ProduceResponse];
}

/// All versions this crate speaks of the message's API.
pub(crate) fn versions<M: Message>() -> std::ops::RangeInclusive<i16> {
    let entry = M::KEY.entry();
    entry.min_version..=entry.max_version
}

pub(crate) fn encode_body<M: Message>(message: &M, version: i16) -> Bytes {
    let mut writer = Writer::new();
    message.encode(&mut writer, version).unwrap();
    writer.into_parts().0.freeze()
}

pub(crate) fn decode_body<M: Tested>(bytes: &[u8], version: i16) -> Result<M, DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut message = M::decode(&mut reader, version)?;
    reader.finish()?;
    message.resolve(bytes);
    Ok(message)
}
