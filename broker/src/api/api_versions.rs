//! ApiVersions (key 18, versions 0-4): what this listener offers.
//!
//! Answers before anything else is known of a client. No features are named: every client then
//! keeps to what it did before features existed. A version that is not spoken is answered in
//! version 0 with this API's own range (KIP-511).

use client_protocol::api::{API_TABLE, Scope};
use client_protocol::messages::api_versions::ApiVersionRange;
use client_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use client_protocol::{ApiKey, CorrelationId, ErrorCode, encode_response};

use super::call::Call;
use crate::response::Dispatch;

/// First version in which a client names its software.
const NAMED_FROM: i16 = 3;

pub(super) fn handle(call: &Call<'_>, request: &ApiVersionsRequest) -> Dispatch {
    let named = call.version < NAMED_FROM
        || is_software_name(&request.client_software_name)
            && is_software_name(&request.client_software_version);
    let error_code = if named { ErrorCode::None } else { ErrorCode::InvalidRequest };
    let api_keys = if named { offered(call.session.scope) } else { Vec::new() };
    call.respond(&ApiVersionsResponse { error_code, api_keys, ..Default::default() })
}

/// The answer to a version that is not spoken.
pub(super) fn unsupported(correlation_id: CorrelationId) -> Dispatch {
    let response = ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion,
        api_keys: range(ApiKey::ApiVersions, Scope::Public).into_iter().collect(),
        ..Default::default()
    };
    match encode_response(correlation_id, 0, &response) {
        Ok(frame) => Dispatch::respond(frame.bytes),
        Err(_) => Dispatch::close("ApiVersions cannot be encoded"),
    }
}

fn offered(scope: Scope) -> Vec<ApiVersionRange> {
    API_TABLE.iter().filter_map(|entry| range(entry.key, scope)).collect()
}

fn range(key: ApiKey, scope: Scope) -> Option<ApiVersionRange> {
    let versions = key.advertised(scope)?;
    Some(ApiVersionRange {
        api_key: key.code(),
        min_version: *versions.start(),
        max_version: *versions.end(),
    })
}

/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`
fn is_software_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let ends = [text.bytes().next(), text.bytes().next_back()];
    ends.iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
        && text.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_hear_the_lie_about_produce_and_nothing_of_brokers_apis() {
        let public = offered(Scope::Public);
        let produce = public.iter().find(|range| range.api_key == 0).expect("Produce");
        assert_eq!((produce.min_version, produce.max_version), (0, 11));
        for key in [7, 56, 10_000] {
            assert!(public.iter().all(|range| range.api_key != key), "{key}");
        }
        assert!(offered(Scope::InterBroker).iter().any(|range| range.api_key == 56));
    }

    #[test]
    fn software_names_are_checked_as_kafka_does() {
        for (name, valid) in [
            ("librdkafka", true),
            ("apache-kafka.java", true),
            ("a", true),
            ("", false),
            ("-a", false),
            ("a-", false),
            ("a b", false),
            ("a\n", false),
        ] {
            assert_eq!(is_software_name(name), valid, "{name:?}");
        }
    }
}
