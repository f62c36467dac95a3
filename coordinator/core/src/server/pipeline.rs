//! Whose turn it is: answers leave in the order of requests (pings pass what waits for members or a leader), reads see the writes before them and
//! none behind.
//!
//! Called when a request came, a write was decided or a sync became ready. Calls `read`, `reply`.
//! Invariant: a read runs when everything before it is answered, and at once; nothing is answered
//! while the connection is owed events of its subscriptions, or has no room, or was given enough in
//! this step: requests are small and their answers may be large. Writes behind a sync, a large read or watches
//! that are set in parts, or behind reads that wait for that, are sent only afterwards: a read never sees a write behind it. The answer to
//! the end of a session waits for nothing. It does not know what is read.

use coordinator_protocol::{ErrorCode, Response, encode_reply};

use super::connection::{AfterSync, Pending, Step};
use super::limits::ANSWER_BYTES_PER_STEP;
use super::reply;
use super::request::ends_connection;
use super::step::Server;
use super::traffic::Answered;
use crate::ConnectionId;
use crate::state::OpResult;

/// Before a frame.
const LENGTH_BYTES: usize = 4;

impl Server {
    /// Answers what can be answered, from the oldest request on.
    pub(super) fn run_pipeline(&mut self, id: ConnectionId) {
        loop {
            let (applied, step) = (self.state.applied_index(), self.step_number);
            let Some(connection) = self.connections.get_mut(id) else { return };
            connection.held = false;
            let Some(front) = connection.pipeline.front() else { break };
            let ready = match &front.step {
                Step::Write(_) | Step::Reconfig(_) | Step::Transfer(_) => false,
                Step::Sync { index, .. } => index.is_some_and(|index| index <= applied),
                Step::Written(_)
                | Step::Read(_)
                | Step::LargeRead(_)
                | Step::SetWatches(_)
                | Step::Answer(_) => true,
            };
            if !ready {
                self.answer_pings(id);
                break;
            }
            let enough = connection.sent_in(step) >= ANSWER_BYTES_PER_STEP;
            let ends = matches!(&front.step, Step::Written(Ok(OpResult::SessionClosed(_))));
            let waits = enough || connection.backlogged || self.subscriptions.is_owed(id);
            // What stands before a write that is on its way cannot wait: it must not see it. Nor can the
            // end of a session: nothing else would ever close the connection.
            if waits && !ends && !connection.has_writes_out() {
                connection.held = true;
                if enough {
                    self.unfinished.insert(id);
                }
                break;
            }
            if matches!(&front.step, Step::SetWatches(unset) if !unset.is_done()) {
                self.rearming.wait(id);
                break;
            }
            let Some(pending) = connection.pop() else { break };
            let freed = pending.bytes;
            self.counters.pending_bytes = self.counters.pending_bytes.saturating_sub(freed);
            self.answer(id, pending);
        }
        self.send_stash(id);
        self.send_held_writes(id);
        self.regulate_reading(id);
    }

    /// Pings do not wait behind what may take half a minute: clients would take the server for dead. They know these
    /// answers by their number and take them whenever they come.
    fn answer_pings(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let front = connection.pipeline.front().map(|front| &front.step);
        let is_long = matches!(front, Some(Step::Reconfig(_) | Step::Transfer(_)));
        if !is_long || connection.backlogged || self.subscriptions.is_owed(id) {
            return;
        }
        for ping in connection.take_pings() {
            self.counters.pending_bytes = self.counters.pending_bytes.saturating_sub(ping.bytes);
            self.answer(id, ping);
        }
    }

    /// Goes on with what had no place in an earlier step.
    pub(super) fn finish_answers(&mut self) {
        let step = self.step_number;
        for id in std::mem::take(&mut self.unfinished) {
            let Some(connection) = self.connections.get(id) else { continue };
            if connection.sent_in(step) >= ANSWER_BYTES_PER_STEP {
                self.unfinished.insert(id);
            } else {
                self.run_pipeline(id);
            }
        }
    }

    /// Answers that waited for room or for events may go now.
    pub(super) fn release_held(&mut self, id: ConnectionId) {
        self.send_stash(id);
        let held = self.connections.get(id).is_some_and(|found| found.held && !found.backlogged);
        if held && !self.subscriptions.is_owed(id) {
            self.run_pipeline(id);
        }
    }

    /// Frames that waited for events leave once these are out.
    fn send_stash(&mut self, id: ConnectionId) {
        if self.subscriptions.is_owed(id) {
            return;
        }
        let Some(connection) = self.connections.get_mut(id).filter(|found| found.has_stash())
        else {
            return;
        };
        let before = connection.pending_bytes;
        let stash = connection.take_stash();
        let freed = before.saturating_sub(connection.pending_bytes);
        self.counters.pending_bytes = self.counters.pending_bytes.saturating_sub(freed);
        for frame in stash {
            self.respond(id, frame);
        }
    }

    fn answer(&mut self, id: ConnectionId, pending: Pending) {
        let Pending { xid, op, received, step, .. } = pending;
        let path = match &step {
            Step::Read(request)
            | Step::LargeRead(request)
            | Step::Sync { then: AfterSync::Read(request), .. } => self.audited_path(request),
            _ => None,
        };
        let outcome = match step {
            Step::Written(result) => result.map(reply::to_response),
            Step::Read(request) | Step::LargeRead(request) => self.read(id, request),
            Step::Sync { then: AfterSync::Path(path), .. } => Ok(Response::Path(path)),
            Step::Sync { then: AfterSync::Read(request), .. } => self.read(id, request),
            Step::SetWatches(unset) => unset.outcome(),
            Step::Answer(answer) => answer,
            Step::Write(_) | Step::Reconfig(_) | Step::Transfer(_) => return,
        };
        let error = outcome.as_ref().err().copied();
        if matches!(error, Some(ErrorCode::NoAuth | ErrorCode::AuthFailed)) {
            self.audit_denial(id, op, path);
        }
        let frame =
            encode_reply(xid, self.state.last_zxid(), outcome.as_ref().map_err(|code| *code));
        let bytes = frame.len();
        self.respond_in_turn(id, frame);
        self.count_answer(id, Answered { xid, op, received }, bytes);
        self.count_reply(id, op, bytes.saturating_sub(LENGTH_BYTES));
        if ends_connection(op, error) {
            self.deliver_last_changes(id);
            self.send_stash(id);
            self.close(id);
        }
    }

    /// Writes that nothing stands in the way of any more go to the leader.
    fn send_held_writes(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        for command in connection.take_sendable(|| self.link.number()) {
            self.link.push(command);
        }
    }
}
