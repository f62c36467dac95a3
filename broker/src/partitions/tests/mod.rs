//! Partitions on the real disk, driven by hand-made metadata.

mod compacting;
mod fencing;
mod following;
mod metadata;
mod producing;
mod reading;
mod restarting;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use broker_core::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, TopicPartition, Zxid};
use broker_core::image::{FeedEvent, Image, ImageFeed, Item, ItemKind, Stat};
use broker_core::partition::AlterRequest;
use bytes::{Bytes, BytesMut};
use client_protocol::records::{BatchBuilder, Batches, Producer, Record};
use client_protocol::{ErrorCode, PartitionId, ProducerEpoch, ProducerId, TopicId};
use coordinator_disk::{Disk, RealDisk};

use super::*;
use crate::config::PartitionsConfig;
use crate::config::values::Values;
use crate::response::Piece;

const TOPIC_ID: &str = "2AoYbHmeRFmrj6Tnl-VdtQ";
/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What went out through the outlet.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sent {
    FetchFrom(i32, i32),
    StopFetching,
    ReportProgress,
    Alter(Vec<i32>),
    DirectoryFailed,
}

#[derive(Default)]
struct Recorder(Mutex<Vec<Sent>>);

impl Outlet for Recorder {
    fn fetch_from(&self, _: TopicPartition, leader: BrokerId, epoch: LeaderEpoch) {
        self.0.lock().unwrap().push(Sent::FetchFrom(leader.get(), epoch.get()));
    }
    fn stop_fetching(&self, _: TopicPartition) {
        self.0.lock().unwrap().push(Sent::StopFetching);
    }
    fn report_progress(&self, _: TopicPartition) {
        self.0.lock().unwrap().push(Sent::ReportProgress);
    }
    fn alter(&self, request: AlterRequest) {
        let isr = request.isr.iter().map(|(broker, _)| broker.get()).collect();
        self.0.lock().unwrap().push(Sent::Alter(isr));
    }
    fn directory_failed(&self, _: &Path, _: &str) {
        self.0.lock().unwrap().push(Sent::DirectoryFailed);
    }
}

struct Bench {
    folder: PathBuf,
    toml: String,
    disk: Arc<dyn Disk>,
    feed: ImageFeed,
    zxid: i64,
    outlet: Arc<Recorder>,
    partitions: Arc<Partitions>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.partitions.stop();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

fn open(
    disk: &Arc<dyn Disk>,
    folder: &Path,
    toml: &str,
    outlet: &Arc<Recorder>,
) -> Result<Arc<Partitions>, PartitionsError> {
    let config = PartitionsConfig {
        log_dirs: vec![folder.join("logs")],
        recovery_threads: 2,
        retention_check_interval: Duration::from_secs(300),
        cleaner_backoff: Some(Duration::from_millis(50)),
        cleaner_keys_max: 10_000,
        producer_id_expiration_ms: 86_400_000,
        replica_lag_time_max: Duration::from_secs(10),
        defaults: Values::from_toml(toml).unwrap(),
    };
    let outlet: Arc<dyn Outlet> = Arc::clone(outlet) as Arc<dyn Outlet>;
    Partitions::open(config, BrokerId::new(1), disk, outlet)
}

impl Bench {
    /// Brokers 1 (this one), 2 and 3 are registered; nothing else.
    fn new(toml: &str) -> Self {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        Self::on(&disk, toml)
    }

