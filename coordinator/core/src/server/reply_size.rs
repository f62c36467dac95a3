//! How large answers are: what a client's buffer would not hold is refused where a setting says so, and told of.
//!
//! Called by `read`, before it leaves a watch, and by the pipeline. Calls `notices`. Invariant: a read whose answer would have
//! more bytes than the setting allows is answered by -127 and has done nothing; an answer to a write is sent however large it
//! is, because the write was done. It does not know what is read.

use coordinator_protocol::{ErrorCode, MultiReadResult, OpCode};

use super::audit::bounded;
use super::limits::{LARGE_REPLY_BYTES, READ_BYTES_MAX};
use super::measures;
use super::notices::Notice;
use super::step::Server;
use crate::ConnectionId;

/// Of an answer's header.
const HEADER_BYTES: usize = 16;
/// Of a list's or a buffer's length, and of a code.
const NUMBER_BYTES: usize = 4;
/// Of a Stat.
const STAT_BYTES: usize = 68;
/// Of the header of one result among many, and of what stands behind the last.
const RESULT_HEADER_BYTES: usize = 9;
/// Of a page, beside its names.
const PAGE_BYTES: usize = HEADER_BYTES + NUMBER_BYTES + 1 + STAT_BYTES;

/// What a read is asked by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    op: OpCode,
    /// Bytes of the same answer that are not of this read.
    beside: usize,
}

impl Asked {
    /// By a request of its own.
    pub(super) fn by(op: OpCode) -> Self {
        Self { op, beside: HEADER_BYTES }
    }

    /// The same, with a Stat.
    pub(super) fn with_stat(self) -> Self {
        Self { beside: self.beside.saturating_add(STAT_BYTES), ..self }
    }

    /// As one of many: behind results of so many bytes, and before so many, each of which may be an error.
    fn among(before: usize, behind: usize) -> Self {
        let errors = behind.saturating_mul(ERROR_RESULT_BYTES);
        let beside = HEADER_BYTES + 2 * RESULT_HEADER_BYTES;
        let beside = beside.saturating_add(before).saturating_add(errors);
        Self { op: OpCode::MultiRead, beside }
    }
}

const ERROR_RESULT_BYTES: usize = RESULT_HEADER_BYTES + NUMBER_BYTES;

/// Bytes of the results of many reads, as they come.
pub(super) struct ManyReads {
    bytes: usize,
    left: usize,
}

impl ManyReads {
    pub(super) fn new(count: usize) -> Self {
        Self { bytes: 0, left: count }
    }

    /// By whom the next one is asked.
    pub(super) fn next(&mut self) -> Asked {
        self.left = self.left.saturating_sub(1);
        Asked::among(self.bytes, self.left)
    }

    pub(super) fn add(&mut self, result: &MultiReadResult) {
        let body = match result {
            MultiReadResult::GetData(data, _) => {
                data_bytes(data.as_ref().map_or(0, |data| data.len()))
            }
            MultiReadResult::GetChildren(names) => list_bytes(names.iter().map(String::len)),
            MultiReadResult::Error(_) => NUMBER_BYTES,
        };
        self.bytes = self.bytes.saturating_add(RESULT_HEADER_BYTES).saturating_add(body);
    }
}

/// Of data and its Stat.
pub(super) fn data_bytes(length: usize) -> usize {
    length.saturating_add(NUMBER_BYTES + STAT_BYTES)
}

/// Of a list of texts of these lengths.
pub(super) fn list_bytes(lengths: impl Iterator<Item = usize>) -> usize {
    lengths
        .fold(NUMBER_BYTES, |sum, length| sum.saturating_add(length).saturating_add(NUMBER_BYTES))
}

impl Server {
    /// Whether a read may be answered by so many bytes, beside those that are not its own.
    ///
    /// # Errors
    /// `ThrottledOp`, as for what a multiRead has no room for: clients that know no limit of their own would rather have an
    /// error than lose their connection, come back and ask again.
    pub(super) fn admit_reply(
        &mut self,
        id: ConnectionId,
        (asked, path): (Asked, Option<&str>),
        bytes: usize,
    ) -> Result<(), ErrorCode> {
        let bytes = bytes.saturating_add(asked.beside);
        let limit = self.config.reply_bytes_max;
        let is_refused = limit > 0 && bytes > limit;
        if is_refused {
            self.counters.counted.refused_replies =
                self.counters.counted.refused_replies.saturating_add(1);
        }
        // What the setting allows, it allows knowingly.
        if is_refused || (limit == 0 && bytes >= LARGE_REPLY_BYTES) {
            self.note_large(id, (asked.op, path), bytes, is_refused);
        }
        if is_refused { Err(ErrorCode::ThrottledOp) } else { Ok(()) }
    }

    /// Whether so many reads may be answered together: where all of them are refused, there is still an error for each.
    ///
    /// # Errors
    /// As `admit_reply`.
    pub(super) fn admit_errors(&mut self, id: ConnectionId, count: usize) -> Result<(), ErrorCode> {
        let bytes = count.saturating_mul(ERROR_RESULT_BYTES).saturating_add(RESULT_HEADER_BYTES);
        self.admit_reply(id, (Asked::by(OpCode::MultiRead), None), bytes)
    }

    /// Bytes of names in one page of a list of children.
    pub(super) fn page_bytes_max(&self) -> usize {
        match self.config.reply_bytes_max {
            0 => READ_BYTES_MAX,
            limit => limit.saturating_sub(PAGE_BYTES).min(READ_BYTES_MAX),
        }
    }

    /// An answer is sent: its bytes behind the length prefix.
    pub(super) fn count_reply(&mut self, id: ConnectionId, op: OpCode, bytes: usize) {
        self.counters.counted.replied(bytes);
        // Reads were told of before, with their paths.
        if bytes >= LARGE_REPLY_BYTES && measures::is_update(op) {
            self.note_large(id, (op, None), bytes, false);
        }
    }

    fn note_large(
        &mut self,
        id: ConnectionId,
        (op, path): (OpCode, Option<&str>),
        bytes: usize,
        is_refused: bool,
    ) {
        let (session, path) = (self.session_of(id), path.map(bounded));
        let operation = measures::name(op);
        self.note(Notice::LargeReply { operation, path, bytes, session, is_refused });
    }
}
