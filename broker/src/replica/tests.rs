//! Two brokers in one process: real logs, a real inter-broker listener, metadata written by the test.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use broker_core::ids::{ControllerEpoch, TopicPartition, Zxid};
use broker_core::image::{
    BrokerRegistration, Endpoint, FeedEvent, Image, ImageFeed, Item, ItemKind, PartitionState,
    Stat, TopicNode,
};
use broker_core::partition::AlterRequest;
use bytes::{Bytes, BytesMut};
use client_protocol::api::Scope;
use client_protocol::messages::fetch::{FetchPartitionResponse, FetchTopicResponse};
use client_protocol::messages::{FetchRequest, FetchResponse, Message};
use client_protocol::records::{BatchBuilder, Record};
use client_protocol::{
    BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionId, Reader, TopicId, decode_request_header,
    encode_response,
};
use coordinator_disk::{Disk, RealDisk};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::Fetchers;
use super::exchange::FETCH_VERSION;
use crate::api::local_cluster::LocalCluster;
use crate::api::{Api, Reach, Shared};
use crate::config::Config;
use crate::config::values::Values;
use crate::groups::Groups;
use crate::net::listener::Listener;
use crate::partitions::{
    Outlet, Partitions, ProduceBatch, ProduceOutcome, ProduceRequest, ReplicaStatus,
};

const TOPIC: &str = "t";
const PARTITION: TopicPartition =
    TopicPartition { topic: TopicId::from_bytes([7; 16]), partition: PartitionId::new(0) };

/// What one broker's partitions want: fetchers that can be set later.
#[derive(Default)]
struct ToFetchers(OnceLock<Fetchers>);

impl ToFetchers {
    fn fetchers(&self) -> &Fetchers {
        self.0.get().expect("set before anything is followed")
    }
}

impl Outlet for ToFetchers {
    fn fetch_from(&self, partition: TopicPartition, leader: BrokerId, _: LeaderEpoch) {
        self.fetchers().fetch_from(partition, leader);
    }
    fn stop_fetching(&self, partition: TopicPartition) {
        self.fetchers().stop_fetching(partition);
    }
    fn report_progress(&self, partition: TopicPartition) {
        self.fetchers().report_progress(partition);
    }
    fn alter(&self, _: AlterRequest) {}
    fn directory_failed(&self, path: &Path, reason: &str) {
        panic!("{}: {reason}", path.display());
    }
}

struct Broker {
    id: BrokerId,
    partitions: Arc<Partitions>,
    outlet: Arc<ToFetchers>,
    port: u16,
    serving: Option<(watch::Sender<bool>, JoinHandle<()>)>,
    _folder: tempfile::TempDir,
}

/// Both brokers and the metadata that they hear of.
struct Pair {
    brokers: Vec<Broker>,
    feed: Mutex<(ImageFeed, i64)>,
    images: watch::Sender<Arc<Image>>,
}

impl Pair {
    async fn start() -> Self {
        let images = watch::Sender::new(Arc::new(Image::default()));
        let mut brokers = Vec::new();
        for id in [1, 2] {
            brokers.push(Broker::start(BrokerId::new(id), &images).await);
        }
        let pair = Self { brokers, feed: Mutex::new((ImageFeed::default(), 0)), images };
        {
            let mut feed = pair.feed.lock().expect("unpoisoned");
            feed.0.apply(FeedEvent::SnapshotBegin { zxid: Zxid::new(0) });
            feed.0.apply(FeedEvent::SnapshotEnd { zxid: Zxid::new(0) });
        }
        for (broker, id) in pair.brokers.iter().zip([1, 2]) {
            pair.write(&[(format!("/brokers/ids/{id}"), registration(broker.port))]);
        }
        for (broker, id) in pair.brokers.iter().zip([1, 2]) {
            broker.partitions.begin(Zxid::new(id), &pair.images.borrow());
        }
        let replicas = vec![BrokerId::new(1), BrokerId::new(2)];
        let partitions = [(PARTITION.partition, replicas)].into();
        let node = TopicNode { id: PARTITION.topic, partitions };
        pair.write(&[(format!("/brokers/topics/{TOPIC}"), node.encode())]);
        pair
    }

    /// One zxid's changes, to the images and to both brokers' partitions.
    fn write(&self, nodes: &[(String, Vec<u8>)]) {
        let mut feed = self.feed.lock().expect("unpoisoned");
        feed.1 += 1;
        let zxid = Zxid::new(feed.1);
        let version = i32::try_from(feed.1).expect("few");
        let stat = Stat { czxid: zxid, mzxid: zxid, version };
        let item = |(path, data): &(String, Vec<u8>)| Item {
            kind: ItemKind::Created,
            path: path.clone(),
            data: data.clone(),
            stat,
        };
        let items = nodes.iter().map(item).collect();
        let applied = feed.0.apply(FeedEvent::Changes { zxid, items }).expect("news");
        self.images.send_replace(Arc::new(applied.image.clone()));
        for broker in &self.brokers {
            broker.partitions.apply(&applied);
        }
    }

