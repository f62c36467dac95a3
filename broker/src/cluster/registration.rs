//! The registration (safety.md B1, B2), carried out: `broker_core::registration` decides.
//!
//! Called by: `membership`, with every new session. Calls: the coordinator, the log directories
//! through [`Local`].
//! Invariant: what is asked and what is to be recorded is done in the order in which the core wants it.

use std::io;
use std::sync::Arc;

use broker_core::ids::{BrokerEpoch, BrokerId};
use broker_core::image::BrokerRegistration;
use broker_core::registration::{DirectoryRecord, Held, Next, Refusal, Registrant};
use coordinator_client::{Client, Error};
use thiserror::Error as ThisError;

use super::asking::{self, Answered};
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

impl From<Refusal> for RegistrationError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Identity(reason) => Self::Identity(reason),
            Refusal::Second(second) => {
                let registered = second.registered.iter().map(ToString::to_string).collect();
                Self::SecondBroker { registered }
            }
        }
    }
}

/// Who registers.
pub(super) struct Applicant<'a> {
    pub(super) client: &'a Client,
    pub(super) broker: BrokerId,
    pub(super) registration: BrokerRegistration,
    pub(super) local: &'a Arc<dyn Local>,
    /// No registration of this process went through yet.
    pub(super) is_first: bool,
}

impl Applicant<'_> {
    /// Registers; answers with the registration's czxid, which is the broker epoch.
    ///
    /// # Errors
    /// [`RegistrationError`]; only what was lost on the way is tried again here.
    pub(super) async fn register(&self) -> Result<BrokerEpoch, RegistrationError> {
        let session = asking::session_id(self.client.connected().await?);
        let mut registrant = Registrant::new(self.broker, session, self.registration.encode());
        let mut next = registrant.begin();
        loop {
            next = match next {
                Next::Registered(epoch) => return Ok(epoch),
                Next::Record(record) => {
                    self.record(record).await?;
                    registrant.recorded()
                }
                Next::Ask(ask) => match asking::ask(self.client, ask).await? {
                    Answered::Found(nodes, _) => registrant.found(&nodes, &self.held())?,
                    Answered::Written(outcome) => registrant.written(outcome),
                },
            }
        }
    }

    fn held(&self) -> Held {
        Held {
            directories: self.local.directories(),
            boot_changed: self.is_first && self.local.boot_changed(),
        }
    }

    async fn record(&self, record: DirectoryRecord) -> io::Result<()> {
        let local = Arc::clone(self.local);
        let recording = tokio::task::spawn_blocking(move || local.record(record));
        recording.await.map_err(io::Error::other)?
    }
}
