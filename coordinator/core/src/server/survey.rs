//! What operators ask about in lists: connections, sessions, ephemerals, watches, members.
//!
//! Called by the shell at any time. Calls `state`, `watch`, `office`. Invariant: reading changes nothing, and a list has an
//! end, whatever there is: it holds up everybody else while it is made. It does not know the formats in
//! which it is shown.

use std::collections::BTreeSet;
use std::sync::Arc;

use coordinator_protocol::{SessionId, Zxid};

use super::connection::Connection;
use super::step::Server;
use super::traffic::ConnectionTraffic;
use crate::members::Members;
use crate::{ConnectionId, ServerId};

/// Entries of one list.
pub const LISTED_MAX: usize = 10_000;
/// Bytes of the paths in one list.
pub const LISTED_BYTES_MAX: usize = 1 << 20;

/// A list, as far as lists go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    /// The first ones.
    pub items: Vec<T>,
    /// How many there are.
    pub total: usize,
}

/// A connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Its name.
    pub connection: ConnectionId,
    /// Its session; nothing before the handshake is answered.
    pub session: Option<SessionId>,
    /// The time-out of that, or 0.
    pub timeout_ms: u32,
    /// Wall time at which its handshake came.
    pub established_wall_ms: i64,
    /// Wall time at which it is closed if nothing more comes.
    pub expires_wall_ms: i64,
    /// Requests that are not answered.
    pub outstanding: usize,
    /// Whether requests are read.
    pub reading: bool,
    /// Whether much waits for the client to read.
    pub backlogged: bool,
    /// What came and went.
    pub traffic: ConnectionTraffic,
}

/// A session of the ensemble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its id.
    pub id: SessionId,
    /// Its time-out.
    pub timeout_ms: u32,
    /// Wall time at which it ends if nothing more is heard; only the leader knows.
    pub expires_wall_ms: Option<i64>,
}

/// How much is watched here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WatchSummary {
    /// Connections that watch something.
    pub connections: usize,
    /// Paths that are watched.
    pub paths: usize,
    /// Pairs of both.
    pub watches: usize,
}

/// The servers of the ensemble.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnsembleView {
    /// By the log, or by the settings while that has none; nobody where a server stands alone.
    pub servers: Members,
    /// The write that agreed on them; 0 for settings.
    pub version: Zxid,
    /// Those whose link works.
    pub up: BTreeSet<ServerId>,
}

impl Server {
    /// Who belongs to the ensemble.
    #[must_use]
    pub fn ensemble_view(&self) -> EnsembleView {
        let (servers, version) = match self.state.membership() {
            Some(membership) => (membership.servers.clone(), membership.version),
            None => (self.config.servers.clone(), Zxid::ZERO),
        };
        let is_up = |id: &ServerId| *id != self.config.id && self.consensus.is_peer_up(*id);
        let up = servers.keys().copied().filter(|id| is_up(id)).collect();
        EnsembleView { servers, version, up }
    }

    /// Connections, in the order in which they came.
    #[must_use]
    pub fn list_connections(&self) -> Listed<ConnectionInfo> {
        let all = self.connections.iter().map(|(id, held)| self.connection_info(id, held));
        listed(self.connections.len(), all, |_| 0)
    }

    fn connection_info(&self, connection: ConnectionId, held: &Connection) -> ConnectionInfo {
        let session = held.session();
        let timeout_ms = session.map_or(0, |session| session.timeout_ms);
        let left_ms = match held.handshake() {
            Some(handshake) => handshake.deadline.since(self.now.mono),
            None => {
                let silent_ms = self.lived().since(held.heard);
                u64::from(timeout_ms).saturating_sub(silent_ms)
            }
        };
        ConnectionInfo {
            connection,
            session: session.map(|session| session.id),
            timeout_ms,
            established_wall_ms: held.established_wall_ms,
            expires_wall_ms: self.wall_in(left_ms),
            outstanding: held.pipeline.len(),
            reading: held.reading,
            backlogged: held.backlogged,
            traffic: held.traffic,
        }
    }

    /// Sessions of the ensemble, in the order of their ids.
    #[must_use]
    pub fn list_sessions(&self) -> Listed<SessionInfo> {
        let sessions = self.state.sessions();
        let total = sessions.len();
        let all = sessions.map(|session| SessionInfo {
            id: session.id,
            timeout_ms: session.timeout_ms,
            expires_wall_ms: self.session_left_ms(session.id).map(|left| self.wall_in(left)),
        });
        listed(total, all, |_| 0)
    }

    /// Ephemerals with their owners, in the order of these.
    #[must_use]
    pub fn list_owned(&self) -> Listed<(SessionId, Arc<str>)> {
        let tree = self.state.tree();
        let all = tree.ephemeral_owners().flat_map(|(owner, _)| {
            tree.ephemerals_of(owner).map(move |path| (owner, path.clone()))
        });
        listed(tree.ephemeral_count(), all, |(_, path)| path.len())
    }

    /// What is watched, by session.
    #[must_use]
    pub fn list_watches(&self) -> Listed<(SessionId, Arc<str>)> {
        let all = self.watches.connections().flat_map(|(id, paths)| {
            let session = self.session_of(id);
            paths.iter().map(move |path| (session, path.clone()))
        });
        listed(self.watches.count(), all, |(_, path)| path.len())
    }

    /// The same by path.
    #[must_use]
    pub fn list_watches_by_path(&self) -> Listed<(Arc<str>, SessionId)> {
        let all = self.watches.pairs().map(|(path, id)| (path.clone(), self.session_of(id)));
        // A path is shown once for all who watch it, but counts for each: the simpler bound.
        listed(self.watches.count(), all, |(path, _)| path.len())
    }

    /// How much is watched.
    #[must_use]
    pub fn watch_summary(&self) -> WatchSummary {
        WatchSummary {
            connections: self.watches.connections().count(),
            paths: self.watches.path_count(),
            watches: self.watches.count(),
        }
    }

    pub(super) fn session_of(&self, id: ConnectionId) -> SessionId {
        let session = self.connections.get(id).and_then(Connection::session);
        session.map_or(SessionId::NONE, |session| session.id)
    }

    fn wall_in(&self, left_ms: u64) -> i64 {
        self.now.wall_ms.saturating_add(i64::try_from(left_ms).unwrap_or(i64::MAX))
    }
}

fn listed<T>(total: usize, all: impl Iterator<Item = T>, bytes: impl Fn(&T) -> usize) -> Listed<T> {
    let mut left = LISTED_BYTES_MAX;
    let fits = |item: &T| {
        let rest = left.checked_sub(bytes(item));
        left = rest.unwrap_or(0);
        rest.is_some()
    };
    Listed { items: all.take(LISTED_MAX).take_while(fits).collect(), total }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_ends_at_so_many_entries_and_at_so_many_bytes() {
        let whole = listed(LISTED_MAX, 0..LISTED_MAX, |_| 0);
        assert_eq!((whole.items.len(), whole.total), (LISTED_MAX, LISTED_MAX));
        let cut = listed(LISTED_MAX + 1, 0..=LISTED_MAX, |_| 0);
        assert_eq!((cut.items.len(), cut.total), (LISTED_MAX, LISTED_MAX + 1));
        let fit = listed(4, 0..4, |_| LISTED_BYTES_MAX / 4);
        assert_eq!(fit.items.len(), 4);
        // Nothing behind what does not fit, or the list would have gaps.
        let large = listed(3, [1, LISTED_BYTES_MAX, 1].into_iter(), |bytes| *bytes);
        assert_eq!((large.items, large.total), (vec![1], 3));
    }
}
