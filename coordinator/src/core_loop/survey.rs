//! What operators are told of the core and of the sockets around it.
//!
//! Called by: the core's task. Calls: the core.
//! Invariant: reading changes nothing; a reset touches nothing that is decided by.
//! Does not know: in which form it is shown.

use coordinator_core::server::{ConnectionInfo, Listed};

use super::{CoreLoop, Reset};
use crate::admin::{Connected, Known, Lists, Wanted};

impl CoreLoop {
    /// A reading of everything, with the lists that are wanted.
    pub(super) fn survey(&self, wanted: Wanted) -> Known {
        let core = &self.core;
        let mut lists = Lists::default();
        match wanted {
            Wanted::Summary => {}
            Wanted::Connections => lists.connections = Some(self.connected()),
            Wanted::Sessions => {
                lists.sessions = Some(core.list_sessions());
                lists.ephemerals = Some(core.list_owned());
                lists.connections = Some(self.connected());
            }
            Wanted::Watches => lists.watches = Some(core.list_watches()),
            Wanted::WatchesByPath => lists.watches_by_path = Some(core.list_watches_by_path()),
        }
        Known {
            status: core.status(),
            measures: core.measures(),
            ensemble: core.ensemble_view(),
            watches: core.watch_summary(),
            lists,
        }
    }

    fn connected(&self) -> Listed<Connected> {
        let Listed { items, total } = self.core.list_connections();
        let with_socket = |info: ConnectionInfo| {
            let held = self.connections.get(&info.connection);
            Connected {
                remote: held.and_then(|held| held.remote),
                is_encrypted: held.is_some_and(|held| held.outbox.socket().is_encrypted()),
                info,
            }
        };
        Listed { items: items.into_iter().map(with_socket).collect(), total }
    }

    /// Counts from nothing again.
    pub(super) fn reset(&mut self, which: Reset) {
        match which {
            Reset::Server => self.core.reset_traffic(),
            Reset::Connections => self.core.reset_connection_traffic(),
        }
    }
}
