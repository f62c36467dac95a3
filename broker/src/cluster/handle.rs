//! What the rest of the broker asks of its cluster.
//!
//! Called by: `api`, the partitions' outlet, the server's start and stop. Calls: `forward`,
//! `producer_ids`.
//! Invariant: it may be asked at any time, also before this broker is registered and after its session
//! ended; then it says so.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use broker_core::fence::SelfFence;
use broker_core::ids::{BrokerEpoch, BrokerId, Millis, TopicPartition};
use broker_core::image::Image;
use broker_core::partition::AlterRequest;
use client_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, ControlledShutdownRequest,
    ControlledShutdownResponse, CreatePartitionsRequest, CreatePartitionsResponse,
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    ElectLeadersRequest, ElectLeadersResponse,
};
use client_protocol::{ErrorCode, ProducerId};
use coordinator_client::Client;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::alters::Alters;
use super::forward::{ForController, Forward};
use super::producer_ids::ProducerIds;
use super::watermarks::{self, Watermarks};
use crate::api::Cluster;
use crate::api::shared::Later;
use crate::config::ClusterConfig;

/// Requests of clients may wait this long for a controller, whatever they say.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A handle for everyone.
pub struct Handle {
    pub(super) broker: BrokerId,
    pub(super) config: ClusterConfig,
    pub(super) forward: Forward,
    pub(super) alters: Arc<Alters>,
    pub(super) epoch: watch::Receiver<Option<BrokerEpoch>>,
    /// The session's client, while there is a session with a registration.
    pub(super) client: Mutex<Option<Client>>,
    /// Leaders that this controller elected though they may lack committed records.
    pub(super) unclean_elections: Arc<AtomicU64>,
    producer_ids: Arc<ProducerIds>,
    started: Instant,
}

impl Handle {
    pub(super) fn new(
        config: ClusterConfig,
        forward: Forward,
        epoch: watch::Receiver<Option<BrokerEpoch>>,
    ) -> Self {
        let broker = forward.broker;
        Self {
            broker,
            config,
            forward,
            alters: Arc::default(),
            epoch,
            client: Mutex::new(None),
            unclean_elections: Arc::default(),
            producer_ids: Arc::new(ProducerIds::new(broker)),
            started: Instant::now(),
        }
    }

    /// The newest metadata image, to be followed.
    pub fn images(&self) -> watch::Receiver<Arc<Image>> {
        self.forward.images.clone()
    }

    /// This broker's registration, to be followed; `None` while there is none.
    pub fn epoch(&self) -> watch::Receiver<Option<BrokerEpoch>> {
        self.epoch.clone()
    }

