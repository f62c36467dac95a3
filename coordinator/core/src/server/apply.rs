//! Committed entries take effect: state first, then notifications, then answers.
//!
//! Called for each output of consensus. Calls `state`, `watch`, `subscription`, `session`,
//! `pipeline`. Invariant (safety.md A8): what a change fires is pushed before any answer that
//! could reveal the change, and a connection that has no room for it waits for its replies too;
//! commands are answered one by one, so that a read between two writes of its session sees the state
//! between them. It does not know who proposed what.

use bytes::Bytes;
use coordinator_protocol::{SubscriptionEvent, encode_subscription_event};

use super::audit::bounded;
use super::limits::SUBSCRIPTION_BYTES_PER_STEP;
use super::notices::Notice;
use super::step::Server;
use crate::ConnectionId;
use crate::consensus::SnapshotImage;
use crate::members::MemberIds;
use crate::state::{AppliedCommand, Entry, State};
use crate::subscription::Delivery;
use crate::tree::{Change, ChangeKind, Identities, OverSoftLimit, may_read};
use crate::watch::Notification;

impl Server {
    pub(super) fn apply_entry(&mut self, index: u64, term: u64, data: &Bytes) {
        let entry = match data.is_empty() {
            true => Ok(Entry::default()),
            false => Entry::decode(data),
        };
        let Ok(entry) = entry else {
            // Every member would do the same with it; going on would split their states.
            self.halt("a committed log entry cannot be read");
            return;
        };
        self.state.begin_entry(term, index, entry.wall_ms);
        self.snapshots.applied(data.len());
        self.proposals.applied(index);
        for command in &entry.commands {
            let applied = self.state.apply_command(command);
            self.proposals.decided(&applied);
            self.audit_applied(command, &applied);
            self.publish(applied);
        }
        self.state.end_entry();
        self.after_apply();
    }

    /// Who has a part in consensus is this from here on.
    pub(super) fn apply_members(&mut self, index: u64, term: u64, ids: MemberIds) {
        self.state.apply_members(term, index, ids);
        self.snapshots.applied(0);
        self.proposals.applied(index);
        self.changing.stale = true;
        self.after_apply();
    }

    /// The state is another's now: everything that was derived from it begins anew.
    pub(super) fn install_snapshot(&mut self, image: &SnapshotImage) {
        let state = State::decode_snapshot(&image.data);
        let Some(state) = state.ok().filter(|state| state.applied_index() == image.index) else {
            self.halt("an installed snapshot cannot be read");
            return;
        };
        #[cfg(planted)]
        let state = state.planted_with(self.config.planted);
        self.state = state;
        self.changing.stale = true;
        let from = self.consensus.leader();
        let (index, bytes) = (image.index, image.data.len());
        self.note(Notice::SnapshotInstalled { from, bytes, index });
        let bytes = bytes as u64;
        self.snapshots.installed((image.index, bytes), self.state.last_zxid());
        // Watches fire by changes, and those that the snapshot jumped over are not known: their
        // clients come back and set them anew, which finds what was missed. The same goes for
        // writes and handshakes whose outcome was jumped over.
        let all: Vec<ConnectionId> = self.connections.iter().map(|(id, _)| id).collect();
        for id in all {
            self.close(id);
        }
        self.subscriptions.reset(self.state.last_zxid());
        self.after_apply();
    }

    fn publish(&mut self, applied: AppliedCommand) {
        let AppliedCommand { zxid, outcome, changes } = applied;
        let mut notifications = Vec::new();
        for change in &changes {
            let before = notifications.len();
            self.watches.collect(change, &mut notifications);
            self.counters.counted.fired(notifications.get(before..).unwrap_or_default());
        }
        self.note_soft_limits(&changes);
        notifications.retain(|told| self.may_hear(told));
        if planted!(self.config.planted, LoseNotification) && zxid.get() % 16 == 0 {
            notifications.clear();
        }
        if !planted!(self.config.planted, LoseChange) || zxid.get() % 16 != 0 {
            self.subscriptions.record(zxid, &changes);
        }
        if planted!(self.config.planted, ReplyBeforeNotification) {
            self.on_outcome(outcome);
            self.notify(notifications);
            return self.deliver_subscriptions();
        }
        self.notify(notifications);
        self.deliver_changes();
        self.on_outcome(outcome);
    }

