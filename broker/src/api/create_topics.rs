//! CreateTopics (key 19, versions 2-7): check here, let the controller decide, show what was made.
//!
//! 4: -1 asks for default numbers; 5: the answer shows the settings; 7: and the id. Each topic has
//! its own outcome. Numbers that were left open are filled in here, so that the controller gets
//! complete requests. The answer waits until this broker can name the leaders, within the time the
//! client gives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker_core::image::Image;
use client_protocol::ErrorCode;
use client_protocol::api::Scope;
use client_protocol::messages::create_topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult,
};
use client_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};

use super::call::Call;
use super::shared::Shared;
use super::topic_name;
use crate::config::topic;
use crate::response::Dispatch;

/// "Use the default" in a request.
const DEFAULT: i32 = -1;
/// Partitions that one request may create, over all its topics.
const PARTITIONS_MAX: i32 = 10_000;
/// Longest wait for the new topics to show.
const WAIT_MAX: Duration = Duration::from_secs(60);

pub(super) fn handle(
    shared: &Arc<Shared>,
    call: &Call<'_>,
    request: CreateTopicsRequest,
) -> Dispatch {
    match call.session.scope {
        Scope::Public => call.respond_later(create(Arc::clone(shared), request)),
        // Another broker has checked it and will wait for the outcome to show.
        Scope::InterBroker => call.respond_later(shared.cluster.create_topics_here(request)),
    }
}

async fn create(shared: Arc<Shared>, mut request: CreateTopicsRequest) -> CreateTopicsResponse {
    let order: Vec<String> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    let mut times_named: BTreeMap<&str, usize> = BTreeMap::new();
    for name in &order {
        *times_named.entry(name).or_default() += 1;
    }
    let mut results: BTreeMap<String, CreatableTopicResult> = BTreeMap::new();
    let mut accepted = Vec::new();
    let mut room = PARTITIONS_MAX;
    for mut topic in std::mem::take(&mut request.topics) {
        let checked = match times_named.get(topic.name.as_str()) {
            Some(1) => check(&shared, &mut topic, &mut room),
            _ => Err((ErrorCode::InvalidRequest, "the topic is named twice".to_owned())),
        };
        match checked {
            Ok(()) => accepted.push(topic),
            Err((error_code, why)) => {
                let result = refused(&topic.name, error_code, why);
                results.insert(topic.name, result);
            }
        }
    }
    if !accepted.is_empty() {
        for result in act(&shared, &request, accepted).await {
            results.insert(result.name.clone(), result);
        }
    }
    let answer = |name: String| {
        results.get(&name).cloned().unwrap_or_else(|| {
            refused(&name, ErrorCode::UnknownServerError, "the controller did not say".to_owned())
        })
    };
    CreateTopicsResponse { topics: order.into_iter().map(answer).collect(), ..Default::default() }
}

/// Lets the controller create `topics` and waits until they show.
async fn act(
    shared: &Shared,
    request: &CreateTopicsRequest,
    topics: Vec<CreatableTopic>,
) -> Vec<CreatableTopicResult> {
    let overrides: BTreeMap<String, BTreeMap<String, String>> = topics
        .iter()
        .map(|topic| {
            let set = topic.configs.iter();
            let set = set.filter_map(|one| Some((one.name.clone(), one.value.clone()?)));
            (topic.name.clone(), set.collect())
        })
        .collect();
    let forwarded = CreateTopicsRequest { topics, ..request.clone() };
    let mut results = shared.cluster.create_topics(forwarded).await.topics;
    for result in results.iter_mut().filter(|result| result.error_code.is_none()) {
        let set = overrides.get(&result.name);
        show_settings(shared, result, set);
    }
    let created: Vec<&str> = results
        .iter()
        .filter(|result| result.error_code.is_none())
        .map(|result| result.name.as_str())
        .collect();
    if !request.validate_only && !created.is_empty() {
        let timeout_ms = u64::try_from(request.timeout_ms).unwrap_or(0);
        let timeout = Duration::from_millis(timeout_ms).min(WAIT_MAX);
        shared.image_where(timeout, |image| created.iter().all(|name| is_led(image, name))).await;
    }
    results
}

fn is_led(image: &Image, name: &str) -> bool {
    image.topic(name).is_some_and(|topic| {
        topic.node.partitions.keys().all(|partition| image.leader(name, *partition).is_some())
    })
}

fn show_settings(
    shared: &Shared,
    result: &mut CreatableTopicResult,
    overrides: Option<&BTreeMap<String, String>>,
) {
    let replicas = usize::try_from(result.replication_factor).unwrap_or(1);
    let set = |name: &str| overrides.and_then(|set| set.get(name)).map(String::as_str);
    let settings = topic::resolve_all(&shared.config.values, set, replicas);
    let settings = settings.into_iter().map(|one| CreatableTopicConfigs {
        name: one.setting.name.to_owned(),
        value: Some(one.value),
        read_only: false,
        config_source: one.source.code(),
        is_sensitive: false,
    });
    result.configs = Some(settings.collect());
}

type Refusal = (ErrorCode, String);

/// Checks one topic and fills in what was left to the broker.
fn check(shared: &Shared, topic: &mut CreatableTopic, room: &mut i32) -> Result<(), Refusal> {
    topic_name::check(&topic.name).map_err(|why| (ErrorCode::InvalidTopicException, why))?;
    for one in &topic.configs {
        let Some(value) = &one.value else {
            let why = format!("{} has no value", one.name);
            return Err((ErrorCode::InvalidConfig, why));
        };
        topic::check(&one.name, value)
            .map_err(|error| (ErrorCode::InvalidConfig, error.to_string()))?;
    }
    if topic.assignments.is_empty() {
        fill_numbers(shared, topic)?;
    } else if topic.num_partitions != DEFAULT || topic.replication_factor != -1 {
        let why = "an assignment excludes a number of partitions or replicas".to_owned();
        return Err((ErrorCode::InvalidRequest, why));
    }
    let assigned = i32::try_from(topic.assignments.len()).unwrap_or(i32::MAX);
    let partitions = topic.num_partitions.max(assigned);
    if partitions > *room {
        let why = format!("a request may create {PARTITIONS_MAX} partitions");
        return Err((ErrorCode::PolicyViolation, why));
    }
    *room -= partitions;
    Ok(())
}

fn fill_numbers(shared: &Shared, topic: &mut CreatableTopic) -> Result<(), Refusal> {
    if topic.num_partitions == DEFAULT {
        topic.num_partitions = shared.config.partitions_default;
    }
    if topic.num_partitions < 1 {
        let why = format!("{} partitions are less than 1", topic.num_partitions);
        return Err((ErrorCode::InvalidPartitions, why));
    }
    let brokers = shared.image().brokers().count();
    if topic.replication_factor == -1 {
        topic.replication_factor = shared.default_replication_factor();
    }
    let fits = usize::try_from(topic.replication_factor).is_ok_and(|n| (1..=brokers).contains(&n));
    if !fits {
        let why = format!(
            "{} replicas need as many brokers; there are {brokers}",
            topic.replication_factor
        );
        return Err((ErrorCode::InvalidReplicationFactor, why));
    }
    Ok(())
}

fn refused(name: &str, error_code: ErrorCode, why: String) -> CreatableTopicResult {
    CreatableTopicResult {
        name: name.to_owned(),
        error_code,
        error_message: Some(why),
        ..Default::default()
    }
}
