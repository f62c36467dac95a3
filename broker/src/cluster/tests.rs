//! Memberships of several brokers in one process, on a real coordinator that stands alone.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use broker_core::controller::ControllerConfig;
use broker_core::ids::{BrokerEpoch, BrokerId, DirectoryId, PartitionId, TopicPartition, Zxid};
use broker_core::image::{
    Applied, Change, Endpoint, FeedEvent, Image, ImageFeed, Item, ItemKind, Stat, json, path,
};
use broker_core::registration::DirectoryRecord;
use client_protocol::ErrorCode;
use client_protocol::messages::create_topics::CreatableTopic;
use client_protocol::messages::delete_topics::DeleteTopicState;
use client_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest};
use coordinator::embedded::Embedded;
use coordinator_client::protocol::{CreateMode, MultiOp};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::membership::tell;
use super::{Handle, Local, Member, RegistrationError, Running, StartError, prepare};
use crate::api::Cluster;
use crate::config::values::Values;
use crate::config::{Config, CoordinatorAddress};

const SOON: Duration = Duration::from_secs(60);

/// Log directories in memory, and what the partitions were told.
struct Logs {
    directory: DirectoryId,
    record: Mutex<Option<DirectoryRecord>>,
    cluster: Mutex<Option<String>>,
    begun: Mutex<Vec<Zxid>>,
    applied: Mutex<u32>,
    gone: Mutex<Vec<String>>,
    fails: AtomicBool,
    /// To look at when they are told to begin.
    handle: OnceLock<Arc<Handle>>,
    served_before: AtomicBool,
}

impl Logs {
    fn new(number: u8) -> Arc<Self> {
        Arc::new(Self {
            directory: DirectoryId::new([number; 16]),
            record: Mutex::default(),
            cluster: Mutex::default(),
            begun: Mutex::default(),
            applied: Mutex::default(),
            gone: Mutex::default(),
            fails: AtomicBool::new(false),
            handle: OnceLock::new(),
            served_before: AtomicBool::new(false),
        })
    }
}

impl Local for Logs {
    fn directories(&self) -> BTreeMap<DirectoryId, Option<DirectoryRecord>> {
        [(self.directory, *self.record.lock().unwrap())].into()
    }

    fn boot_changed(&self) -> bool {
        false
    }

    fn claim(&self, cluster_id: &str) -> io::Result<()> {
        let mut cluster = self.cluster.lock().unwrap();
        let held = cluster.get_or_insert_with(|| cluster_id.to_owned());
        if held == cluster_id { Ok(()) } else { Err(io::Error::other("another cluster's")) }
    }

    fn record(&self, record: DirectoryRecord) -> io::Result<()> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(io::Error::other("the disk is broken"));
        }
        *self.record.lock().unwrap() = Some(record);
        Ok(())
    }

    fn begin(&self, started: Zxid, image: &Image) {
        assert!(image.complete_to() >= started);
        let serves = self.handle.get().is_some_and(|handle| handle.may_serve());
        self.served_before.fetch_or(serves, Ordering::Relaxed);
        self.begun.lock().unwrap().push(started);
    }

    fn apply(&self, _: &Applied) {
        assert!(!self.begun.lock().unwrap().is_empty(), "told before its beginning");
        *self.applied.lock().unwrap() += 1;
    }

    fn drop_gone(&self, applied: &Applied) {
        let gone = applied.changes.iter().filter_map(|change| match change {
            Change::TopicGone { topic, .. } => Some(topic.to_string()),
            _ => None,
        });
        self.gone.lock().unwrap().extend(gone);
    }

    fn alter_answered(&self, _: TopicPartition, _: u64, _: Result<(), ErrorCode>) {}
}

struct Ensemble {
    _folder: tempfile::TempDir,
    server: Embedded,
}

struct Broker {
    handle: Arc<Handle>,
    running: Running,
}

