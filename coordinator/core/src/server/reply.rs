//! Results to responses, and frames on their way out.
//!
//! Called by `pipeline`, `apply`, `read`. Calls the protocol's encoders. Invariant: frames are
//! pushed in the order in which they must leave. It does not know why something is answered.

use bytes::Bytes;
use coordinator_protocol::{ErrorCode, MultiResult, Response, WatcherEvent, encode_event};

use super::effect::Effect;
use super::step::Server;
use crate::ConnectionId;
use crate::state::{MultiOutcome, OpResult};
use crate::watch::Notification;

impl Server {
    pub(super) fn respond(&mut self, connection: ConnectionId, frame: Bytes) {
        self.count_sent(connection, frame.len());
        self.effects.push(Effect::Respond { connection, frame });
    }

    /// Sends an answer, or keeps it while the connection is owed what it could reveal.
    pub(super) fn respond_in_turn(&mut self, id: ConnectionId, frame: Bytes) {
        if self.subscriptions.is_owed(id) {
            self.stash(id, frame);
        } else {
            self.respond_behind(id, frame);
        }
    }

    /// Sends a frame behind those that are kept: a client has no watch before it has the answer that
    /// left it.
    fn respond_behind(&mut self, id: ConnectionId, frame: Bytes) {
        match self.connections.get(id) {
            Some(held) if held.has_stash() => self.stash(id, frame),
            Some(_) => self.respond(id, frame),
            None => {}
        }
    }

    /// Keeps a frame; a connection that would keep too much is closed.
    fn stash(&mut self, id: ConnectionId, frame: Bytes) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let bytes = frame.len();
        if connection.stash(frame) {
            self.counters.pending_bytes = self.counters.pending_bytes.saturating_add(bytes);
        } else {
            self.close(id);
        }
    }

    /// Sends notifications; a frame for many connections is made once.
    pub(super) fn notify(&mut self, notifications: Vec<Notification>) {
        let mut last: Option<(Notification, Bytes)> = None;
        for notification in notifications {
            let same = last.as_ref().filter(|(told, _)| {
                told.event == notification.event
                    && told.path == notification.path
                    && told.zxid == notification.zxid
            });
            let frame = match same {
                Some((_, frame)) => frame.clone(),
                None => encode_event(
                    notification.zxid,
                    &WatcherEvent::new(notification.event, notification.path.to_string()),
                ),
            };
            self.respond_behind(notification.connection, frame.clone());
            last = Some((notification, frame));
        }
    }
}

/// The body that answers a write.
pub(super) fn to_response(result: OpResult) -> Response {
    match result {
        OpResult::Created { path } => Response::Path(path.to_string()),
        OpResult::Created2 { path, stat } => Response::PathStat(path.to_string(), stat),
        OpResult::DataSet { stat } | OpResult::AclSet { stat } | OpResult::Checked { stat } => {
            Response::Stat(stat)
        }
        OpResult::Reconfigured { data, stat } => Response::DataStat(Some(data), stat),
        OpResult::Multi(outcome) => Response::Multi(multi_results(outcome)),
        OpResult::Deleted | OpResult::SessionClosed(_) | OpResult::OptionsSet => Response::Empty,
    }
}

fn multi_results(outcome: MultiOutcome) -> Vec<MultiResult> {
    match outcome {
        MultiOutcome::Done(results) => results.into_iter().map(multi_result).collect(),
        MultiOutcome::Failed(codes) => codes.into_iter().map(MultiResult::Error).collect(),
    }
}

fn multi_result(result: OpResult) -> MultiResult {
    match result {
        OpResult::Created { path } => MultiResult::Create(path.to_string()),
        OpResult::Created2 { path, stat } => MultiResult::Create2(path.to_string(), stat),
        OpResult::Deleted => MultiResult::Delete,
        OpResult::DataSet { stat } => MultiResult::SetData(stat),
        OpResult::Checked { .. } => MultiResult::Check,
        // These cannot stand inside a multi.
        OpResult::AclSet { .. }
        | OpResult::Multi(_)
        | OpResult::SessionClosed(_)
        | OpResult::OptionsSet
        | OpResult::Reconfigured { .. } => MultiResult::Error(ErrorCode::SystemError),
    }
}