    fn elect(&self, leader: i32, epoch: i32) {
        let state = PartitionState {
            leader: Some(BrokerId::new(leader)),
            leader_epoch: LeaderEpoch::new(epoch),
            controller_epoch: ControllerEpoch::new(1),
            isr: vec![BrokerId::new(1), BrokerId::new(2)],
            recovering: false,
        };
        self.write(&[(format!("/brokers/topics/{TOPIC}/partitions/0/state"), state.encode())]);
    }

    /// Produces with acks=all to the broker of this place, once it leads.
    async fn produce(&self, place: usize, value: &'static str) -> ProduceOutcome {
        let partitions = &self.brokers[place].partitions;
        wait_until(|| status(partitions).is_some_and(|status| status.leading.is_some())).await;
        let request = ProduceRequest {
            acks: -1,
            timeout: Duration::from_secs(60),
            zstd_allowed: true,
            transactional: false,
            may_serve: true,
            batches: vec![ProduceBatch { partition: PARTITION, records: batch(value) }],
        };
        partitions.produce(request).await.pop().expect("one batch")
    }

    async fn stop(self) {
        for mut broker in self.brokers {
            broker.outlet.fetchers().stop().await;
            broker.hang_up().await;
            tokio::task::spawn_blocking(move || broker.partitions.stop()).await.expect("stops");
        }
    }
}

impl Broker {
    async fn start(id: BrokerId, images: &watch::Sender<Arc<Image>>) -> Self {
        let folder = tempfile::tempdir().expect("writable");
        let mut values = Values::default();
        values.set("data.dir", folder.path().to_str().expect("UTF-8")).expect("known");
        let config = Config::from_values(&values).expect("consistent");
        let outlet = Arc::new(ToFetchers::default());
        assert!(outlet.0.set(Fetchers::new(Handle::current())).is_ok());
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let partitions = Partitions::open(config.partitions, id, &disk, Arc::clone(&outlet) as _);
        let partitions = partitions.expect("an empty folder");
        let mut broker = Self { id, partitions, outlet, port: 0, serving: None, _folder: folder };
        broker.serve(images).await;
        let (fetchers, partitions) = (broker.outlet.fetchers(), Arc::clone(&broker.partitions));
        fetchers.begin(id, partitions, images.subscribe(), config.replica);
        broker
    }

    /// Answers other brokers at a new port.
    async fn serve(&mut self, images: &watch::Sender<Arc<Image>>) {
        let config = Config::from_values(&Values::default()).expect("consistent");
        let reach = Reach {
            image: images.subscribe(),
            partitions: Arc::clone(&self.partitions),
            groups: Groups::new(
                self.id,
                config.groups.shard,
                Arc::clone(&self.partitions),
                images.subscribe(),
            ),
            cluster: LocalCluster::idle(Arc::clone(&self.partitions)),
            contacts: self.outlet.fetchers().contacts(),
            traffic: Arc::default(),
        };
        let shared = Shared::new(self.id, config.api, reach);
        let api = Api::new(Scope::InterBroker, Arc::new(shared));
        let address = ([127, 0, 0, 1], 0).into();
        let listener = Listener::bind("INTERNAL", address).await.expect("a free port");
        self.port = listener.local_address().port();
        let (stop, stopping) = watch::channel(false);
        let server = listener.run(Arc::new(api), config.listeners.limits, stopping);
        self.serving = Some((stop, tokio::spawn(server)));
    }

    /// Closes the listener and all its connections.
    async fn hang_up(&mut self) {
        let (stop, server) = self.serving.take().expect("serves");
        stop.send(true).expect("runs");
        server.await.expect("ends in order");
    }
}

fn registration(port: u16) -> Vec<u8> {
    let endpoint = Endpoint {
        listener: "INTERNAL".to_owned(),
        protocol: "PLAINTEXT".to_owned(),
        host: "127.0.0.1".to_owned(),
        port,
    };
    BrokerRegistration { endpoints: vec![endpoint], rack: None, timestamp_ms: 0 }.encode()
}

fn batch(value: &'static str) -> BytesMut {
    let mut batch = BatchBuilder::new(1 << 16);
    let value = Some(Bytes::from_static(value.as_bytes()));
    assert!(batch.push(&Record { timestamp_ms: 1, value, ..Default::default() }));
    BytesMut::from(&batch.build(None).expect("not empty")[..])
}

fn status(partitions: &Partitions) -> Option<ReplicaStatus> {
    partitions.status().into_iter().find(|status| status.partition == PARTITION)
}