impl Ensemble {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let server = Embedded::start(folder.path().join("data"), any).unwrap();
        Self { _folder: folder, server }
    }

    fn member(&self, number: i32) -> Member {
        let config = Config::from_values(&Values::default()).unwrap();
        let endpoint = |listener: &str| Endpoint {
            listener: listener.to_owned(),
            protocol: "PLAINTEXT".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 1,
        };
        Member {
            broker: BrokerId::new(number),
            rack: None,
            endpoints: vec![endpoint("PLAINTEXT"), endpoint("INTERNAL")],
            coordinator: CoordinatorAddress {
                servers: vec![self.server.client_address().to_string()],
                chroot: "/kafka".to_owned(),
            },
            cluster: config.cluster,
            controller: ControllerConfig { partitions: 1, replication_factor: 1, unclean: false },
        }
    }

    async fn try_join(&self, number: i32, logs: &Arc<Logs>) -> Result<Broker, StartError> {
        let (handle, membership) = prepare(self.member(number), Vec::new());
        // Those of a process that is started again keep the first.
        let _ = logs.handle.set(Arc::clone(&handle));
        let local: Arc<dyn Local> = Arc::clone(logs) as Arc<dyn Local>;
        let running = timeout(SOON, membership.start(local)).await.unwrap()?;
        Ok(Broker { handle, running })
    }

    async fn join(&self, number: i32) -> Broker {
        let logs = Logs::new(u8::try_from(number).unwrap());
        self.try_join(number, &logs).await.map_err(|error| error.to_string()).unwrap()
    }
}

/// A way to a server that can be shut.
struct Way {
    address: SocketAddr,
    is_open: watch::Sender<bool>,
}

impl Way {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_open, open) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut open = open.clone();
                tokio::spawn(async move {
                    if *open.borrow()
                        && let Ok(mut server) = TcpStream::connect(server).await
                    {
                        tokio::select! {
                            _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                            _ = open.wait_for(|is_open| !is_open) => {}
                        }
                    }
                });
            }
        });
        Self { address, is_open }
    }
}

impl Broker {
    async fn sees(&self, what: impl Fn(&Image) -> bool) -> Arc<Image> {
        let mut images = self.handle.images();
        let seen = timeout(SOON, images.wait_for(|image| what(image))).await;
        Arc::clone(&seen.expect("it shows soon").unwrap())
    }

