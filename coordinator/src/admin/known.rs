//! What is known of a server at one moment: made in one place, for both writers.
//!
//! Called by: the core's task, which fills in what the core knows, and `desk` the rest. Calls: the core.
//! Invariant: all that the core says of one [`Known`] is of the same moment; lists are made only when they are asked for.
//! Does not know: words, commands, formats.

use std::net::SocketAddr;
use std::sync::Arc;

use coordinator_core::server::{
    ConnectionInfo, EnsembleView, Listed, Measures, Mode, SessionInfo, Status, WatchSummary,
};
use coordinator_protocol::SessionId;
use tokio::sync::oneshot;

use super::monitor::mean;
use crate::core_loop::{Input, Inputs};

/// Which lists are to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// None.
    Summary,
    /// The connections.
    Connections,
    /// Sessions, ephemerals and connections.
    Sessions,
    /// What each session watches.
    Watches,
    /// Who watches each path.
    WatchesByPath,
}

/// What the core's task says.
#[derive(Debug, Clone)]
pub struct Known {
    /// Gauges and counters.
    pub status: Status,
    /// What metrics are made of.
    pub measures: Measures,
    /// Who belongs to the ensemble.
    pub ensemble: EnsembleView,
    /// How much is watched.
    pub watches: WatchSummary,
    /// Those that were wanted.
    pub lists: Lists,
}

/// Lists; `None` for what was not wanted.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    /// Connections, in the order in which they came.
    pub connections: Option<Listed<Connected>>,
    /// Sessions of the ensemble, by id.
    pub sessions: Option<Listed<SessionInfo>>,
    /// Ephemerals, by owner.
    pub ephemerals: Option<Listed<(SessionId, Arc<str>)>>,
    /// What is watched, by session.
    pub watches: Option<Listed<(SessionId, Arc<str>)>>,
    /// The same, by path.
    pub watches_by_path: Option<Listed<(Arc<str>, SessionId)>>,
}

/// A connection, with what its socket knows.
#[derive(Debug, Clone)]
pub struct Connected {
    /// What the core knows.
    pub info: ConnectionInfo,
    /// Where the client is.
    pub remote: Option<SocketAddr>,
    /// Whether it encrypts.
    pub is_encrypted: bool,
}

impl Connected {
    /// What Java's selector would wait for: 1 to read, 4 to write.
    pub fn interest(&self) -> u32 {
        u32::from(self.info.reading) | (u32::from(self.info.backlogged) << 2)
    }
}

impl Known {
    /// ZooKeeper's word for the server's part; `None` where it serves nobody.
    pub fn serving_as(&self) -> Option<&'static str> {
        let confirmed = mode_name(self.status.mode).filter(|_| self.status.confirmed);
        confirmed.or(self.status.read_only.then_some("read-only"))
    }

    /// Whether it is one of an ensemble, by the log or its settings.
    pub fn is_of_ensemble(&self) -> bool {
        !self.ensemble.servers.is_empty()
    }

    /// Whether it leads others.
    pub fn leads(&self) -> bool {
        self.status.mode == Mode::Leader
    }

    /// The phase of ZooKeeper's protocol that is nearest to where this server is.
    pub fn phase(&self) -> &'static str {
        match (self.status.mode, self.status.confirmed) {
            (Mode::Looking | Mode::Halted, _) => "election",
            (_, false) => "synchronization",
            (_, true) => "broadcast",
        }
    }

    /// Mean time from request to answer since the last reset, ms.
    pub fn average_latency(&self) -> f64 {
        let latency = self.status.since_reset.latency;
        mean(latency.sum, latency.count)
    }
}

/// ZooKeeper's word for the part in the ensemble; `None` while there is no part.
pub fn mode_name(mode: Mode) -> Option<&'static str> {
    match mode {
        Mode::Standalone => Some("standalone"),
        Mode::Leader => Some("leader"),
        Mode::Follower => Some("follower"),
        Mode::Observer => Some("observer"),
        Mode::Looking | Mode::Halted => None,
    }
}

/// Asks the core's task; `None` while the server stops.
pub async fn status(inputs: &Inputs) -> Option<Status> {
    let (answer, status) = oneshot::channel();
    inputs.send(Input::Status(answer)).await.ok()?;
    status.await.ok()
}