/// Waits for other threads; fails after many looks.
async fn wait_until(holds: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < limit, "it does not come true");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_all_is_answered_when_the_follower_has_it_on_disk() {
    let pair = Pair::start().await;
    pair.elect(1, 0);
    for (value, offset) in [("a", 0), ("b", 1), ("c", 2)] {
        let produced = pair.produce(0, value).await.expect("both replicas take it");
        assert_eq!(produced.base_offset, Offset::new(offset));
        let follower = status(&pair.brokers[1].partitions).expect("held");
        assert!(follower.durable_end > produced.base_offset, "{follower:?}");
    }
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_and_follower_change_places_at_once() {
    let pair = Pair::start().await;
    pair.elect(1, 0);
    pair.produce(0, "a").await.expect("both replicas take it");
    for epoch in 1..5 {
        let leader = if epoch % 2 == 1 { 2 } else { 1 };
        pair.elect(leader, epoch);
        let place = usize::try_from(leader - 1).expect("1 or 2");
        let produced = pair.produce(place, "b").await.expect("both replicas take it");
        assert_eq!(produced.base_offset, Offset::new(i64::from(epoch)));
    }
    let ends = || pair.brokers.iter().map(|broker| status(&broker.partitions).map(|s| s.end));
    wait_until(|| ends().all(|end| end == Some(Offset::new(5)))).await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_leader_is_suspected_and_followed_again_where_it_returns() {
    let mut pair = Pair::start().await;
    pair.elect(1, 0);
    pair.produce(0, "a").await.expect("both replicas take it");
    pair.brokers[0].hang_up().await;
    let contacts = pair.brokers[1].outlet.fetchers().contacts();
    wait_until(|| contacts.is_lost(BrokerId::new(1))).await;
    let images = pair.images.clone();
    pair.brokers[0].serve(&images).await;
    let returned = registration(pair.brokers[0].port);
    pair.write(&[("/brokers/ids/1".to_owned(), returned)]);
    pair.elect(1, 1);
    pair.produce(0, "b").await.expect("the follower is back");
    assert!(!contacts.is_lost(BrokerId::new(1)));
    pair.stop().await;
}

/// A leader that calls every offset out of range. The first answer does not tell where its log begins, the
/// others do. Tells when it was asked for records, and from which offset on.
async fn out_of_range(listener: TcpListener, asked: mpsc::UnboundedSender<(Instant, Offset)>) {
    let (mut stream, _) = listener.accept().await.expect("the follower comes");
    let mut log_start_offset = None;
    loop {
        let length = stream.read_u32().await.expect("a request");
        let mut frame = vec![0; usize::try_from(length).expect("short")];
        stream.read_exact(&mut frame).await.expect("all of it");
        let mut reader = Reader::new(&frame);
        let header = decode_request_header(&mut reader).expect("ours");
        let request = FetchRequest::decode(&mut reader, FETCH_VERSION).expect("ours");
        let fetch_offset = request.topics[0].partitions[0].fetch_offset;
        // What only tells of progress does not wait.
        if request.max_wait_ms > 0 && asked.send((Instant::now(), fetch_offset)).is_err() {
            return;
        }
        let answer = FetchPartitionResponse {
            partition_index: PARTITION.partition,
            error_code: ErrorCode::OffsetOutOfRange,
            log_start_offset,
            ..Default::default()
        };
        log_start_offset = Some(Offset::new(7));
        let topic_id = PARTITION.topic;
        let topic = FetchTopicResponse { topic_id, partitions: vec![answer], ..Default::default() };
        let response = FetchResponse { responses: vec![topic], ..Default::default() };
        let frame = encode_response(header.correlation_id, FETCH_VERSION, &response);
        stream.write_all(&frame.expect("fits").bytes).await.expect("the follower reads");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_knows_no_offset_of_ours_is_asked_again_after_a_rest() {
    let mut pair = Pair::start().await;
    pair.brokers[0].hang_up().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let (asked, mut was_asked) = mpsc::unbounded_channel();
    let leader = tokio::spawn(out_of_range(listener, asked));
    pair.write(&[("/brokers/ids/1".to_owned(), registration(port))]);
    pair.elect(1, 0);
    let mut asks = Vec::new();
    while asks.len() < 4 {
        let next = timeout(Duration::from_secs(60), was_asked.recv()).await;
        asks.push(next.unwrap_or_else(|_| panic!("asked no more: {asks:?}")).expect("serves"));
    }
    let offsets: Vec<i64> = asks.iter().map(|(_, offset)| offset.get()).collect();
    assert_eq!(offsets, [0, 0, 7, 7]);
    let config = Config::from_values(&Values::default()).expect("consistent");
    // Not so from the second to the third, where the log began anew.
    for (before, after) in [(0, 1), (2, 3)] {
        let rested = asks[after].0 - asks[before].0;
        assert!(rested >= config.replica.backoff, "{rested:?} of {:?}", config.replica.backoff);
    }
    leader.abort();
    let images = pair.images.clone();
    pair.brokers[0].serve(&images).await;
    pair.stop().await;
}