    fn on(disk: &Arc<dyn Disk>, toml: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("broker-partitions-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let outlet = Arc::new(Recorder::default());
        let partitions = open(disk, &folder, toml, &outlet).unwrap();
        let mut feed = ImageFeed::default();
        feed.apply(FeedEvent::SnapshotBegin { zxid: Zxid::new(10) });
        let items = (1..=3).map(registration).collect();
        feed.apply(FeedEvent::SnapshotChunk { items });
        feed.apply(FeedEvent::SnapshotEnd { zxid: Zxid::new(10) });
        partitions.begin(Zxid::new(1), feed.image());
        let (toml, disk) = (toml.to_owned(), Arc::clone(disk));
        Self { folder, toml, disk, feed, zxid: 10, outlet, partitions }
    }

    fn change(&mut self, items: Vec<(ItemKind, String, String)>) {
        self.zxid += 1;
        let zxid = Zxid::new(self.zxid);
        let version = i32::try_from(self.zxid).unwrap();
        let items = items.into_iter().map(|(kind, path, data)| {
            let stat = Stat { czxid: zxid, mzxid: zxid, version };
            Item { kind, path, data: data.into_bytes(), stat }
        });
        let event = FeedEvent::Changes { zxid, items: items.collect() };
        let applied = self.feed.apply(event).expect("new to the image");
        self.partitions.apply(&applied);
    }

    /// Creates topic `t` with one partition.
    fn create(&mut self, replicas: &str, state: &str) {
        let topic = format!(
            r#"{{"partitions":{{"0":{replicas}}},"topic_id":"{TOPIC_ID}","adding_replicas":{{}},"removing_replicas":{{}},"version":3}}"#
        );
        self.change(vec![
            (ItemKind::Created, "/brokers/topics/t".into(), topic),
            (ItemKind::Created, "/brokers/topics/t/partitions/0/state".into(), state.to_owned()),
        ]);
    }

    fn set_state(&mut self, state: &str) {
        let path = "/brokers/topics/t/partitions/0/state".into();
        self.change(vec![(ItemKind::Changed, path, state.to_owned())]);
    }

    /// Topic `t` with its only replica here, leading.
    fn alone(toml: &str) -> Self {
        let mut bench = Self::new(toml);
        bench.create("[1]", &state(1, 0, "[1]"));
        bench.until(|bench| bench.leads());
        bench
    }

    fn leads(&self) -> bool {
        self.partitions.status().first().is_some_and(|status| status.leading.is_some())
    }

    fn status(&self) -> ReplicaStatus {
        self.partitions.status().into_iter().next().expect("a replica")
    }

    /// Waits until it is so, without sleeping for any fixed time.
    fn until(&self, so: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !so(self) {
            assert!(
                begun.elapsed() < PATIENCE,
                "not within {PATIENCE:?}: {:?}, sent {:?}",
                self.partitions.status(),
                self.sent()
            );
            std::thread::yield_now();
        }
    }

    fn sent(&self) -> Vec<Sent> {
        self.outlet.0.lock().unwrap().clone()
    }

    fn image(&self) -> &Image {
        self.feed.image()
    }

    /// Stops, in order or as by kill -9 (nothing is closed), and starts again as the next process
    /// would.
    fn restart(&mut self, clean: bool) {
        if clean {
            self.partitions.stop();
        } else {
            self.partitions.abandon();
        }
        self.outlet = Arc::new(Recorder::default());
        self.partitions = open(&self.disk, &self.folder, &self.toml, &self.outlet).unwrap();
        self.partitions.begin(Zxid::new(self.zxid), self.feed.image());
    }

    fn submit(&self, acks: i16, batch: BytesMut) -> PendingProduce {
        self.partitions.produce(ProduceRequest {
            acks,
            timeout: PATIENCE,
            zstd_allowed: true,
            transactional: false,
            may_serve: true,
            batches: vec![ProduceBatch { partition: key(), records: batch }],
        })
    }

    async fn produce(&self, acks: i16, batch: BytesMut) -> Result<i64, ErrorCode> {
        let outcomes = tokio::time::timeout(PATIENCE, self.submit(acks, batch)).await.unwrap();
        let [outcome] = <[ProduceOutcome; 1]>::try_from(outcomes).unwrap();
        outcome.map(|produced| produced.base_offset.get()).map_err(|refused| refused.error)
    }

    fn consume(&self, offset: i64) -> FetchRequest {
        FetchRequest {
            reader: Reader::Consumer,
            wait_max: Duration::ZERO,
            bytes_min: 1,
            bytes_max: 1 << 20,
            partitions: vec![FetchPartition {
                partition: key(),
                fetch_offset: Offset::new(offset),
                current_leader_epoch: None,
                last_fetched_epoch: None,
                durable_end: None,
                bytes_max: 1 << 20,
            }],
        }
    }

    /// A fetch of broker 2, of a life that registered with the snapshot.
    fn follow(&self, offset: i64, durable_end: i64, epoch: Option<i32>) -> FetchRequest {
        let mut request = self.consume(offset);
        let broker_epoch = BrokerEpoch::new(2);
        request.reader = Reader::Follower { replica: BrokerId::new(2), broker_epoch };
        request.partitions[0].durable_end = Some(Offset::new(durable_end));
        request.partitions[0].last_fetched_epoch = epoch.map(LeaderEpoch::new);
        request.partitions[0].current_leader_epoch = Some(LeaderEpoch::new(0));
        request
    }

    async fn fetch(&self, request: FetchRequest) -> Fetched {
        let answers = tokio::time::timeout(PATIENCE, self.partitions.fetch(request)).await.unwrap();
        answers.into_iter().next().unwrap()
    }
}

fn registration(id: i64) -> Item {
    let data = r#"{"features":{},"listener_security_protocol_map":{"PLAINTEXT":"PLAINTEXT"},"endpoints":["PLAINTEXT://h:1"],"jmx_port":-1,"port":1,"host":"h","version":5,"timestamp":"1"}"#;
    let stat = Stat { czxid: Zxid::new(id), mzxid: Zxid::new(id), version: 0 };
    let path = format!("/brokers/ids/{id}");
    Item { kind: ItemKind::Present, path, data: data.as_bytes().to_vec(), stat }
}

fn state(leader: i32, epoch: i32, isr: &str) -> String {
    format!(
        r#"{{"controller_epoch":1,"leader":{leader},"version":1,"leader_epoch":{epoch},"isr":{isr}}}"#
    )
}

fn key() -> TopicPartition {
    let topic: TopicId = TOPIC_ID.parse().unwrap();
    TopicPartition { topic, partition: PartitionId::new(0) }
}

fn batch_of(values: &[&str], producer: Option<Producer>) -> BytesMut {
    let mut builder = BatchBuilder::new(1 << 20);
    for value in values {
        let record = Record {
            timestamp_ms: 1_000,
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            ..Record::default()
        };
        assert!(builder.push(&record));
    }
    BytesMut::from(&builder.build(producer).unwrap()[..])
}

fn batch(values: &[&str]) -> BytesMut {
    batch_of(values, None)
}

fn idempotent(sequence: i32, values: &[&str]) -> BytesMut {
    let producer = Producer {
        id: ProducerId::new(9),
        epoch: ProducerEpoch::new(0),
        base_sequence: sequence,
        is_transactional: false,
    };
    batch_of(values, Some(producer))
}

fn bytes_of(fetched: &Fetched) -> Vec<u8> {
    match &fetched.records {
        None => Vec::new(),
        Some(Piece::Bytes(bytes)) => bytes.to_vec(),
        Some(Piece::File { file, position, length }) => {
            let mut bytes = vec![0; *length];
            file.read_exact_at(*position, &mut bytes).unwrap();
            bytes
        }
    }
}

/// Offset, leader epoch and value of each record.
fn records_of(fetched: &Fetched) -> Vec<(i64, i32, String)> {
    let bytes = bytes_of(fetched);
    let mut all = Vec::new();
    for batch in Batches::new(&bytes) {
        let batch = batch.unwrap();
        batch.check_crc().unwrap();
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            all.push((record.offset.get(), batch.header.leader_epoch.unwrap().get(), value));
        }
    }
    all
}

fn values_of(fetched: &Fetched) -> Vec<String> {
    records_of(fetched).into_iter().map(|(_, _, value)| value).collect()
}
