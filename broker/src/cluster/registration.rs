//! The registration (safety.md B1, B2): one multi that replaces whatever this broker's number was.
//!
//! Called by: `membership`, with every new session. Calls: the coordinator, the log directories
//! through [`Local`]; `broker_core::registration` decides.
//! Invariant: the intended incarnation is on disk before the multi is sent. A lost answer is resolved
//! by looking at whose the znode is.

use std::io;
use std::sync::Arc;

use broker_core::ids::{BrokerEpoch, BrokerId, Incarnation, Zxid};
use broker_core::image::{BrokerRegistration, Identity, StoredIdentity, path};
use broker_core::registration::{DirectoryRecord, Found, Plan, SecondBroker, plan};
use coordinator_client::protocol::{CreateMode, ErrorCode, MultiOp, MultiResult, SessionId, Stat};
use coordinator_client::{Client, Error};
use thiserror::Error as ThisError;

use super::local::Local;

/// Why this broker is not registered.
#[derive(Debug, ThisError)]
pub enum RegistrationError {
    /// The coordinator said no, or the session is over.
    #[error(transparent)]
    Coordinator(#[from] Error),
    /// The log directories are another cluster's, or cannot be written.
    #[error("the log directories cannot be used in this cluster: {0}")]
    Claim(io::Error),
    /// The log directories cannot be written.
    #[error("the incarnation cannot be recorded: {0}")]
    Directories(#[from] io::Error),
    /// The identity node of this broker cannot be read.
    #[error("the identity node of this broker cannot be read: {0}")]
    Identity(String),
    /// Another broker with this number is running: its directories are not ours.
    #[error(
        "another broker with this number is registered, with the log directories {registered:?}"
    )]
    SecondBroker {
        /// Its directories.
        registered: Vec<String>,
    },
}

impl From<SecondBroker> for RegistrationError {
    fn from(second: SecondBroker) -> Self {
        let registered = second.registered.iter().map(ToString::to_string).collect();
        Self::SecondBroker { registered }
    }
}

/// Who registers.
pub(super) struct Registrant<'a> {
    pub(super) client: &'a Client,
    pub(super) broker: BrokerId,
    pub(super) registration: BrokerRegistration,
    pub(super) local: &'a Arc<dyn Local>,
    /// No registration of this process went through yet.
    pub(super) is_first: bool,
}

/// What the coordinator holds under this broker's number.
struct Standing {
    identity: Option<StoredIdentity>,
    registration: Option<Stat>,
    controller: Option<Stat>,
    controller_epoch_version: i32,
}

impl Registrant<'_> {
    /// Registers; answers with the registration's czxid, which is the broker epoch.
    ///
    /// # Errors
    /// [`RegistrationError`]; only a race with another writer is tried again here.
    pub(super) async fn register(&self) -> Result<BrokerEpoch, RegistrationError> {
        loop {
            let session = self.client.connected().await?;
            let standing = self.standing().await?;
            let found = Found {
                directories: self.local.directories(),
                boot_changed: self.is_first && self.local.boot_changed(),
                registered: standing.registration.is_some(),
            };
            let plan = plan(standing.identity.as_ref(), &found)?;
            self.record(plan.record).await?;
            let epoch = match self.send(&plan, &standing).await {
                Ok(epoch) => Some(epoch),
                Err(Error::ConnectionLoss) => {
                    self.outcome(session, plan.identity.incarnation).await?
                }
                // Somebody wrote in between: an ephemeral went, or a second broker came.
                Err(error) if error.code().is_some_and(is_race) => None,
                Err(error) => return Err(error.into()),
            };
            if let Some(epoch) = epoch {
                let incarnation = plan.identity.incarnation;
                self.record(DirectoryRecord { confirmed: incarnation, intended: incarnation })
                    .await?;
                return Ok(epoch);
            }
        }
    }

    async fn record(&self, record: DirectoryRecord) -> io::Result<()> {
        let local = Arc::clone(self.local);
        let recording = tokio::task::spawn_blocking(move || local.record(record));
        recording.await.map_err(io::Error::other)?
    }

    async fn standing(&self) -> Result<Standing, RegistrationError> {
        // What is read next is at least as new as every write before this start.
        self.client.sync("/").await?;
        let identity = match self.client.get_data(&path::identity(self.broker)).await {
            Ok((data, stat)) => Some(stored_identity(&data.unwrap_or_default(), &stat)?),
            Err(error) if error.is(ErrorCode::NoNode) => None,
            Err(error) => return Err(error.into()),
        };
        let registration = self.client.exists(&path::broker(self.broker)).await?;
        let controller = self.client.exists(path::CONTROLLER).await?;
        let epoch = self.client.exists(path::CONTROLLER_EPOCH).await?;
        let controller_epoch_version = epoch.map_or(0, |stat| stat.version);
        Ok(Standing { identity, registration, controller, controller_epoch_version })
    }

    async fn send(&self, plan: &Plan, standing: &Standing) -> Result<BrokerEpoch, Error> {
        let results = self.client.multi(self.ops(plan, standing)).await?.results;
        let czxid = results.iter().find_map(|result| match result {
            MultiResult::Create2(_, stat) => Some(stat.czxid),
            _ => None,
        });
        czxid.map(|czxid| BrokerEpoch::new(czxid.get())).ok_or(Error::UnexpectedAnswer)
    }

    fn ops(&self, plan: &Plan, standing: &Standing) -> Vec<MultiOp> {
        let mut ops = Vec::new();
        let identity = path::identity(self.broker);
        let data = Some(plan.identity.encode().into());
        ops.push(match plan.expected_version {
            Some(version) => MultiOp::set_data(identity, data, Some(version)),
            None => MultiOp::create(identity, data, CreateMode::Persistent),
        });
        let registered = path::broker(self.broker);
        if let Some(old) = standing.registration {
            ops.push(MultiOp::delete(registered.clone(), Some(old.version)));
            let controller = standing.controller.filter(|held| is_owner(held, &old));
            if let Some(held) = controller {
                let epoch = standing.controller_epoch_version;
                ops.push(MultiOp::check(path::CONTROLLER_EPOCH, Some(epoch)));
                ops.push(MultiOp::delete(path::CONTROLLER, Some(held.version)));
            }
        }
        let data = Some(self.registration.encode().into());
        ops.push(MultiOp::create2(registered, data, CreateMode::Ephemeral));
        ops
    }

    /// Whether a multi whose answer was lost was done: then the znode is this session's.
    async fn outcome(
        &self,
        session: SessionId,
        incarnation: Incarnation,
    ) -> Result<Option<BrokerEpoch>, RegistrationError> {
        let standing = self.standing().await?;
        let ours =
            standing.identity.is_some_and(|stored| stored.identity.incarnation == incarnation);
        let registration = standing.registration.filter(|stat| stat.ephemeral_owner == session);
        Ok(registration.filter(|_| ours).map(|stat| BrokerEpoch::new(stat.czxid.get())))
    }
}

fn is_owner(held: &Stat, by: &Stat) -> bool {
    !by.ephemeral_owner.is_none() && held.ephemeral_owner == by.ephemeral_owner
}

fn is_race(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::NoNode | ErrorCode::NodeExists | ErrorCode::BadVersion)
}

fn stored_identity(data: &[u8], stat: &Stat) -> Result<StoredIdentity, RegistrationError> {
    let identity = Identity::decode(data).map_err(|error| RegistrationError::Identity(error.0))?;
    Ok(StoredIdentity { identity, version: stat.version, mzxid: Zxid::new(stat.mzxid.get()) })
}