    async fn create(&self, name: &str, replicas: i16) -> ErrorCode {
        let topic = CreatableTopic {
            name: name.to_owned(),
            num_partitions: 2,
            replication_factor: replicas,
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
        self.handle.create_topics(request).await.topics[0].error_code
    }
}

fn is_controller(image: &Image, number: i32) -> bool {
    image.controller().is_some_and(|controller| controller.broker == BrokerId::new(number))
}

fn leads(image: &Image, topic: &str, number: i32) -> bool {
    let led = |partition| image.leader(topic, PartitionId::new(partition)).map(|leader| leader.id);
    [0, 1].into_iter().all(|partition| led(partition) == Some(BrokerId::new(number)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_registers_becomes_controller_and_makes_topics() {
    let ensemble = Ensemble::start();
    let logs = Logs::new(1);
    let broker = ensemble.try_join(1, &logs).await.map_err(|error| error.to_string()).unwrap();
    let image = broker.sees(|image| is_controller(image, 1)).await;
    assert_eq!(image.cluster_id().map(str::len), Some(22));
    let epoch = broker.handle.epoch().borrow().unwrap();
    assert_eq!(image.broker(BrokerId::new(1)).unwrap().epoch, epoch);
    assert!(broker.handle.may_serve());

    assert_eq!(broker.create("orders", 1).await, ErrorCode::None);
    let image = broker.sees(|image| leads(image, "orders", 1)).await;
    let topic = image.topic("orders").unwrap();
    assert_eq!(topic.node.partitions.len(), 2);
    assert_eq!(broker.create("orders", 1).await, ErrorCode::TopicAlreadyExists);

    let by_id = DeleteTopicState { name: None, topic_id: Some(topic.node.id) };
    let request =
        DeleteTopicsRequest { topics: vec![by_id], timeout_ms: 10_000, ..Default::default() };
    let deleted = broker.handle.delete_topics(request).await.responses.remove(0);
    assert_eq!(deleted.error_code, ErrorCode::None);
    assert_eq!(deleted.topic_id, Some(topic.node.id));
    broker.sees(|image| image.topic("orders").is_none()).await;
    broker.running.stop().await;
    assert!(!broker.handle.may_serve());
    assert_eq!(*logs.begun.lock().unwrap(), [epoch.zxid()]);
    assert!(*logs.applied.lock().unwrap() > 0);
    assert!(!logs.served_before.load(Ordering::Relaxed), "served what was led under a former life");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_broker_takes_office_and_leads_when_the_controller_goes() {
    let ensemble = Ensemble::start();
    let first = ensemble.join(1).await;
    first.sees(|image| is_controller(image, 1)).await;
    let second = ensemble.join(2).await;
    first.sees(|image| image.brokers().count() == 2).await;
    assert_eq!(first.create("orders", 2).await, ErrorCode::None);
    second.sees(|image| image.topic("orders").is_some()).await;
    first.running.stop().await;
    let image = second.sees(|image| is_controller(image, 2) && leads(image, "orders", 2)).await;
    assert_eq!(image.controller_epoch().unwrap().0.get(), 2);
    assert_eq!(second.create("more", 1).await, ErrorCode::None);
    second.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_broker_with_the_same_number_is_refused_and_the_first_goes_on() {
    let ensemble = Ensemble::start();
    let first = ensemble.join(1).await;
    let refused = ensemble.try_join(1, &Logs::new(9)).await.err().expect("other directories");
    assert!(
        matches!(&refused, StartError::Registration(RegistrationError::SecondBroker { .. })),
        "{refused}"
    );
    assert!(first.handle.may_serve());
    first.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_on_the_same_directories_replaces_a_registration_that_still_stands() {
    let ensemble = Ensemble::start();
    let logs = Logs::new(1);
    let first = ensemble.try_join(1, &logs).await.map_err(|error| error.to_string()).unwrap();
    first.sees(|image| is_controller(image, 1)).await;
    let epoch = first.handle.epoch().borrow().unwrap();
    // The process before is not gone for the ensemble yet, and holds /controller too.
    let again = ensemble.try_join(1, &logs).await.map_err(|error| error.to_string()).unwrap();
    let epoch_again = again.handle.epoch().borrow().unwrap();
    assert!(epoch_again > epoch);
    let image = again.sees(|image| image.controller_epoch().unwrap().0.get() >= 2).await;
    let identity = &image.identity(BrokerId::new(1)).unwrap().identity;
    assert_eq!(identity.incarnation.get(), 2);
    assert!(!identity.lost);
    first.running.stop().await;
    again.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_directories_cannot_be_written_does_not_register() {
    let ensemble = Ensemble::start();
    let logs = Logs::new(1);
    logs.fails.store(true, Ordering::Relaxed);
    let refused = ensemble.try_join(1, &logs).await.err().expect("a broken disk");
    assert!(matches!(refused, StartError::Registration(RegistrationError::Directories(_))));
    let other = ensemble.join(2).await;
    other.sees(|image| image.broker(BrokerId::new(1)).is_none()).await;
    other.running.stop().await;
}

/// The node is this session's, and tells of no election of its own.
#[tokio::test(flavor = "multi_thread")]
async fn an_office_that_only_its_node_holds_is_taken_again() {
    let ensemble = Ensemble::start();
    let broker = ensemble.join(1).await;
    let image = broker.sees(|image| is_controller(image, 1)).await;
    let epoch = image.controller_epoch().unwrap().0;
    let client = broker.handle.client.lock().unwrap().clone().unwrap();
    let node = json::encode_controller(BrokerId::new(1), 0);
    let ops = vec![
        MultiOp::delete(path::CONTROLLER, None),
        MultiOp::create2(path::CONTROLLER, Some(node.into()), CreateMode::Ephemeral),
    ];
    client.multi(ops).await.unwrap();
    broker.sees(|image| image.controller_epoch().unwrap().0 > epoch).await;
    assert_eq!(broker.create("t", 1).await, ErrorCode::None);
    broker.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_register_again_says_so() {
    let ensemble = Ensemble::start();
    let other = ensemble.join(2).await;
    let way = Way::to(ensemble.server.client_address()).await;
    let mut member = ensemble.member(1);
    member.coordinator.servers = vec![way.address.to_string()];
    let (handle, membership) = prepare(member, Vec::new());
    let logs = Logs::new(1);
    let local: Arc<dyn Local> = Arc::clone(&logs) as Arc<dyn Local>;
    let running = timeout(SOON, membership.start(local)).await.unwrap().map_err(|e| e.to_string());
    let running = running.unwrap();

    // Its session ends while it cannot be reached, and its disk fails when it comes back.
    logs.fails.store(true, Ordering::Relaxed);
    way.is_open.send_replace(false);
    other.sees(|image| image.broker(BrokerId::new(1)).is_none()).await;
    way.is_open.send_replace(true);
    let reason = timeout(SOON, running.ended()).await.unwrap();
    assert!(reason.contains("the disk is broken"), "{reason}");
    assert!(!handle.may_serve());
    running.stop().await;
    other.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn producer_ids_differ_over_brokers_and_blocks() {
    let ensemble = Ensemble::start();
    let (first, second) = (ensemble.join(1).await, ensemble.join(2).await);
    let mut ids = std::collections::BTreeSet::new();
    for turn in 0..1500 {
        let broker = if turn % 3 == 0 { &second } else { &first };
        let id = broker.handle.new_producer_id().await.unwrap();
        assert!(ids.insert(id.get()), "{id} twice");
    }
    first.running.stop().await;
    second.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_of_another_cluster_are_refused_before_anything_is_said_of_them() {
    let ensemble = Ensemble::start();
    let logs = Logs::new(1);
    *logs.cluster.lock().unwrap() = Some("another".to_owned());
    let refused = ensemble.try_join(1, &logs).await.err().expect("another cluster's");
    assert!(matches!(&refused, StartError::Registration(RegistrationError::Claim(_))), "{refused}");
    assert_eq!(*logs.record.lock().unwrap(), None);
}

#[tokio::test]
async fn what_goes_before_the_registration_shows_is_told_and_the_broker_serves_after_all_is() {
    let topic = br#"{"partitions":{"0":[1]},"topic_id":"2AoYbHmeRFmrj6Tnl-VdtQ","adding_replicas":{},"removing_replicas":{},"version":3}"#;
    let item = |kind, data: &[u8]| Item {
        kind,
        path: "/brokers/topics/orders".to_owned(),
        data: data.to_vec(),
        stat: Stat::default(),
    };
    let mut feed = ImageFeed::default();
    feed.apply(FeedEvent::SnapshotBegin { zxid: Zxid::default() });
    feed.apply(FeedEvent::SnapshotChunk { items: vec![item(ItemKind::Present, topic)] });
    let snapshot = FeedEvent::SnapshotEnd { zxid: Zxid::new(10) };
    let gone =
        FeedEvent::Changes { zxid: Zxid::new(11), items: vec![item(ItemKind::Deleted, b"")] };
    let (updates, mut received) = mpsc::channel(2);
    for event in [snapshot, gone] {
        updates.try_send(Arc::new(feed.apply(event).expect("new to the image"))).unwrap();
    }
    drop(updates);
    // Both updates are there before it begins: the first image does not show the registration.
    let (_epoch, mut epochs) = watch::channel(Some(BrokerEpoch::new(11)));
    let logs = Logs::new(1);
    let local: Arc<dyn Local> = Arc::clone(&logs) as Arc<dyn Local>;
    let mut served = Vec::new();
    let telling = tell(&local, &mut received, &mut epochs, |epoch| {
        served.push((epoch.get(), logs.begun.lock().unwrap().len()));
    });
    timeout(SOON, telling).await.unwrap();
    assert_eq!(*logs.gone.lock().unwrap(), ["orders"]);
    assert_eq!(served, [(11, 1)]);
}
