//! Connections against a broker that misbehaves on purpose.

use std::time::Duration;

use crate::fake::{Action, FakeBroker, Received, api_versions, hasty};
use client::protocol::messages::api_versions::ApiVersionRange;
use client::protocol::messages::describe_cluster::DescribeClusterResponse;
use client::protocol::messages::{
    ApiVersionsResponse, DescribeClusterRequest, FetchRequest, MetadataRequest,
};
use client::protocol::{ApiKey, CorrelationId, ErrorCode, encode_response};
use client::{ClientError, ClientOptions, Cluster, Connection};

fn cluster_named(id: &str) -> DescribeClusterResponse {
    DescribeClusterResponse { cluster_id: id.to_owned(), ..DescribeClusterResponse::default() }
}

/// Answers DescribeCluster as `action` says.
async fn broker_that(
    mut action: impl FnMut(&Received) -> Action + Send + 'static,
) -> (FakeBroker, Connection) {
    let script = move |received: &Received| {
        (received.header.key == ApiKey::DescribeCluster).then(|| action(received))
    };
    let broker = FakeBroker::start(1, script).await;
    let connection = Connection::open(&broker.address, &hasty()).await.unwrap();
    (broker, connection)
}

#[tokio::test]
async fn pipelined_calls_get_their_own_answers() {
    let mut count = 0;
    let (_broker, connection) = broker_that(move |received| {
        count += 1;
        match (received.answer(&cluster_named(&count.to_string())), count) {
            // The first two wait for the third, so all three are in flight at once.
            (Action::Send(bytes), 1 | 2) => Action::Hold(bytes),
            (action, _) => action,
        }
    })
    .await;
    let request = DescribeClusterRequest::default();
    let answers = tokio::join!(
        connection.call(&request),
        connection.call(&request),
        connection.call(&request)
    );
    let ids = [answers.0, answers.1, answers.2].map(|answer| answer.unwrap().cluster_id);
    assert_eq!(ids, ["1", "2", "3"]);
    connection.close().await;
}

#[tokio::test]
async fn a_hang_up_ends_all_waiting_calls_with_the_reason() {
    let mut count = 0;
    let (_broker, connection) = broker_that(move |_| {
        count += 1;
        if count == 2 { Action::HangUp } else { Action::Silence }
    })
    .await;
    let request = DescribeClusterRequest::default();
    let (first, second) = tokio::join!(connection.call(&request), connection.call(&request));
    for result in [first, second] {
        let error = result.unwrap_err();
        assert!(error.is_retriable());
        assert!(matches!(error, ClientError::Closed { reason, .. } if reason.contains("hung up")));
    }
    let error = connection.call(&request).await.unwrap_err();
    assert!(matches!(error, ClientError::Closed { .. }), "{error}");
    assert!(connection.is_closed());
}

#[tokio::test]
async fn a_late_answer_is_a_time_out() {
    let (broker, _) = broker_that(|_| Action::Silence).await;
    let options = ClientOptions { request_timeout: Duration::from_millis(200), ..hasty() };
    let connection = Connection::open(&broker.address, &options).await.unwrap();
    let error = connection.call(&DescribeClusterRequest::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn an_answer_out_of_order_ends_the_connection() {
    let (_broker, connection) = broker_that(|received| {
        let wrong = CorrelationId::new(received.header.correlation_id.get() + 1);
        let answer = encode_response(wrong, received.header.version, &cluster_named("x"));
        Action::Send(answer.unwrap().bytes)
    })
    .await;
    let error = connection.call(&DescribeClusterRequest::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::Closed { reason, .. } if reason.contains("out of order")));
}

#[tokio::test]
async fn a_response_above_the_limit_ends_the_connection() {
    let (_broker, connection) =
        broker_that(|_| Action::Send(bytes::Bytes::copy_from_slice(&i32::MAX.to_be_bytes()))).await;
    let error = connection.call(&DescribeClusterRequest::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::Closed { reason, .. } if reason.contains("2147483647")));
}

#[tokio::test]
async fn a_broker_that_knows_older_versions_is_asked_again() {
    let broker = FakeBroker::start(1, |received| {
        let only = |max_version| ApiVersionsResponse {
            error_code: ErrorCode::UnsupportedVersion,
            api_keys: vec![ApiVersionRange { api_key: 18, min_version: 0, max_version }],
            ..ApiVersionsResponse::default()
        };
        match (received.header.key, received.header.version) {
            (ApiKey::ApiVersions, 3..) => {
                let answer = encode_response(received.header.correlation_id, 0, &only(2));
                Some(Action::Send(answer.unwrap().bytes))
            }
            (ApiKey::ApiVersions, _) => {
                let mut versions = api_versions();
                versions.api_keys.retain(|range| range.api_key != ApiKey::DescribeCluster.code());
                for range in &mut versions.api_keys {
                    range.max_version = range.max_version.min(4);
                }
                Some(received.answer(&versions))
            }
            _ => None,
        }
    })
    .await;
    let connection = Connection::open(&broker.address, &hasty()).await.unwrap();
    let asked: Vec<_> =
        broker.received(ApiKey::ApiVersions).iter().map(|r| r.header.version).collect();
    assert_eq!(asked, [4, 2]);
    assert_eq!(connection.version_of(ApiKey::Fetch).unwrap(), 4);
    let metadata = connection.call(&MetadataRequest::default()).await.unwrap();
    assert_eq!(metadata.brokers.len(), 1);
    let error = connection.call(&DescribeClusterRequest::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::Unsupported { api: "DescribeCluster", .. }), "{error}");
}

#[tokio::test]
async fn followers_fetch_versions_are_never_spoken() {
    let broker = FakeBroker::start(1, |received| match received.header.key {
        ApiKey::ApiVersions => {
            let mut versions = api_versions();
            for range in &mut versions.api_keys {
                range.max_version = i16::MAX;
            }
            Some(received.answer(&versions))
        }
        ApiKey::Fetch => Some(Action::HangUp),
        _ => None,
    })
    .await;
    let connection = Connection::open(&broker.address, &hasty()).await.unwrap();
    connection.call(&FetchRequest::default()).await.unwrap_err();
    assert_eq!(broker.received(ApiKey::Fetch)[0].header.version, 12);
}

#[tokio::test]
async fn the_next_bootstrap_server_is_asked_when_one_is_gone() {
    let broker = FakeBroker::start(3, |_| None).await;
    let gone = "127.0.0.1:1".to_owned();
    let mut cluster =
        Cluster::connect(&[gone.clone(), broker.address.clone()], hasty()).await.unwrap();
    assert_eq!(cluster.refresh_topic("t").await.unwrap().partitions.len(), 3);
    let error = Cluster::connect(&[gone], hasty()).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");
    let error = Cluster::connect(&[], hasty()).await.unwrap_err();
    assert!(matches!(error, ClientError::NoBootstrap), "{error}");
}

#[tokio::test]
async fn a_silent_bootstrap_server_does_not_hold_up_the_next() {
    let broker = FakeBroker::start(3, |_| None).await;
    // Its socket takes connections and nobody ever answers, as with a stopped process.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_address = silent.local_addr().unwrap().to_string();
    let patient = ClientOptions { connect_timeout: Duration::from_secs(3_600), ..hasty() };
    let servers = [silent_address, broker.address.clone()];
    let cluster = Cluster::connect(&servers, patient).await.unwrap();
    assert_eq!(cluster.brokers().count(), 1);
}
