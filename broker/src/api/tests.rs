//! The APIs of one broker with real logs, from request frames to response frames.

mod groups;
mod metrics;

use std::path::Path;
use std::sync::Arc;

use broker_core::ids::TopicPartition;
use broker_core::partition::AlterRequest;
use bytes::{Bytes, BytesMut};
use client_protocol::api::Scope;
use client_protocol::messages::fetch::{FetchPartition, FetchTopic};
use client_protocol::messages::list_offsets::{
    LATEST_TIMESTAMP, ListOffsetsPartition, ListOffsetsTopic,
};
use client_protocol::messages::metadata::MetadataRequestTopic;
use client_protocol::messages::produce::{ProducePartition, ProduceTopic};
use client_protocol::messages::{
    AlterPartitionRequest, ApiVersionsRequest, ApiVersionsResponse, DescribeConfigsRequest,
    FetchRequest, FetchResponse, FindCoordinatorRequest, InitProducerIdRequest, ListOffsetsRequest,
    Message, MetadataRequest, ProduceRequest, Request,
};
use client_protocol::records::{BatchBuilder, Record};
use client_protocol::{
    BrokerId, CorrelationId, ErrorCode, LeaderEpoch, Offset, PartitionId, Reader, Records,
    decode_response_header, encode_request,
};
use coordinator_disk::{Disk, RealDisk};
use tokio::sync::watch;

use super::call::Session;
use super::dispatch::Api;
use super::local_cluster::{BROKER, LocalCluster};
use super::shared::{Reach, Shared};
use crate::config::Config;
use crate::config::values::Values;
use crate::groups::Groups;
use crate::partitions::{Outlet, Partitions};
use crate::response::{Answer, Dispatch, Piece};

/// One partition that leads alone wants nothing of others.
struct Alone;

impl Outlet for Alone {
    fn fetch_from(&self, _: TopicPartition, _: BrokerId, _: LeaderEpoch) {}
    fn stop_fetching(&self, _: TopicPartition) {}
    fn report_progress(&self, _: TopicPartition) {}
    fn alter(&self, _: AlterRequest) {}
    fn directory_failed(&self, path: &Path, reason: &str) {
        panic!("{}: {reason}", path.display());
    }
}

struct Bench {
    api: Api,
    session: Session,
    partitions: Arc<Partitions>,
    shared: Arc<Shared>,
    cluster: Arc<LocalCluster>,
    _stop: watch::Sender<bool>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(scope: Scope) -> Self {
        let folder = tempfile::tempdir().expect("writable");
        let mut values = Values::default();
        let data = folder.path().to_str().expect("UTF-8");
        values.set("data.dir", data).expect("known");
        let config = Config::from_values(&values).expect("consistent");
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let partitions = Partitions::open(config.partitions, BROKER, &disk, Arc::new(Alone));
        let partitions = partitions.expect("an empty folder");
        let cluster = LocalCluster::new(Arc::clone(&partitions), 9092);
        let groups =
            Groups::new(BROKER, config.groups.shard, Arc::clone(&partitions), cluster.images());
        let (stop, stopping) = watch::channel(false);
        // Ends with the bench, which holds the sender.
        tokio::spawn(Arc::clone(&groups).run(stopping));
        let reach = Reach {
            image: cluster.images(),
            partitions: Arc::clone(&partitions),
            groups,
            cluster: Arc::clone(&cluster) as _,
            contacts: Arc::default(),
            traffic: Arc::default(),
        };
        let shared = Arc::new(Shared::new(BROKER, config.api, reach));
        let api = Api::new(scope, Arc::clone(&shared));
        let address = ([127, 0, 0, 1], 9092).into();
        let session = api.open(address, address);
        Self { api, session, partitions, shared, cluster, _stop: stop, _folder: folder }
    }

    async fn send<R: Request>(&mut self, version: i16, request: &R) -> Answer {
        let frame = encode_request(CorrelationId::new(7), Some("test"), version, request);
        let frame = BytesMut::from(&frame.expect("fits").bytes[4..]);
        match self.api.dispatch(&mut self.session, frame) {
            Dispatch::Now(answer) => answer,
            Dispatch::Later(answer) => answer.await,
        }
    }

