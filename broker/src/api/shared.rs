//! What every API's file may reach: settings, the newest metadata image, this broker's number.
//!
//! Called by: `dispatch`, which hands it to the files. Invariant: nothing here changes except the
//! image, which is replaced whole; a request reads it once and answers from that one.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use broker_core::fetch_session::{Limits, Sessions};
use broker_core::group;
use broker_core::image::{Broker, Endpoint, Image};
use client_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, ControlledShutdownRequest,
    ControlledShutdownResponse, CreatePartitionsRequest, CreatePartitionsResponse,
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    ElectLeadersRequest, ElectLeadersResponse,
};
use client_protocol::{BrokerId, ErrorCode, ProducerId};
use tokio::sync::watch;

use super::auto_create::AutoCreate;
use crate::config::{ApiConfig, PUBLIC_LISTENER};
use crate::groups::Groups;
use crate::metrics::Traffic;
use crate::partitions::Partitions;
use crate::replica::Contacts;

/// Bits of the operations that a client may do with a topic: all, as nothing is forbidden yet
/// (read, write, create, delete, alter, describe, describe configs, alter configs).
pub(super) const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// The same for the cluster (create, alter, describe, cluster action, describe configs, alter
/// configs, idempotent write).
pub(super) const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;

/// The same for a group (read, delete, describe).
pub(super) const GROUP_OPERATIONS: i32 = 0b1_0100_1000;

/// Groups that one request may ask for.
const GROUPS_MAX: usize = 1_000;

/// Partitions in all fetch sessions: some 200 bytes each, and a name of at most 249 for each topic.
const SESSION_PARTITIONS_MAX: usize = 200_000;

/// Default replication factor where there are enough brokers.
const REPLICAS_DEFAULT: usize = 3;

/// An answer that comes later.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the APIs ask of the cluster. Implemented by `cluster`; whether the controller is this
/// broker or another one is its business.
pub trait Cluster: Send + Sync {
    /// Whether this broker may answer for its partitions: it hears from the coordinator.
    fn may_serve(&self) -> bool;

    /// Creates topics: names, settings and numbers are checked and complete, assignments are not.
    /// Answers when the controller has written them, one result per topic in any order.
    fn create_topics(&self, request: CreateTopicsRequest) -> Later<CreateTopicsResponse>;

    /// Gives topics more partitions: counts and assignments are not checked. Answers when the
    /// controller has written them, one result per topic in any order.
    fn create_partitions(
        &self,
        request: CreatePartitionsRequest,
    ) -> Later<CreatePartitionsResponse>;

    /// Marks topics for deletion. Answers when the controller has, one result per topic.
    fn delete_topics(&self, request: DeleteTopicsRequest) -> Later<DeleteTopicsResponse>;

    /// Elects leaders anew. Answers when the controller has, or cannot.
    fn elect_leaders(&self, request: ElectLeadersRequest) -> Later<ElectLeadersResponse>;

    /// As [`Cluster::elect_leaders`], forwarded; see [`Cluster::create_topics_here`].
    fn elect_leaders_here(&self, request: ElectLeadersRequest) -> Later<ElectLeadersResponse>;

    /// A producer id that nobody has had.
    fn new_producer_id(&self) -> Later<Result<ProducerId, ErrorCode>>;

    /// As [`Cluster::create_topics`], forwarded by another broker: NOT_CONTROLLER unless this
    /// broker is the controller.
    fn create_topics_here(&self, request: CreateTopicsRequest) -> Later<CreateTopicsResponse>;

    /// As [`Cluster::create_partitions`], forwarded; see [`Cluster::create_topics_here`].
    fn create_partitions_here(
        &self,
        request: CreatePartitionsRequest,
    ) -> Later<CreatePartitionsResponse>;

    /// As [`Cluster::delete_topics`], forwarded; see [`Cluster::create_topics_here`].
    fn delete_topics_here(&self, request: DeleteTopicsRequest) -> Later<DeleteTopicsResponse>;

    /// A leader's wish to change in-sync replicas; NOT_CONTROLLER unless this broker is.
    fn alter_partition_here(&self, request: AlterPartitionRequest)
    -> Later<AlterPartitionResponse>;

    /// A stopping broker's wish to lead nothing; NOT_CONTROLLER unless this broker is.
    fn controlled_shutdown_here(
        &self,
        request: ControlledShutdownRequest,
    ) -> Later<ControlledShutdownResponse>;
}

/// The rest of the broker, as far as the APIs reach.
pub struct Reach {
    /// The newest image.
    pub image: watch::Receiver<Arc<Image>>,
    /// The partitions of this broker.
    pub partitions: Arc<Partitions>,
    /// The groups that this broker coordinates.
    pub groups: Arc<Groups>,
    /// What changes the cluster.
    pub cluster: Arc<dyn Cluster>,
    /// Brokers that may have died a moment ago.
    pub contacts: Arc<Contacts>,
    /// Where produced and fetched bytes are counted.
    pub traffic: Arc<Traffic>,
}

