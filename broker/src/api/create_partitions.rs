//! CreatePartitions (key 37, versions 0-3): the controller decides and adds.
//!
//! Each topic has its own outcome. The answer waits until this broker can name the leaders of the
//! new partitions, within the time the client gives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker_core::image::Image;
use client_protocol::api::Scope;
use client_protocol::messages::create_partitions::{
    CreatePartitionsTopic, CreatePartitionsTopicResult,
};
use client_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use client_protocol::{ErrorCode, PartitionId};

use super::call::Call;
use super::shared::Shared;
use crate::response::Dispatch;

/// Topics that one request may name.
const TOPICS_MAX: usize = 1_000;
/// Longest wait for the new partitions to show.
const WAIT_MAX: Duration = Duration::from_secs(60);

pub(super) fn handle(
    shared: &Arc<Shared>,
    call: &Call<'_>,
    request: CreatePartitionsRequest,
) -> Dispatch {
    match call.session.scope {
        Scope::Public => call.respond_later(grow(Arc::clone(shared), request)),
        // Another broker has checked it and will wait for the outcome to show.
        Scope::InterBroker => call.respond_later(shared.cluster.create_partitions_here(request)),
    }
}

async fn grow(shared: Arc<Shared>, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let order: Vec<String> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    let (accepted, mut results) = split(request.topics);
    if !accepted.is_empty() {
        let former = shared.image();
        let wished: BTreeMap<String, i32> =
            accepted.iter().map(|topic| (topic.name.clone(), topic.count)).collect();
        let forwarded = CreatePartitionsRequest { topics: accepted, ..request };
        let validate_only = forwarded.validate_only;
        let timeout_ms = u64::try_from(forwarded.timeout_ms).unwrap_or(0);
        for result in shared.cluster.create_partitions(forwarded).await.results {
            results.insert(result.name.clone(), result);
        }
        if !validate_only {
            let grown: Vec<(&str, i32)> = wished
                .iter()
                .filter(|(name, _)| results.get(*name).is_some_and(|r| r.error_code.is_none()))
                .map(|(name, count)| (name.as_str(), *count))
                .collect();
            let timeout = Duration::from_millis(timeout_ms).min(WAIT_MAX);
            let all_led = |image: &Image| {
                let first =
                    |name| former.topic(name).map_or(0, |topic| topic.node.partitions.len());
                grown.iter().all(|(name, count)| are_led(image, name, (first(name), *count)))
            };
            shared.image_where(timeout, all_led).await;
        }
    }
    let result = |name: String| {
        let unsaid = || (ErrorCode::UnknownServerError, "the controller did not say".to_owned());
        results.get(&name).cloned().unwrap_or_else(|| refused(&name, unsaid()))
    };
    let results = order.into_iter().map(result).collect();
    CreatePartitionsResponse { results, ..Default::default() }
}

/// Those to ask the controller about, and what can be said of the others without it.
fn split(
    topics: Vec<CreatePartitionsTopic>,
) -> (Vec<CreatePartitionsTopic>, BTreeMap<String, CreatePartitionsTopicResult>) {
    let mut times_named: BTreeMap<String, usize> = BTreeMap::new();
    for topic in &topics {
        *times_named.entry(topic.name.clone()).or_default() += 1;
    }
    let mut results = BTreeMap::new();
    let mut accepted = Vec::new();
    for topic in topics {
        let why = if times_named.get(&topic.name) != Some(&1) {
            Some((ErrorCode::InvalidRequest, "the topic is named twice".to_owned()))
        } else if accepted.len() >= TOPICS_MAX {
            let why = format!("a request may name {TOPICS_MAX} topics");
            Some((ErrorCode::PolicyViolation, why))
        } else {
            None
        };
        match why {
            Some(why) => {
                let result = refused(&topic.name, why);
                results.insert(topic.name, result);
            }
            None => accepted.push(topic),
        }
    }
    (accepted, results)
}

/// Whether partitions from `first` up to `count` (exclusive) have leaders.
fn are_led(image: &Image, name: &str, (first, count): (usize, i32)) -> bool {
    let first = i32::try_from(first).unwrap_or(i32::MAX);
    (first..count).map(PartitionId::new).all(|number| image.leader(name, number).is_some())
}

fn refused(name: &str, (error_code, why): (ErrorCode, String)) -> CreatePartitionsTopicResult {
    CreatePartitionsTopicResult { name: name.to_owned(), error_code, error_message: Some(why) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> CreatePartitionsTopic {
        CreatePartitionsTopic { name: name.to_owned(), count: 2, assignments: None }
    }

    #[test]
    fn a_topic_named_twice_is_refused_and_the_others_are_not() {
        let (accepted, results) = split(vec![named("a"), named("b"), named("a")]);
        assert_eq!(accepted, [named("b")]);
        let codes: Vec<_> = results.values().map(|result| result.error_code).collect();
        assert_eq!(codes, [ErrorCode::InvalidRequest]);
    }

    #[test]
    fn topics_beyond_the_limit_are_refused() {
        let topics = |count: usize| (0..count).map(|n| named(&n.to_string())).collect();
        let (accepted, results) = split(topics(TOPICS_MAX));
        assert_eq!((accepted.len(), results.len()), (TOPICS_MAX, 0));
        let (accepted, results) = split(topics(TOPICS_MAX + 1));
        assert_eq!((accepted.len(), results.len()), (TOPICS_MAX, 1));
    }
}
