//! What one step of a shard works with, besides the group: the time, the settings, the way out.
//!
//! *Called by* the files of the requests. *Calls* `writes`. Invariant: nothing leaves a shard but
//! through here. Knows no group.

use client_protocol::ErrorCode;

use super::message::{Effect, Now, Response, Ticket, WriteId};
use super::record::GroupRecord;
use super::settings::Settings;
use super::writes::{NewWrite, Then, Writes, encode};
use crate::ids::Millis;

/// See the module.
pub(super) struct Turn<'a> {
    pub now: Now,
    pub settings: &'a Settings,
    /// Bytes that the shard's members may take beyond those they take now.
    pub member_room: usize,
    pub writes: &'a mut Writes,
    pub effects: &'a mut Vec<Effect>,
}

impl Turn<'_> {
    /// The time that timers run on.
    pub fn mono(&self) -> Millis {
        self.now.mono
    }

    /// Answers a request.
    pub fn respond(&mut self, ticket: Ticket, response: Response) {
        self.effects.push(Effect::Respond { ticket, response });
    }

    /// Sends records into the log as one batch.
    ///
    /// # Errors
    /// Nothing was sent, and `then` will not happen: COORDINATOR_NOT_AVAILABLE while too many writes,
    /// or bytes of them, are on their way, MESSAGE_TOO_LARGE, INVALID_REQUEST for what the format cannot hold.
    pub fn write(
        &mut self,
        group: &str,
        records: Vec<GroupRecord>,
        then: Then,
        deadline: Option<Millis>,
    ) -> Result<WriteId, ErrorCode> {
        if !self.writes.has_room(0) {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        let (encoded, bytes) = encode(&records).ok_or(ErrorCode::InvalidRequest)?;
        if bytes > self.settings.batch_bytes_max {
            return Err(ErrorCode::MessageTooLarge);
        }
        if !self.writes.has_room(bytes) {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        let write = NewWrite { group: group.to_owned(), records, encoded, bytes, then, deadline };
        Ok(self.writes.push(write, self.effects))
    }

    /// Sends records into the log that may be too many for one batch, in several: `then` follows the
    /// last of them.
    ///
    /// # Errors
    /// As [`Turn::write`]; a part of the records may be on their way.
    pub fn write_split(
        &mut self,
        group: &str,
        mut records: Vec<GroupRecord>,
        then: Then,
    ) -> Result<WriteId, ErrorCode> {
        /// Tombstones hold two names each.
        const RECORDS_MAX: usize = 256;
        while records.len() > RECORDS_MAX {
            let rest = records.split_off(RECORDS_MAX);
            self.write(group, std::mem::replace(&mut records, rest), Then::Nothing, None)?;
        }
        self.write(group, records, then, None)
    }
}

/// What clients hear when a write failed: retriable, and to be sent where the group lives then.
pub(super) fn error_of_write(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge => {
            ErrorCode::InvalidCommitOffsetSize
        }
        ErrorCode::InvalidRequest => ErrorCode::InvalidRequest,
        _ => ErrorCode::CoordinatorNotAvailable,
    }
}