    async fn ask<R: Request>(&mut self, version: i16, request: &R) -> (R::Response, BytesMut) {
        let answer = self.send(version, request).await;
        let Answer::Respond(response) = answer else { panic!("no response") };
        let mut frame = BytesMut::new();
        for piece in response.into_pieces() {
            match piece {
                Piece::Bytes(bytes) => frame.extend_from_slice(&bytes),
                Piece::File { file, position, length } => {
                    let mut bytes = vec![0; length];
                    file.read_exact_at(position, &mut bytes).expect("the range is there");
                    frame.extend_from_slice(&bytes);
                }
            }
        }
        let length = u32::from_be_bytes(*frame.first_chunk().expect("a length")) as usize;
        let frame = frame.split_off(4);
        assert_eq!(frame.len(), length, "the length in front");
        let mut reader = Reader::new(&frame);
        let id = decode_response_header(&mut reader, R::KEY, version).expect("a header");
        assert_eq!(id, CorrelationId::new(7));
        let body = R::Response::decode(&mut reader, version).expect("a body");
        reader.finish().expect("nothing behind the body");
        (body, frame)
    }

    /// Creates a topic by asking for it.
    async fn create(&mut self, name: &str) {
        let topic = MetadataRequestTopic { name: Some(name.to_owned()), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
        let begun = std::time::Instant::now();
        while begun.elapsed().as_secs() < 60 {
            let (response, _) = self.ask(12, &request).await;
            if response.topics[0].error_code.is_none() {
                // The log is opened by its own thread.
                let latest = latest_of(name);
                if self.ask(7, &latest).await.0.topics[0].partitions[0].error_code.is_none() {
                    return;
                }
            }
            tokio::task::yield_now().await;
        }
        panic!("{name} does not come");
    }
}

fn latest_of(name: &str) -> ListOffsetsRequest {
    let partition = ListOffsetsPartition { timestamp: LATEST_TIMESTAMP, ..Default::default() };
    let topic = ListOffsetsTopic { name: name.to_owned(), partitions: vec![partition] };
    ListOffsetsRequest { topics: vec![topic], ..Default::default() }
}

fn batch(values: &[&'static str]) -> Bytes {
    let mut batch = BatchBuilder::new(1 << 16);
    for value in values {
        let value = Some(Bytes::from_static(value.as_bytes()));
        assert!(batch.push(&Record { timestamp_ms: 1, value, ..Default::default() }));
    }
    batch.build(None).expect("not empty")
}

fn produce(acks: i16, name: &str, batches: &[Option<Bytes>]) -> ProduceRequest {
    let partition = |records: &Option<Bytes>| ProducePartition {
        index: PartitionId::new(0),
        records: records.clone().map(Records::Inline),
    };
    let partitions = batches.iter().map(partition).collect();
    let topics = vec![ProduceTopic { name: name.to_owned(), partitions }];
    ProduceRequest { acks, timeout_ms: 60_000, topics, ..Default::default() }
}

fn fetch(name: &str, offset: i64) -> FetchRequest {
    let partition = FetchPartition {
        fetch_offset: Offset::new(offset),
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let topic =
        FetchTopic { topic: name.to_owned(), partitions: vec![partition], ..Default::default() };
    FetchRequest { max_wait_ms: 2_000, min_bytes: 1, topics: vec![topic], ..Default::default() }
}

fn records<'a>(response: &FetchResponse, frame: &'a [u8]) -> &'a [u8] {
    let records = response.responses[0].partitions[0].records.as_ref().expect("records");
    records.in_frame().expect("decoded").of(frame).expect("inside")
}

#[tokio::test]
async fn metadata_shows_who_answers_while_no_broker_is_registered() {
    let mut bench = Bench::new(Scope::Public);
    bench.create("orders").await;
    let all = MetadataRequest { topics: None, ..Default::default() };
    let (before, _) = bench.ask(12, &all).await;
    assert_eq!(before.brokers.len(), 1);
    bench.cluster.lose_broker();
    let (answer, _) = bench.ask(12, &all).await;
    assert_eq!(answer.brokers, before.brokers);
    assert_eq!(answer.topics[0].partitions[0].error_code, ErrorCode::LeaderNotAvailable);
}

#[tokio::test]
async fn what_is_produced_is_fetched_with_its_offsets() {
    let mut bench = Bench::new(Scope::Public);
    bench.create("t").await;
    for (acks, base) in [(1, 0), (-1, 4)] {
        let batches = [Some(batch(&["a", "b"])), Some(batch(&["c", "d"]))];
        let (response, _) = bench.ask(11, &produce(acks, "t", &batches)).await;
        let partitions = &response.topics[0].partitions;
        assert_eq!(partitions[0].base_offset, Some(Offset::new(base)));
        assert_eq!(partitions[1].base_offset, Some(Offset::new(base + 2)));
    }
    let (response, frame) = bench.ask(12, &fetch("t", 0)).await;
    let partition = &response.responses[0].partitions[0];
    assert_eq!(partition.error_code, ErrorCode::None);
    assert_eq!(partition.high_watermark, Some(Offset::new(8)));
    assert_eq!(records(&response, &frame).len(), 4 * batch(&["a", "b"]).len());
    bench.partitions.stop();
}

#[tokio::test]
async fn parked_fetch_is_answered_by_a_produce() {
    let mut bench = Bench::new(Scope::Public);
    bench.create("t").await;
    let request = fetch("t", 0);
    let frame = encode_request(CorrelationId::new(1), None, 12, &request).expect("fits");
    let frame = BytesMut::from(&frame.bytes[4..]);
    let Dispatch::Later(fetched) = bench.api.dispatch(&mut bench.session, frame) else {
        panic!("answered at once")
    };
    let produced = async { bench.ask(9, &produce(-1, "t", &[Some(batch(&["a"]))])).await };
    let (answer, _) = tokio::join!(fetched, produced);
    let Answer::Respond(response) = answer else { panic!("no response") };
    let length: usize = response.into_pieces().iter().map(Piece::length).sum();
    assert!(length > batch(&["a"]).len());
    bench.partitions.stop();
}

#[tokio::test]
async fn errors_are_told_per_partition() {
    let mut bench = Bench::new(Scope::Public);
    bench.create("t").await;
    let mut damaged = batch(&["a"]).to_vec();
    *damaged.last_mut().expect("bytes") ^= 1;
    for (request, expected) in [
        (produce(1, "t", &[Some(Bytes::from(damaged))]), ErrorCode::CorruptMessage),
        (produce(1, "t", &[None]), ErrorCode::InvalidRecord),
        (produce(2, "t", &[Some(batch(&["a"]))]), ErrorCode::InvalidRequiredAcks),
        (produce(1, "no", &[Some(batch(&["a"]))]), ErrorCode::UnknownTopicOrPartition),
        (
            produce(1, "__consumer_offsets", &[Some(batch(&["a"]))]),
            ErrorCode::InvalidTopicException,
        ),
    ] {
        let (response, _) = bench.ask(9, &request).await;
        assert_eq!(response.topics[0].partitions[0].error_code, expected);
        // Without an answer there is only one way to tell.
        let silent = ProduceRequest { acks: 0, ..request };
        if expected != ErrorCode::InvalidRequiredAcks {
            assert!(matches!(bench.send(9, &silent).await, Answer::Close(_)), "{expected}");
        }
    }
    let good = produce(0, "t", &[Some(batch(&["a"]))]);
    assert!(matches!(bench.send(9, &good).await, Answer::Nothing));
    let (response, _) = bench.ask(12, &fetch("t", 100)).await;
    assert_eq!(response.responses[0].partitions[0].error_code, ErrorCode::OffsetOutOfRange);
    bench.partitions.stop();
}

#[tokio::test]
async fn clients_cannot_pass_for_brokers() {
    let mut bench = Bench::new(Scope::Public);
    bench.create("t").await;
    let forged = FetchRequest { replica_id: Some(BrokerId::new(2)), ..fetch("t", 0) };
    let (response, _) = bench.ask(12, &forged).await;
    assert_eq!(response.error_code, ErrorCode::ClusterAuthorizationFailed);
    let (response, _) = bench.ask(5, &forged).await;
    let error = response.responses[0].partitions[0].error_code;
    assert_eq!(error, ErrorCode::ClusterAuthorizationFailed);
    let private = AlterPartitionRequest::default();
    assert!(matches!(bench.send(3, &private).await, Answer::Close(_)));
    bench.partitions.stop();
}

#[tokio::test]
async fn sessions_leave_out_what_is_known() {
    let mut bench = Bench::new(Scope::Public);
    bench.create("t").await;
    let made = FetchRequest { session_epoch: 0, ..fetch("t", 0) };
    let (response, _) = bench.ask(12, &made).await;
    let session_id = response.session_id;
    assert!(session_id > 0);
    assert_eq!(response.responses[0].partitions[0].high_watermark, Some(Offset::new(0)));
    let next = |session_epoch| FetchRequest {
        session_id,
        session_epoch,
        topics: Vec::new(),
        max_wait_ms: 1,
        ..fetch("t", 0)
    };
    let (response, _) = bench.ask(12, &next(1)).await;
    assert_eq!((response.session_id, response.responses), (session_id, vec![]));
    let (response, _) = bench.ask(12, &next(1)).await;
    assert_eq!(response.error_code, ErrorCode::InvalidFetchSessionEpoch);
    bench.ask(11, &produce(-1, "t", &[Some(batch(&["a"]))])).await;
    let (response, _) = bench.ask(12, &next(2)).await;
    assert_eq!(response.responses[0].partitions[0].high_watermark, Some(Offset::new(1)));
    assert!(matches!(response.responses[0].partitions[0].records, Some(Records::InFrame(_))));
    let (response, _) = bench.ask(12, &next(-1)).await;
    assert_eq!((response.session_id, response.responses), (0, vec![]));
    let (response, _) = bench.ask(12, &next(3)).await;
    assert_eq!(response.error_code, ErrorCode::FetchSessionIdNotFound);
    bench.partitions.stop();
}

#[tokio::test]
async fn unknown_sessions_are_refused_and_waits_are_bounded() {
    let mut bench = Bench::new(Scope::Public);
    bench.create("t").await;
    let session = FetchRequest { session_id: 5, session_epoch: 3, ..fetch("t", 0) };
    let (response, _) = bench.ask(12, &session).await;
    assert_eq!(response.error_code, ErrorCode::FetchSessionIdNotFound);
    let hasty = FetchRequest {
        max_wait_ms: i32::MIN,
        min_bytes: i32::MAX,
        max_bytes: i32::MAX,
        ..fetch("t", 0)
    };
    let (response, _) = bench.ask(12, &hasty).await;
    assert_eq!(response.session_id, 0);
    bench.partitions.stop();
}

#[tokio::test]
async fn unknown_version_is_answered_for_api_versions_only() {
    let mut bench = Bench::new(Scope::Public);
    let request = ApiVersionsRequest {
        client_software_name: "test".to_owned(),
        client_software_version: "1".to_owned(),
    };
    let (response, _) = bench.ask(4, &request).await;
    assert!(response.error_code.is_none() && response.api_keys.len() > 10);
    let mut unknown = BytesMut::from(&[0, 18, 0, 99, 0, 0, 0, 7, 0, 0][..]);
    let answer = bench.api.dispatch(&mut bench.session, unknown.split());
    let Dispatch::Now(Answer::Respond(response)) = answer else { panic!("no response") };
    let pieces = response.into_pieces();
    let Some(Piece::Bytes(frame)) = pieces.first() else { panic!("no bytes") };
    let mut reader = Reader::new(&frame[8..]);
    let body = ApiVersionsResponse::decode(&mut reader, 0).expect("version 0");
    assert_eq!(body.error_code, ErrorCode::UnsupportedVersion);
    assert_eq!(body.api_keys.len(), 1);
    for header in [&[0u8, 3, 0, 99, 0, 0, 0, 7, 0, 0][..], &[0x7f, 0, 0, 0, 0, 0, 0, 7], &[0]] {
        let answer = bench.api.dispatch(&mut bench.session, BytesMut::from(header));
        assert!(matches!(answer, Dispatch::Now(Answer::Close(_))), "{header:?}");
    }
    bench.partitions.stop();
}

#[tokio::test]
async fn transactions_are_refused_and_identities_are_unique() {
    let mut bench = Bench::new(Scope::Public);
    let transactional =
        InitProducerIdRequest { transactional_id: Some("x".to_owned()), ..Default::default() };
    let (response, _) = bench.ask(4, &transactional).await;
    assert_eq!(response.error_code, ErrorCode::TransactionalIdAuthorizationFailed);
    let idempotent = InitProducerIdRequest::default();
    let (first, _) = bench.ask(4, &idempotent).await;
    let (second, _) = bench.ask(0, &idempotent).await;
    assert!(first.producer_id.is_some() && first.producer_id != second.producer_id);
    let (response, _) = bench.ask(4, &DescribeConfigsRequest::default()).await;
    assert!(response.results.is_empty());
    bench.partitions.stop();
}

/// Requests of real clients, as they were sent to Kafka.
const RECORDED: &str = include_str!("../../../client/protocol/tests/golden/kafka.jsonl");

fn recorded_requests() -> impl Iterator<Item = Vec<u8>> {
    RECORDED.lines().map(|line| {
        let exchange: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let hex = exchange["request"].as_str().expect("a request");
        let digits = hex.as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16);
        digits.map(|pair| byte(pair).expect("hex")).collect()
    })
}

#[tokio::test]
async fn damaged_requests_never_panic() {
    for scope in [Scope::Public, Scope::InterBroker] {
        let mut bench = Bench::new(scope);
        for request in recorded_requests() {
            let cuts = (0..request.len()).step_by(1 + request.len() / 64);
            for cut in cuts.chain([request.len()]) {
                // What is asked for properly may wait: it is given up here.
                drop(bench.api.dispatch(&mut bench.session, BytesMut::from(&request[..cut])));
            }
            for at in (0..request.len()).step_by(1 + request.len() / 64) {
                for bits in [0x80, 0x7f, 0xff] {
                    let mut damaged = BytesMut::from(&request[..]);
                    damaged[at] ^= bits;
                    drop(bench.api.dispatch(&mut bench.session, damaged));
                }
            }
        }
        bench.partitions.stop();
    }
}