    /// As ZooKeeper, whose servers each warn of what they apply.
    fn note_soft_limits(&mut self, changes: &[Change]) {
        if self.is_replaying() {
            // Whoever reads the log of the process before was warned.
            return;
        }
        let grows =
            |change: &&Change| matches!(change.kind, ChangeKind::Created | ChangeKind::DataChanged);
        let tree = self.state.tree();
        let over = changes.iter().filter(grows).find_map(|one| tree.over_soft_limit(&one.path));
        if let Some(OverSoftLimit { path, what, limit, usage }) = over {
            self.note(Notice::SoftQuota { path: bounded(&path), what, limit, usage });
        }
    }

    /// Whether the connection may read the node that it would hear of, by the list that it had then.
    pub(super) fn may_hear(&self, told: &Notification) -> bool {
        let Some(connection) = self.connections.get(told.connection) else { return false };
        told.acl.as_ref().is_none_or(|acl| may_read(acl, &connection.identities))
    }

    fn after_apply(&mut self) {
        self.propose_handshakes();
        self.run_ready_syncs();
        self.snapshot_if_due();
    }

    /// Gives subscribers the changes that they count on before any reply, as far as their
    /// connections have room. Replies to the others are held until they have.
    fn deliver_changes(&mut self) {
        let owed: Vec<ConnectionId> = self.subscriptions.owed().collect();
        for id in owed {
            let Some(bytes_max) = self.subscription_room(id) else { continue };
            let reader = (id, &*self.identities_of(id));
            let events = self.subscriptions.take_owed(reader, self.state.tree(), bytes_max);
            self.send_events(id, events);
        }
    }

    /// Gives a connection that is about to be closed the changes that its last answers wait for, room or
    /// not: as many as in any step. If that is not all, the answers are lost with the connection.
    pub(super) fn deliver_last_changes(&mut self, id: ConnectionId) {
        let reader = (id, &*self.identities_of(id));
        let bytes_max = SUBSCRIPTION_BYTES_PER_STEP;
        for event in self.subscriptions.take_owed(reader, self.state.tree(), bytes_max) {
            self.respond(id, encode_subscription_event(&event));
        }
    }

    /// Gives subscribers what is due, as far as their connections have room; snapshots come after the
    /// replies that waited for changes.
    pub(super) fn deliver_subscriptions(&mut self) {
        self.deliver_changes();
        let ready: Vec<ConnectionId> = self.subscriptions.ready().collect();
        for id in ready {
            if self.subscriptions.is_owed(id) {
                continue;
            }
            let Some(bytes_max) = self.subscription_room(id) else { continue };
            let reader = (id, &*self.identities_of(id));
            let events = self.subscriptions.take(reader, self.state.tree(), bytes_max);
            self.send_events(id, events);
        }
    }

    fn identities_of(&self, id: ConnectionId) -> Identities {
        self.connections.get(id).map_or_else(|| [].into(), |held| held.identities.clone())
    }

    fn send_events(&mut self, id: ConnectionId, events: Vec<SubscriptionEvent>) {
        for event in events {
            self.respond(id, encode_subscription_event(&event));
        }
        self.release_held(id);
    }

    /// How many bytes of events the connection may be given in this step, if any.
    fn subscription_room(&self, id: ConnectionId) -> Option<usize> {
        let connection = self.connections.get(id).filter(|held| !held.backlogged)?;
        let sent = connection.sent_in(self.step_number);
        let room = SUBSCRIPTION_BYTES_PER_STEP.saturating_sub(sent);
        (room > 0).then_some(room)
    }

    fn has_room(&self, id: ConnectionId) -> bool {
        self.connections.get(id).is_some_and(|connection| !connection.backlogged)
    }

    /// Whether a further step would deliver more to subscribers.
    pub(super) fn has_undelivered_events(&self) -> bool {
        self.subscriptions.ready().any(|id| self.has_room(id))
    }

    /// Tells quiet subscribers up to where they know everything.
    pub(super) fn deliver_bookmarks(&mut self) {
        let connections = &self.connections;
        let has_room = |id| connections.get(id).is_some_and(|held| !held.backlogged);
        for Delivery { connection, event } in self.subscriptions.bookmarks(has_room) {
            self.respond(connection, encode_subscription_event(&event));
        }
    }
}
