//! A cluster of one broker in memory, for tests of the APIs without a coordinator.

use std::sync::{Arc, Mutex};

use broker_core::ids::{ControllerEpoch, Zxid};
use broker_core::image::{
    BrokerRegistration, Endpoint, FeedEvent, Image, ImageFeed, Item, ItemKind, PartitionState,
    Stat, TopicNode,
};
use client_protocol::messages::create_partitions::{
    CreatePartitionsTopic, CreatePartitionsTopicResult,
};
use client_protocol::messages::create_topics::CreatableTopicResult;
use client_protocol::messages::delete_topics::DeletableTopicResult;
use client_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, ControlledShutdownRequest,
    ControlledShutdownResponse, CreatePartitionsRequest, CreatePartitionsResponse,
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    ElectLeadersRequest, ElectLeadersResponse,
};
use client_protocol::{BrokerId, ErrorCode, LeaderEpoch, PartitionId, ProducerId, TopicId};
use tokio::sync::watch;

use super::shared::{Cluster, Later};
use crate::partitions::Partitions;

/// The only broker.
pub(crate) const BROKER: BrokerId = BrokerId::new(1);

/// See the module.
pub(crate) struct LocalCluster {
    state: Mutex<State>,
    images: watch::Sender<Arc<Image>>,
    partitions: Arc<Partitions>,
}

struct State {
    feed: ImageFeed,
    zxid: i64,
    next_topic: u8,
    next_producer: i64,
}

impl LocalCluster {
    /// Knows no broker and no topic.
    pub(crate) fn idle(partitions: Arc<Partitions>) -> Arc<Self> {
        let state =
            State { feed: ImageFeed::default(), zxid: 0, next_topic: 1, next_producer: 1000 };
        let images = watch::Sender::new(Arc::new(Image::default()));
        Arc::new(Self { state: Mutex::new(state), images, partitions })
    }

    /// Registers the broker at `port` and lets `partitions` begin.
    pub(crate) fn new(partitions: Arc<Partitions>, port: u16) -> Arc<Self> {
        let cluster = Self::idle(partitions);
        let endpoint = Endpoint {
            listener: "PLAINTEXT".to_owned(),
            protocol: "PLAINTEXT".to_owned(),
            host: "127.0.0.1".to_owned(),
            port,
        };
        let registration =
            BrokerRegistration { endpoints: vec![endpoint], rack: None, timestamp_ms: 0 };
        cluster.lock().feed.apply(FeedEvent::SnapshotBegin { zxid: Zxid::new(0) });
        cluster.lock().feed.apply(FeedEvent::SnapshotEnd { zxid: Zxid::new(0) });
        let image = cluster.write(vec![("/brokers/ids/1".to_owned(), registration.encode())]);
        cluster.partitions.begin(Zxid::new(1), &image);
        cluster
    }

    /// The images.
    pub(crate) fn images(&self) -> watch::Receiver<Arc<Image>> {
        self.images.subscribe()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("unpoisoned")
    }

    /// The broker's session has ended, and no other is open yet.
    pub(crate) fn lose_broker(&self) {
        self.change(ItemKind::Deleted, vec![("/brokers/ids/1".to_owned(), Vec::new())]);
    }

    fn write(&self, nodes: Vec<(String, Vec<u8>)>) -> Arc<Image> {
        self.change(ItemKind::Created, nodes)
    }

    fn change(&self, kind: ItemKind, nodes: Vec<(String, Vec<u8>)>) -> Arc<Image> {
        let mut state = self.lock();
        state.zxid += 1;
        let zxid = Zxid::new(state.zxid);
        let stat = Stat { czxid: zxid, mzxid: zxid, version: 0 };
        let item = |(path, data)| Item { kind, path, data, stat };
        let items = nodes.into_iter().map(item).collect();
        let applied = state.feed.apply(FeedEvent::Changes { zxid, items }).expect("changes");
        self.partitions.apply(&applied);
        let image = Arc::new(applied.image);
        self.images.send_replace(Arc::clone(&image));
        image
    }

