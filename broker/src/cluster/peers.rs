//! Connections to other brokers' inter-broker listener, kept for the next request.
//!
//! Called by: `forward`, `describe`. Calls: `net::peer`.
//! Invariant: a connection is used by one request at a time, and goes back only after a whole answer.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use broker_core::ids::BrokerId;
use broker_core::image::{Endpoint, Image};
use client_protocol::messages::Request;
use thiserror::Error;

use crate::config::INTERNAL_LISTENER;
use crate::net::peer::{PeerConnection, PeerError};

/// Idle connections to one broker.
const IDLE_MAX: usize = 4;
/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Largest answer: a description of every replica of a broker.
const RESPONSE_BYTES_MAX: usize = 64 << 20;

/// Why a broker did not answer.
#[derive(Debug, Error)]
pub(super) enum AskError {
    /// It is not registered, or has no inter-broker listener. Nothing was sent.
    #[error("broker {0} is not registered")]
    Unknown(BrokerId),
    /// It could not be reached. Nothing was sent.
    #[error("not reached: {0}")]
    NotReached(PeerError),
    /// It was asked, and whether it did anything is unknown.
    #[error("no answer: {0}")]
    NoAnswer(PeerError),
}

/// What is asked.
pub(super) struct Asking<'a, R> {
    request: &'a R,
    version: i16,
    /// Doing it twice is doing it once.
    is_repeatable: bool,
}

impl<'a, R> Asking<'a, R> {
    /// Something that may be done twice, should it not be known whether it was.
    pub(super) fn again(request: &'a R, version: i16) -> Self {
        Self { request, version, is_repeatable: true }
    }

    /// Something that is sent once.
    pub(super) fn once(request: &'a R, version: i16) -> Self {
        Self { request, version, is_repeatable: false }
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Peers {
    idle: Mutex<BTreeMap<(String, u16), Vec<PeerConnection>>>,
}

impl Peers {
    /// Asks broker `to`, where `image` says that it is, within `timeout`.
    pub(super) async fn ask<R: Request>(
        &self,
        image: &Image,
        to: BrokerId,
        asking: Asking<'_, R>,
        timeout: Duration,
    ) -> Result<R::Response, AskError> {
        let endpoint = image.broker(to).and_then(|b| b.registration.endpoint(INTERNAL_LISTENER));
        let endpoint = endpoint.ok_or(AskError::Unknown(to))?;
        let Asking { request, version, is_repeatable } = asking;
        // Of one that was idle an end does not tell whether it came before the request or after: what
        // must not be done twice goes on a new one.
        if is_repeatable && let Some(mut connection) = self.take(endpoint) {
            match connection.call(request, version, timeout).await {
                Ok(response) => {
                    self.put_back(endpoint, connection);
                    return Ok(response.body);
                }
                // The broker may have started anew meanwhile: what follows tells.
                Err(PeerError::Io(error)) => tracing::debug!(%error, "idle connection was dead"),
                Err(error) => return Err(AskError::NoAnswer(error)),
            }
        }
        let address = (endpoint.host.as_str(), endpoint.port);
        let client_id = "broker".to_owned();
        let connecting =
            PeerConnection::connect(address, client_id, RESPONSE_BYTES_MAX, CONNECT_MAX);
        let mut connection = connecting.await.map_err(AskError::NotReached)?;
        let response =
            connection.call(request, version, timeout).await.map_err(AskError::NoAnswer)?;
        self.put_back(endpoint, connection);
        Ok(response.body)
    }

    fn take(&self, endpoint: &Endpoint) -> Option<PeerConnection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.get_mut(&(endpoint.host.clone(), endpoint.port))?.pop()
    }

    fn put_back(&self, endpoint: &Endpoint, connection: PeerConnection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = idle.entry((endpoint.host.clone(), endpoint.port)).or_default();
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
    }
}
