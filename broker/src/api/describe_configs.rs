//! DescribeConfigs (key 32, versions 1-4): settings of topics and of this broker.
//!
//! 1: synonyms and sources; 3: types and documentation. A broker's settings can be asked of that
//! broker only; nothing is set for all brokers at once yet, so the empty broker name has no
//! settings. No setting is secret yet.

use client_protocol::ErrorCode;
use client_protocol::messages::describe_configs::{
    DescribeConfigsEntry, DescribeConfigsResource, DescribeConfigsResult, DescribeConfigsSynonym,
    RESOURCE_BROKER, RESOURCE_TOPIC, SOURCE_DEFAULT, SOURCE_STATIC_BROKER, SOURCE_TOPIC,
};
use client_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::call::Call;
use super::shared::Shared;
use super::topic_name;
use crate::config::table::{self, Kind, SETTINGS};
use crate::config::topic::{self, Resolved, Source};
use crate::response::Dispatch;

/// Resources described in one request; each takes some kilobytes of answer.
const RESOURCES_MAX: usize = 2_000;

/// What the client wants to know of each setting.
#[derive(Clone, Copy)]
struct Detail {
    synonyms: bool,
    documentation: bool,
}

pub(super) fn handle(
    shared: &Shared,
    call: &Call<'_>,
    request: &DescribeConfigsRequest,
) -> Dispatch {
    let detail =
        Detail { synonyms: request.include_synonyms, documentation: request.include_documentation };
    let results = request.resources.iter().enumerate().map(|(place, resource)| {
        let described = match resource.resource_type {
            _ if place >= RESOURCES_MAX => {
                Err((ErrorCode::InvalidRequest, format!("at most {RESOURCES_MAX} resources")))
            }
            RESOURCE_TOPIC => describe_topic(shared, resource, detail),
            RESOURCE_BROKER => describe_broker(shared, resource, detail),
            other => Err((ErrorCode::InvalidRequest, format!("no resource has type {other} here"))),
        };
        let (error_code, error_message, configs) = match described {
            Ok(configs) => (ErrorCode::None, None, configs),
            Err((code, message)) => (code, Some(message), Vec::new()),
        };
        DescribeConfigsResult {
            error_code,
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            configs,
        }
    });
    let results = results.collect();
    call.respond(&DescribeConfigsResponse { throttle_time_ms: 0, results })
}

type Described = Result<Vec<DescribeConfigsEntry>, (ErrorCode, String)>;

fn describe_topic(
    shared: &Shared,
    resource: &DescribeConfigsResource,
    detail: Detail,
) -> Described {
    let name = resource.resource_name.as_str();
    topic_name::check(name).map_err(|why| (ErrorCode::InvalidTopicException, why))?;
    let image = shared.image();
    let Some(found) = image.topic(name) else {
        let code = ErrorCode::UnknownTopicOrPartition;
        return Err((code, code.message().to_owned()));
    };
    let overrides = image.topic_config(name);
    let replicas = found.node.partitions.values().next().map_or(1, Vec::len);
    let values = &shared.config.values;
    let all = topic::resolve_all(values, |name| overrides.get(name).map(String::as_str), replicas);
    let inherited = topic::resolve_all(values, |_| None, replicas);
    let entries =
        all.into_iter().zip(inherited).filter(|(one, _)| is_wanted(resource, one.setting.name));
    Ok(entries.map(|(one, inherited)| topic_entry(&one, &inherited, detail)).collect())
}

fn topic_entry(one: &Resolved, inherited: &Resolved, detail: Detail) -> DescribeConfigsEntry {
    let documented = table::find(one.setting.broker);
    let mut synonyms = Vec::new();
    if detail.synonyms {
        if one.source == Source::Topic {
            synonyms.push(synonym(one.setting.name, &one.value, SOURCE_TOPIC));
        }
        let source = inherited.source.code();
        synonyms.push(synonym(one.setting.broker, &inherited.value, source));
        let default = documented.map_or("", |setting| setting.default);
        if inherited.source == Source::Broker && !default.is_empty() {
            synonyms.push(synonym(one.setting.broker, default, SOURCE_DEFAULT));
        }
    }
    DescribeConfigsEntry {
        name: one.setting.name.to_owned(),
        value: Some(one.value.clone()),
        read_only: false,
        config_source: one.source.code(),
        is_sensitive: false,
        synonyms,
        config_type: type_code(topic::kind(one.setting)),
        documentation: documented
            .filter(|_| detail.documentation)
            .map(|setting| setting.doc.to_owned()),
    }
}

fn describe_broker(
    shared: &Shared,
    resource: &DescribeConfigsResource,
    detail: Detail,
) -> Described {
    if resource.resource_name.is_empty() {
        return Ok(Vec::new());
    }
    if resource.resource_name != shared.broker_id.to_string() {
        let why = format!("this is broker {}, not {}", shared.broker_id, resource.resource_name);
        return Err((ErrorCode::InvalidRequest, why));
    }
    let values = &shared.config.values;
    let wanted = SETTINGS.iter().filter(|setting| is_wanted(resource, setting.name));
    let entries = wanted.map(|setting| {
        let value = values.text(setting.name);
        let given = values.given(setting.name).is_some();
        let source = if given { SOURCE_STATIC_BROKER } else { SOURCE_DEFAULT };
        let mut synonyms = Vec::new();
        if detail.synonyms {
            synonyms.push(synonym(setting.name, value, source));
            if given {
                synonyms.push(synonym(setting.name, setting.default, SOURCE_DEFAULT));
            }
        }
        DescribeConfigsEntry {
            name: setting.name.to_owned(),
            value: (!value.is_empty()).then(|| value.to_owned()),
            read_only: true,
            config_source: source,
            is_sensitive: false,
            synonyms,
            config_type: type_code(setting.kind),
            documentation: detail.documentation.then(|| setting.doc.to_owned()),
        }
    });
    Ok(entries.collect())
}

fn is_wanted(resource: &DescribeConfigsResource, name: &str) -> bool {
    resource.configuration_keys.as_ref().is_none_or(|keys| keys.iter().any(|key| key == name))
}

fn synonym(name: &str, value: &str, source: i8) -> DescribeConfigsSynonym {
    let value = (!value.is_empty()).then(|| value.to_owned());
    DescribeConfigsSynonym { name: name.to_owned(), value, source }
}

/// Kafka's number for the kind.
fn type_code(kind: Kind) -> i8 {
    match kind {
        Kind::Boolean => 1,
        Kind::Text | Kind::Choice(_) => 2,
        Kind::Int(_) | Kind::Derived => 3,
        Kind::Long(_) => 5,
        Kind::Ratio => 6,
        Kind::List | Kind::Choices(_) => 7,
    }
}
