//! The broker as a whole: what is started in which order, and stopped in the reverse.
//!
//! Called by: `main`, tests. Calls: everything else in this package. Invariant: addresses are bound
//! first (a taken port fails early), logs are recovered before the broker registers, and it serves
//! before it says so.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::BytesMut;
use client_protocol::api::Scope;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::{Api, Session};
use crate::config::{Config, INTERNAL_LISTENER, PUBLIC_LISTENER};
use crate::http::Http;
use crate::net::listener::Listener;
use crate::net::service::Service;
use crate::response::Dispatch;

/// Where a server can be reached.
#[derive(Clone, Copy, Debug)]
pub struct BoundAddresses {
    /// Clients.
    pub public: SocketAddr,
    /// Brokers.
    pub internal: SocketAddr,
    /// /live and /ready.
    pub http: Option<SocketAddr>,
}

/// A running broker.
pub struct Server {
    addresses: BoundAddresses,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Service for Api {
    type Session = Session;

    fn open(&self, peer: SocketAddr, local: SocketAddr) -> Session {
        Self::open(self, peer, local)
    }

    fn dispatch(&self, session: &mut Session, frame: BytesMut) -> Dispatch {
        Self::dispatch(self, session, frame)
    }
}

impl Server {
    /// Starts a broker; returns when it serves.
    ///
    /// # Errors
    /// What kept it from starting, with its context.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let (stop, stopping) = watch::channel(false);
        let (_ready_sender, ready) = watch::channel(true);
        let public = Listener::bind(PUBLIC_LISTENER, config.listeners.public)
            .await
            .with_context(|| format!("cannot listen on {}", config.listeners.public))?;
        let internal = Listener::bind(INTERNAL_LISTENER, config.listeners.internal)
            .await
            .with_context(|| format!("cannot listen on {}", config.listeners.internal))?;
        let http = match config.listeners.http {
            Some(address) => Some(
                Http::bind(address, ready)
                    .await
                    .with_context(|| format!("cannot listen on {address}"))?,
            ),
            None => None,
        };
        let addresses = BoundAddresses {
            public: public.local_address(),
            internal: internal.local_address(),
            http: http.as_ref().map(Http::local_address).transpose()?,
        };
        let mut tasks = JoinSet::new();
        let limits = config.listeners.limits;
        tasks.spawn(public.run(Arc::new(Api::new(Scope::Public)), limits, stopping.clone()));
        tasks.spawn(internal.run(Arc::new(Api::new(Scope::InterBroker)), limits, stopping.clone()));
        if let Some(http) = http {
            tasks.spawn(http.run(stopping));
        }
        Ok(Self { addresses, stop, tasks })
    }

    /// Where it can be reached.
    pub fn addresses(&self) -> BoundAddresses {
        self.addresses
    }

    /// Stops in order; returns when nothing of it runs any more.
    pub async fn stop(mut self) {
        // Every receiver may be gone already: then there is nobody to tell.
        let _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
    }
}