    fn create(&self, request: CreateTopicsRequest) -> CreateTopicsResponse {
        let mut response = CreateTopicsResponse::default();
        for topic in request.topics {
            if self.images.borrow().topic(&topic.name).is_some() {
                let error_code = ErrorCode::TopicAlreadyExists;
                let error_message = Some(error_code.message().to_owned());
                let name = topic.name;
                let refused =
                    CreatableTopicResult { name, error_code, error_message, ..Default::default() };
                response.topics.push(refused);
                continue;
            }
            let id = {
                let mut state = self.lock();
                state.next_topic += 1;
                TopicId::from_bytes([state.next_topic; 16])
            };
            let partitions = (0..topic.num_partitions).map(PartitionId::new);
            let node = TopicNode {
                id,
                partitions: partitions.clone().map(|p| (p, vec![BROKER])).collect(),
            };
            let folder = format!("/brokers/topics/{}", topic.name);
            let mut nodes = vec![(folder.clone(), node.encode())];
            for partition in partitions {
                let state = PartitionState {
                    leader: Some(BROKER),
                    leader_epoch: LeaderEpoch::new(0),
                    controller_epoch: ControllerEpoch::new(1),
                    isr: vec![BROKER],
                    recovering: false,
                };
                nodes.push((format!("{folder}/partitions/{partition}/state"), state.encode()));
            }
            self.write(nodes);
            response.topics.push(CreatableTopicResult {
                name: topic.name,
                topic_id: Some(id),
                num_partitions: topic.num_partitions,
                replication_factor: 1,
                ..Default::default()
            });
        }
        response
    }
}

impl Cluster for LocalCluster {
    fn may_serve(&self) -> bool {
        true
    }

    fn create_topics(&self, request: CreateTopicsRequest) -> Later<CreateTopicsResponse> {
        let response = self.create(request);
        Box::pin(async { response })
    }

    fn create_partitions(
        &self,
        request: CreatePartitionsRequest,
    ) -> Later<CreatePartitionsResponse> {
        let refused = |topic: CreatePartitionsTopic| {
            let error_code = ErrorCode::InvalidReplicationFactor;
            CreatePartitionsTopicResult { name: topic.name, error_code, ..Default::default() }
        };
        let results = request.topics.into_iter().map(refused).collect();
        Box::pin(async { CreatePartitionsResponse { results, ..Default::default() } })
    }

    fn create_partitions_here(
        &self,
        request: CreatePartitionsRequest,
    ) -> Later<CreatePartitionsResponse> {
        self.create_partitions(request)
    }

    fn delete_topics(&self, request: DeleteTopicsRequest) -> Later<DeleteTopicsResponse> {
        let refused = |topic: client_protocol::messages::delete_topics::DeleteTopicState| {
            let error_code = ErrorCode::UnknownTopicOrPartition;
            DeletableTopicResult { name: topic.name, error_code, ..Default::default() }
        };
        let responses = request.topics.into_iter().map(refused).collect();
        Box::pin(async { DeleteTopicsResponse { responses, ..Default::default() } })
    }

    fn elect_leaders(&self, request: ElectLeadersRequest) -> Later<ElectLeadersResponse> {
        self.elect_leaders_here(request)
    }

    fn elect_leaders_here(&self, _: ElectLeadersRequest) -> Later<ElectLeadersResponse> {
        let error_code = ErrorCode::NotController;
        Box::pin(async move { ElectLeadersResponse { error_code, ..Default::default() } })
    }

    fn new_producer_id(&self) -> Later<Result<ProducerId, ErrorCode>> {
        let mut state = self.lock();
        state.next_producer += 1;
        let id = ProducerId::new(state.next_producer);
        Box::pin(async move { Ok(id) })
    }

    fn create_topics_here(&self, request: CreateTopicsRequest) -> Later<CreateTopicsResponse> {
        self.create_topics(request)
    }

    fn delete_topics_here(&self, request: DeleteTopicsRequest) -> Later<DeleteTopicsResponse> {
        self.delete_topics(request)
    }

    fn alter_partition_here(&self, _: AlterPartitionRequest) -> Later<AlterPartitionResponse> {
        let error_code = ErrorCode::NotController;
        Box::pin(async move { AlterPartitionResponse { error_code, ..Default::default() } })
    }

    fn controlled_shutdown_here(
        &self,
        _: ControlledShutdownRequest,
    ) -> Later<ControlledShutdownResponse> {
        let error_code = ErrorCode::NotController;
        Box::pin(async move { ControlledShutdownResponse { error_code, ..Default::default() } })
    }
}
