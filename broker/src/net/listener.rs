//! Accepts connections on one bound address and owns their tasks.
//!
//! Called by: the server's start. Calls: `connection`. Invariant: at most
//! `Limits::connections_max` connections live; when `run` returns, all of them have ended.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::budget::{Budget, Limits};
use super::connection::Connection;
use super::service::Service;

/// Pause after a failed accept (out of descriptors): long enough not to spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// A bound listener.
pub struct Listener {
    socket: TcpListener,
    local: SocketAddr,
    name: &'static str,
    open: Arc<AtomicUsize>,
}

impl Listener {
    /// What it was bound as.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How many connections are open, kept up to date while it runs.
    pub fn open_connections(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.open)
    }

    /// Binds `address` (port 0 lets the system choose).
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub async fn bind(name: &'static str, address: SocketAddr) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let local = socket.local_addr()?;
        Ok(Self { socket, local, name, open: Arc::default() })
    }

    /// The address that was bound, with its real port.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Serves until `stop` turns true; then lets answers on their way leave and joins every task.
    pub async fn run<S: Service>(
        self,
        service: Arc<S>,
        limits: Limits,
        mut stop: watch::Receiver<bool>,
    ) {
        let budget = Budget::new(limits.in_flight_bytes_max);
        let mut connections = JoinSet::new();
        loop {
            self.open.store(connections.len(), Ordering::Relaxed);
            let accepted = tokio::select! {
                // Cancel-safe: an accept that loses the race leaves the connection in the backlog.
                accepted = self.socket.accept() => accepted,
                // Cancel-safe: a joined task was finished; dropping the future loses nothing.
                Some(_) = connections.join_next() => continue,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((_, peer)) if connections.len() >= limits.connections_max => {
                    debug!(listener = self.name, %peer, "refused: max.connections is reached");
                }
                Ok((stream, peer)) => {
                    let connection =
                        self.connection(stream, peer, &service, limits, budget.clone());
                    let (stop, name) = (stop.clone(), self.name);
                    connections.spawn(async move {
                        if let Some(connection) = connection {
                            let end = connection.serve(stop).await;
                            debug!(listener = name, %peer, "connection ended: {end}");
                        }
                    });
                }
                Err(error) => {
                    warn!(listener = self.name, "cannot accept: {error}");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
        drop(self.socket);
        while connections.join_next().await.is_some() {}
    }

    fn connection<S: Service>(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        service: &Arc<S>,
        limits: Limits,
        budget: Budget,
    ) -> Option<Connection<S>> {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(listener = self.name, %peer, "already gone: {error}");
            return None;
        }
        let local = stream.local_addr().unwrap_or(self.local);
        let session = service.open(peer, local);
        Some(Connection::new(stream, Arc::clone(service), session, limits, budget))
    }
}