/// Shared by all listeners.
pub struct Shared {
    /// This broker.
    pub broker_id: BrokerId,
    /// Its first registration, whose addresses hold as long as it runs; none in tests without one.
    pub(super) me: Option<Broker>,
    /// Settings of the request handlers.
    pub config: ApiConfig,
    /// The newest image.
    pub image: watch::Receiver<Arc<Image>>,
    /// The partitions of this broker.
    pub partitions: Arc<Partitions>,
    /// The groups that this broker coordinates.
    pub groups: Arc<Groups>,
    /// What changes the cluster.
    pub cluster: Arc<dyn Cluster>,
    /// Brokers that may have died a moment ago.
    pub contacts: Arc<Contacts>,
    /// Where produced and fetched bytes are counted.
    pub traffic: Arc<Traffic>,
    pub(super) auto_create: AutoCreate,
    pub(super) started: Instant,
    fetch_sessions: Mutex<Sessions>,
}

impl Shared {
    /// What the APIs of broker `broker_id` reach.
    pub fn new(broker_id: BrokerId, config: ApiConfig, reach: Reach) -> Self {
        let Reach { image, partitions, groups, cluster, contacts, traffic } = reach;
        let auto_create = AutoCreate::default();
        let me = image.borrow().broker(broker_id).cloned();
        let limits = Limits {
            sessions_max: config.fetch_sessions_max,
            partitions_max: SESSION_PARTITIONS_MAX,
        };
        Self {
            broker_id,
            me,
            config,
            image,
            partitions,
            groups,
            cluster,
            contacts,
            traffic,
            auto_create,
            started: Instant::now(),
            fetch_sessions: Mutex::new(Sessions::new(limits)),
        }
    }

    /// What consumers want and were told; never held across I/O.
    pub(super) fn fetch_sessions(&self) -> MutexGuard<'_, Sessions> {
        self.fetch_sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replicas of a topic whose creator names no number.
    pub(super) fn default_replication_factor(&self) -> i16 {
        let brokers = self.image().brokers().count().clamp(1, REPLICAS_DEFAULT);
        self.config.replication_factor.unwrap_or(i16::try_from(brokers).unwrap_or(1))
    }

    /// The newest image.
    pub(super) fn image(&self) -> Arc<Image> {
        Arc::clone(&self.image.borrow())
    }

    /// Waits until `holds` is true of the image, at most `timeout`; false if it did not come true.
    pub(super) async fn image_where(
        &self,
        timeout: Duration,
        mut holds: impl FnMut(&Image) -> bool,
    ) -> bool {
        let mut images = self.image.clone();
        let held = tokio::time::timeout(timeout, images.wait_for(|image| holds(image))).await;
        matches!(held, Ok(Ok(_)))
    }

    /// Asks the group coordinator, or refuses in its place while this broker hears of nobody who
    /// coordinates by now.
    pub(super) fn ask_group(
        &self,
        request: group::Request,
    ) -> impl Future<Output = group::Response> + Send + use<> {
        let refused = (!self.cluster.may_serve())
            .then(|| request.refused(ErrorCode::CoordinatorNotAvailable));
        let asked = refused.is_none().then(|| self.groups.ask(request));
        async move {
            match (refused, asked) {
                (Some(refused), _) => refused,
                (None, Some(asked)) => asked.await,
                (None, None) => unreachable!("asked unless refused"),
            }
        }
    }

    /// Asks for each of several groups; the answers come in the order of the requests. What is more
    /// than [`GROUPS_MAX`] is refused.
    pub(super) fn ask_groups(
        &self,
        requests: impl Iterator<Item = group::Request>,
    ) -> Vec<Later<group::Response>> {
        let ask = |(place, request): (usize, group::Request)| -> Later<group::Response> {
            if place < GROUPS_MAX {
                return Box::pin(self.ask_group(request));
            }
            let refused = request.refused(ErrorCode::InvalidRequest);
            Box::pin(async { refused })
        };
        requests.enumerate().map(ask).collect()
    }

    /// The broker that clients should take for the controller: the real one if it is registered,
    /// else this one, which forwards.
    pub(super) fn controller(&self, image: &Image) -> BrokerId {
        let holder = image.controller().map(|controller| controller.broker);
        holder.filter(|id| image.broker(*id).is_some()).unwrap_or(self.broker_id)
    }
}

/// Where clients reach `broker`; `None` if it offers clients nothing.
pub(super) fn public_endpoint(broker: &Broker) -> Option<&Endpoint> {
    broker.registration.endpoint(PUBLIC_LISTENER)
}
