//! Who waits for the log: syncs for a read index, handshakes for what their client has seen.
//!
//! Called by `request`, `handshake`, `apply` and consensus's answers. Calls `pipeline`. Invariant:
//! a sync is answered only when everything committed before it came is applied here (a quorum
//! confirmed that index after the sync came). It does not know what is read afterwards.

use std::collections::{BTreeMap, BTreeSet};

use super::connection::Step;
use super::step::Server;
use crate::ConnectionId;
use crate::consensus::ReadId;

/// Connections that wait, by what for.
#[derive(Debug, Default)]
pub(super) struct Syncs {
    /// For a read index.
    asked: BTreeMap<ReadId, ConnectionId>,
    /// For the log to be applied up to an index.
    indexed: BTreeSet<(u64, ConnectionId)>,
    /// Handshakes that may not have been proposed yet.
    fenced: BTreeSet<ConnectionId>,
}

impl Syncs {
    pub(super) fn wait(&mut self, read: ReadId, id: ConnectionId) {
        self.asked.insert(read, id);
    }

    pub(super) fn fence(&mut self, id: ConnectionId) {
        self.fenced.insert(id);
    }

    pub(super) fn has_fenced(&self) -> bool {
        !self.fenced.is_empty()
    }

    pub(super) fn take_fenced(&mut self) -> BTreeSet<ConnectionId> {
        std::mem::take(&mut self.fenced)
    }

    /// Requests that wait for a quorum's word, or for the log to come to it.
    pub(super) fn len(&self) -> usize {
        self.asked.len().saturating_add(self.indexed.len())
    }

    pub(super) fn forget(&mut self, id: ConnectionId) {
        self.fenced.remove(&id);
    }

    fn take_applied(&mut self, applied: u64) -> Option<ConnectionId> {
        let first = *self.indexed.first()?;
        if first.0 > applied {
            return None;
        }
        self.indexed.remove(&first);
        Some(first.1)
    }
}

impl Server {
    /// Consensus confirmed up to where a sync has to wait.
    pub(super) fn on_read_ready(&mut self, read: ReadId, index: u64) {
        let Some(id) = self.syncs.asked.remove(&read) else { return };
        let Some(connection) = self.connections.get_mut(id) else { return };
        for pending in &mut connection.pipeline {
            if let Step::Sync { read: asked, index: known, .. } = &mut pending.step
                && *asked == read
            {
                *known = Some(index);
            }
        }
        self.syncs.indexed.insert((index, id));
        self.run_ready_syncs();
    }

    pub(super) fn run_ready_syncs(&mut self) {
        while let Some(id) = self.syncs.take_applied(self.state.applied_index()) {
            self.run_pipeline(id);
        }
    }
}