    /// How many leaders this broker elected, as controller, though they may lack committed records.
    pub fn unclean_elections(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.unclean_elections)
    }

    /// The high watermarks of partitions that other brokers lead, of those that answer within `limit`.
    pub fn latest_offsets(
        &self,
        wanted: BTreeSet<TopicPartition>,
        limit: Duration,
    ) -> Later<Watermarks> {
        let peers = Arc::clone(&self.forward.peers);
        Box::pin(watermarks::ask(peers, self.image(), self.broker, wanted, limit))
    }

    /// Asks the controller for other in-sync replicas. Never blocks; the answer goes to the partition.
    pub fn alter(&self, request: AlterRequest) {
        self.alters.ask(request);
    }

    /// Has the controller move all leaders away from this broker. `false`: it still leads some whose
    /// other replicas could not take over.
    pub async fn shut_down(&self) -> bool {
        for _ in 0..=self.config.controlled_shutdown_retries_max {
            let Some(epoch) = *self.epoch.borrow() else { return false };
            let request =
                ControlledShutdownRequest { broker_id: self.broker, broker_epoch: epoch.get() };
            let limit = self.config.request_timeout.min(self.config.session_timeout);
            let response = self.forward.clone().ask(request, limit).await;
            if response.error_code.is_none() && response.remaining_partitions.is_empty() {
                return true;
            }
            let (error, left) = (response.error_code, response.remaining_partitions.len());
            tracing::info!(?error, left, "leaders are not all moved away");
            if self.is_last() {
                return false;
            }
            sleep(self.config.controlled_shutdown_backoff).await;
        }
        false
    }

    /// Nobody else is registered who could lead anything.
    fn is_last(&self) -> bool {
        self.image().broker_epochs().keys().all(|broker| *broker == self.broker)
    }

    fn client(&self) -> Option<Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_client(&self, client: Option<Client>) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }

    fn millis(&self, at: Instant) -> Millis {
        let since = at.saturating_duration_since(self.started).as_millis();
        Millis::new(u64::try_from(since).unwrap_or(u64::MAX))
    }

    fn image(&self) -> Arc<Image> {
        Arc::clone(&self.forward.images.borrow())
    }

    fn ask<R: ForController>(&self, request: R, timeout_ms: i32) -> Later<R::Response> {
        let limit = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        let limit = limit.clamp(Duration::from_secs(1), WAIT_MAX);
        Box::pin(self.forward.clone().ask(request, limit))
    }

    /// As [`Handle::ask`], but never forwarded: another broker thinks that we are the controller.
    fn ask_here<R: ForController>(&self, request: R) -> Later<R::Response> {
        let (forward, image) = (self.forward.clone(), self.image());
        let has_session = self.client().is_some();
        Box::pin(async move {
            if !has_session {
                return request.refuse(&image, ErrorCode::NotController);
            }
            let asked = timeout(WAIT_MAX, forward.ask_here(&request, &image)).await;
            asked.unwrap_or_else(|_| request.refuse(&image, ErrorCode::RequestTimedOut))
        })
    }
}

impl Cluster for Handle {
    fn may_serve(&self) -> bool {
        let Some(client) = self.client() else { return false };
        let timeout = u64::try_from(client.session_timeout().as_millis()).unwrap_or(u64::MAX);
        let mut fence = SelfFence::new(timeout);
        fence.contact(self.millis(client.last_contact()));
        fence.may_serve(self.millis(Instant::now()))
    }

    fn create_topics(&self, request: CreateTopicsRequest) -> Later<CreateTopicsResponse> {
        let timeout_ms = request.timeout_ms;
        self.ask(request, timeout_ms)
    }

    fn create_partitions(
        &self,
        request: CreatePartitionsRequest,
    ) -> Later<CreatePartitionsResponse> {
        let timeout_ms = request.timeout_ms;
        self.ask(request, timeout_ms)
    }

    fn delete_topics(&self, request: DeleteTopicsRequest) -> Later<DeleteTopicsResponse> {
        let timeout_ms = request.timeout_ms;
        self.ask(request, timeout_ms)
    }

    fn elect_leaders(&self, request: ElectLeadersRequest) -> Later<ElectLeadersResponse> {
        let timeout_ms = request.timeout_ms;
        self.ask(request, timeout_ms)
    }

    fn elect_leaders_here(&self, request: ElectLeadersRequest) -> Later<ElectLeadersResponse> {
        self.ask_here(request)
    }

    fn new_producer_id(&self) -> Later<Result<ProducerId, ErrorCode>> {
        let Some(client) = self.client() else {
            return Box::pin(async { Err(ErrorCode::CoordinatorNotAvailable) });
        };
        Box::pin(Arc::clone(&self.producer_ids).next(client))
    }

    fn create_topics_here(&self, request: CreateTopicsRequest) -> Later<CreateTopicsResponse> {
        self.ask_here(request)
    }

    fn create_partitions_here(
        &self,
        request: CreatePartitionsRequest,
    ) -> Later<CreatePartitionsResponse> {
        self.ask_here(request)
    }

    fn delete_topics_here(&self, request: DeleteTopicsRequest) -> Later<DeleteTopicsResponse> {
        self.ask_here(request)
    }

    fn alter_partition_here(
        &self,
        request: AlterPartitionRequest,
    ) -> Later<AlterPartitionResponse> {
        self.ask_here(request)
    }

    fn controlled_shutdown_here(
        &self,
        request: ControlledShutdownRequest,
    ) -> Later<ControlledShutdownResponse> {
        self.ask_here(request)
    }
}
