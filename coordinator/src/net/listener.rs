//! Takes clients in.
//!
//! Called by: `server`. Calls: one `connection` task per client.
//! Invariant: at most `connections_max` clients are in; one more is closed at once. A connection's number is not used
//! twice while the process runs.
//! Does not know: what clients say.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coordinator_core::ConnectionId;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::connection;
use super::gate::Gate;
use crate::core_loop::Inputs;
use crate::tls::Handshakes;

/// The socket that clients connect to.
pub struct ClientListener {
    listener: TcpListener,
    connections_max: usize,
    gate: Arc<(Gate, Handshakes)>,
    inputs: Inputs,
}

impl ClientListener {
    /// A listener whose clients, `connections_max` at most and those that the gate admits, talk to the core behind
    /// `inputs`.
    pub fn new(
        listener: TcpListener,
        connections_max: usize,
        gate: Gate,
        inputs: Inputs,
    ) -> ClientListener {
        let gate = Arc::new((gate, Handshakes::new()));
        ClientListener { listener, connections_max, gate, inputs }
    }

    /// Accepts until the task is dropped, and every client's task with it.
    pub async fn run(self) {
        let mut clients = JoinSet::new();
        let places = Arc::new(Semaphore::new(self.connections_max));
        let numbers = AtomicU64::new(1);
        loop {
            let (stream, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause_after(&error).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                warn!(%address, max = self.connections_max, "too many clients, one is sent away");
                continue;
            };
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%address, %error, "a client went before it was in");
                continue;
            }
            let id = ConnectionId::new(numbers.fetch_add(1, Ordering::Relaxed));
            let (inputs, gate) = (self.inputs.clone(), Arc::clone(&self.gate));
            clients.spawn(async move {
                connection::serve(id, (stream, address.ip()), gate, inputs).await;
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
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
}
