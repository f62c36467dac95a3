//! OffsetFetch (key 9, versions 1-9): how far a group has read.
//!
//! 2: all partitions of a group, and an error of the whole; 7: waiting for transactions, of which there
//! are none; 8: many groups; 9: members of a group protocol that is not spoken here. Only what is in
//! the log of all in-sync replicas is told.

use broker_core::group::{Request, Response};
use client_protocol::ErrorCode;
use client_protocol::messages::offset_fetch::{
    OffsetFetchGroup, OffsetFetchGroupResponse, OffsetFetchPartitionResponse, OffsetFetchTopic,
    OffsetFetchTopicResponse,
};
use client_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};

use super::call::Call;
use super::shared::Shared;
use crate::response::Dispatch;

/// First version with an error of the whole request.
const WHOLE_ERROR_FROM: i16 = 2;
/// First version that asks for many groups.
const MANY_GROUPS_FROM: i16 = 8;

pub(super) fn handle(shared: &Shared, call: &Call<'_>, request: OffsetFetchRequest) -> Dispatch {
    if call.version < MANY_GROUPS_FROM {
        return one_group(shared, call, request);
    }
    let asked = shared.ask_groups(request.groups.into_iter().map(Request::OffsetFetch));
    call.respond_later(async move {
        let mut groups = Vec::with_capacity(asked.len());
        for asked in asked {
            groups.push(fetched(asked.await));
        }
        OffsetFetchResponse { groups, ..Default::default() }
    })
}

fn one_group(shared: &Shared, call: &Call<'_>, request: OffsetFetchRequest) -> Dispatch {
    let OffsetFetchRequest { group_id, topics, .. } = request;
    let each = call.version < WHOLE_ERROR_FROM;
    let order = topics.clone().unwrap_or_default();
    let group = OffsetFetchGroup { group_id, topics, ..Default::default() };
    let asked = shared.ask_group(Request::OffsetFetch(group));
    call.respond_later(async move {
        let mut fetched = fetched(asked.await);
        if each && !fetched.error_code.is_none() {
            let refused = order.iter().map(|topic| refused(topic, fetched.error_code));
            fetched.topics = refused.collect();
        }
        let OffsetFetchGroupResponse { topics, error_code, .. } = fetched;
        OffsetFetchResponse { topics, error_code, ..Default::default() }
    })
}

fn fetched(response: Response) -> OffsetFetchGroupResponse {
    match response {
        Response::OffsetFetch(response) => response,
        other => unreachable!("an OffsetFetch is answered as such, not with {other:?}"),
    }
}

fn refused(topic: &OffsetFetchTopic, error_code: ErrorCode) -> OffsetFetchTopicResponse {
    let partitions = topic.partition_indexes.iter().map(|partition| OffsetFetchPartitionResponse {
        partition_index: *partition,
        metadata: Some(String::new()),
        error_code,
        ..Default::default()
    });
    OffsetFetchTopicResponse { name: topic.name.clone(), partitions: partitions.collect() }
}
