//! DeleteTopics (key 20, versions 1-6): the controller marks, brokers drop their replicas.
//!
//! 6: topics may be named by id. The answer waits until the topics are gone from this broker's
//! image, within the time the client gives; replicas that are down are dropped when they return.

use std::sync::Arc;
use std::time::Duration;

use client_protocol::ErrorCode;
use client_protocol::api::Scope;
use client_protocol::messages::delete_topics::{DeletableTopicResult, DeleteTopicState};
use client_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};

use super::call::Call;
use super::shared::Shared;
use crate::response::Dispatch;

/// Longest wait for the topics to go.
const WAIT_MAX: Duration = Duration::from_secs(60);

pub(super) fn handle(
    shared: &Arc<Shared>,
    call: &Call<'_>,
    mut request: DeleteTopicsRequest,
) -> Dispatch {
    if call.session.scope == Scope::InterBroker {
        // Another broker has checked it and will wait for the outcome to show.
        return call.respond_later(shared.cluster.delete_topics_here(request));
    }
    let by_name = |name: String| DeleteTopicState { name: Some(name), topic_id: None };
    let names = std::mem::take(&mut request.topic_names);
    request.topics.extend(names.into_iter().map(by_name));
    if !shared.config.delete_topics {
        return call.respond(&all_refused(request, ErrorCode::TopicDeletionDisabled));
    }
    call.respond_later(delete(Arc::clone(shared), request))
}

async fn delete(shared: Arc<Shared>, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let timeout_ms = u64::try_from(request.timeout_ms).unwrap_or(0);
    let timeout = Duration::from_millis(timeout_ms).min(WAIT_MAX);
    let mut response = shared.cluster.delete_topics(request).await;
    let marked: Vec<&str> = response
        .responses
        .iter()
        .filter(|result| result.error_code.is_none())
        .filter_map(|result| result.name.as_deref())
        .collect();
    shared
        .image_where(timeout, |image| marked.iter().all(|name| image.topic(name).is_none()))
        .await;
    for result in response.responses.iter_mut().filter(|result| !result.error_code.is_none()) {
        let why = || result.error_code.message().to_owned();
        result.error_message = result.error_message.take().or_else(|| Some(why()));
    }
    response
}

fn all_refused(request: DeleteTopicsRequest, error_code: ErrorCode) -> DeleteTopicsResponse {
    let refused = |topic: DeleteTopicState| DeletableTopicResult {
        name: topic.name,
        topic_id: topic.topic_id,
        error_code,
        error_message: Some(error_code.message().to_owned()),
    };
    DeleteTopicsResponse {
        responses: request.topics.into_iter().map(refused).collect(),
        ..Default::default()
    }
}
