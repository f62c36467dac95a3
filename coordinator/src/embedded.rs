//! A whole single-member coordinator inside another process.
//!
//! Called by: the broker, when it is told to need nothing beside itself. Calls: `server`, on a thread of its own.
//! Invariant: it is an ordinary server with an ordinary port and data folder; the process around it talks to it as
//! any client does. Dropping the handle stops it and waits for the end.
//! Does not know: who embeds it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use coordinator_disk::RealDisk;
use tokio::sync::oneshot;

use crate::config::Config;
use crate::server::{Addresses, Server, ServerError};

/// A running embedded coordinator.
pub struct Embedded {
    addresses: Addresses,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), ServerError>>>,
}

impl Embedded {
    /// Starts a server that stands alone on `client_address` (port 0 takes any free one) with its data in `data_dir`.
    /// Clients can connect when it returns.
    ///
    /// # Errors
    /// As [`Server::bind`].
    pub fn start(data_dir: PathBuf, client_address: SocketAddr) -> Result<Embedded, ServerError> {
        Embedded::start_with(Config::standalone(data_dir, client_address))
    }

    /// As [`Embedded::start`], with every setting.
    ///
    /// # Errors
    /// As [`Server::bind`].
    pub fn start_with(config: Config) -> Result<Embedded, ServerError> {
        let (stop, stopped) = oneshot::channel();
        let (started, outcome) = std::sync::mpsc::channel();
        let body = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(ServerError::Thread)?;
            runtime.block_on(async move {
                let bound = Server::bind(config, Arc::new(RealDisk)).await.and_then(|server| {
                    let addresses = server.addresses().map_err(ServerError::Thread)?;
                    Ok((server, addresses))
                });
                let (server, addresses) = match bound {
                    Ok(bound) => bound,
                    Err(error) => {
                        // Nobody waits only when the starting thread is gone.
                        let _ = started.send(Err(error));
                        return Ok(());
                    }
                };
                let _ = started.send(Ok(addresses));
                // A dropped sender stops as well as a message.
                server.run(async { drop(stopped.await) }).await
            })
        };
        let thread = std::thread::Builder::new()
            .name("coordinator".into())
            .spawn(body)
            .map_err(ServerError::Thread)?;
        let addresses = outcome.recv().map_err(|_| {
            ServerError::Thread(io::Error::other("the coordinator's thread ended at its start"))
        })??;
        Ok(Embedded { addresses, stop: Some(stop), thread: Some(thread) })
    }

    /// Where clients connect.
    pub fn client_address(&self) -> SocketAddr {
        self.addresses.client
    }

    /// Where probes connect, if anywhere.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.addresses.http
    }

    /// Whether it has ended by itself; [`Embedded::stop`] tells why.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops it and waits until its sockets are closed and its folder is free.
    ///
    /// # Errors
    /// [`ServerError::Halted`] when it had ended by itself before.
    pub fn stop(mut self) -> Result<(), ServerError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), ServerError> {
        drop(self.stop.take());
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err(ServerError::Halted("its thread ended by a panic")),
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // Why it ended is only of use to who asked by `stop`.
        let _ = self.end();
    }
}
