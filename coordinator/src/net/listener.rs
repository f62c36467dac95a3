//! Takes clients in.
//!
//! Called by: `server`. Calls: one `connection` task per client.
//! Invariant: at most so many clients are in as there are places; one more is closed at once, unless another has not said
//! yet who it is, which is closed instead. A connection's number is not used twice while the process runs.
//! Does not know: what clients say.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coordinator_core::ConnectionId;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::connection::{self, Entrance, Guest};
use super::gate::Gate;
use super::large_frames::{LargeFrames, Patience};
use super::places::{Limits, Places};
use super::seldom::Seldom;
use super::socket::Scratch;
use super::too_large::TooLarge;
use crate::admin::Desk;
use crate::tls::Handshakes;

/// From a client's connect to the end of what it says first, the handshake of TLS included.
const GREETING_MAX: Duration = Duration::from_secs(10);
/// How long a frame above the usual limit may take; a very large one has more. Who announces one and sends nothing has its room
/// for as long as a lost packet may take to come again.
const LARGE_FRAMES: Patience =
    Patience { whole: Duration::from_secs(30), silence: Duration::from_secs(5) };

/// How large requests may be.
pub struct RequestLimits {
    /// Bytes of one, but of what sets watches again.
    pub bytes_max: usize,
    /// Those that were larger.
    pub too_large: Arc<TooLarge>,
}

impl RequestLimits {
    /// So many bytes, and nobody came with more so far.
    pub fn up_to(bytes_max: usize) -> RequestLimits {
        RequestLimits { bytes_max, too_large: Arc::default() }
    }
}

/// The socket that clients connect to.
pub struct ClientListener {
    listener: TcpListener,
    limits: Limits,
    entrance: Entrance,
}

impl ClientListener {
    /// A listener whose clients, as many as `limits` says and those that the gate admits, talk to the core behind
    /// `desk`.
    pub fn new(
        listener: TcpListener,
        limits: Limits,
        gate: Gate,
        requests: RequestLimits,
        desk: Arc<Desk>,
    ) -> Self {
        let handshakes = Handshakes::new();
        let refused = Seldom::default();
        let entrance = Entrance {
            gate,
            handshakes,
            greeting_max: GREETING_MAX,
            desk,
            refused,
            requests,
            large_frames: LargeFrames::new(LARGE_FRAMES),
            scratch: Scratch::default(),
        };
        ClientListener { listener, limits, entrance }
    }

    /// Accepts until the task is dropped, and every client's task with it.
    pub async fn run(self) {
        let mut clients = JoinSet::new();
        let (places, entrance) = (Places::new(self.limits), Arc::new(self.entrance));
        let (numbers, sent_away) = (AtomicU64::new(1), Seldom::default());
        loop {
            let (stream, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause_after(&error).await;
                    continue;
                }
            };
            let from = address.ip();
            let (place, ticket) = match places.take(from).await {
                Ok(taken) => taken,
                Err(full) => {
                    if let Some(clients) = sent_away.count() {
                        warn!(%address, ?full, clients, "too many, one of so many since the last such line is sent away");
                    }
                    continue;
                }
            };
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%address, %error, "a client went before it was in");
                continue;
            }
            let id = ConnectionId::new(numbers.fetch_add(1, Ordering::Relaxed));
            let (guest, entrance) = (Guest { stream, from, ticket }, Arc::clone(&entrance));
            clients.spawn(async move {
                connection::serve(id, guest, entrance).await;
                drop(place);
            });
            // Ended tasks are kept until they are asked for.
            while clients.try_join_next().is_some() {}
        }
    }
}

/// Running out of descriptors does not mend itself within a microsecond: others have to close first.
async fn pause_after(error: &io::Error) {
    warn!(%error, "cannot take a client in");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[cfg(test)]
mod tests;
