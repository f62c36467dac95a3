//! A coordinator of its own, for a broker that was given none.
//!
//! Called by: the server's start; nothing else in this street touches the crate `coordinator`.
//! Invariant: it listens on loopback only and keeps its data in one folder; the broker talks to it
//! as to any other coordinator. Dropping the handle stops it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use coordinator::ServerError;
use coordinator::embedded::Embedded;

use crate::config::CoordinatorAddress;

/// A running coordinator and how to reach it.
pub struct EmbeddedCoordinator {
    handle: Embedded,
}

impl EmbeddedCoordinator {
    /// Starts one with its data in `folder`. Blocks until it accepts connections.
    ///
    /// # Errors
    /// The folder cannot be used, or another process uses it.
    pub fn start(folder: PathBuf) -> Result<Self, ServerError> {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Ok(Self { handle: Embedded::start(folder, any_port)? })
    }

    /// What the broker connects to.
    pub fn address(&self) -> CoordinatorAddress {
        let servers = vec![self.handle.client_address().to_string()];
        CoordinatorAddress { servers, chroot: String::new() }
    }

    /// Stops it. Blocks until its folder is free.
    ///
    /// # Errors
    /// It had ended by itself before.
    pub fn stop(self) -> Result<(), ServerError> {
        self.handle.stop()
    }
}
