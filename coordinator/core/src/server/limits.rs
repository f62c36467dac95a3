//! The limits of everything that outside input can make grow.
//!
//! Called by all of `server/`. Invariant: each queue below stays within its limit; what would go
//! beyond it is slowed down where that helps (reading stops), refused or closed where it does not.
//! It does not know settings, but for the size of requests: these are not for tuning.

use coordinator_disk::envelope;
use coordinator_protocol::FRAME_BYTES_MAX;

/// Requests of one connection that are not answered yet; reading from it stops here...
pub const PENDING_REQUESTS_MAX: usize = 1_000;
/// ...and goes on here.
pub const PENDING_REQUESTS_RESUME: usize = 500;
/// Bytes of one connection's unanswered requests at which reading from it stops.
pub const PENDING_BYTES_MAX: usize = 8 << 20;
/// Bytes of one connection's answers and notifications that wait for events which must leave before them;
/// one with more is closed: it reads too little. Above what `READS_BEFORE_WRITE_MAX` reads of the largest
/// nodes are answered by, where nodes have as many bytes as they have by default.
pub const STASH_BYTES_MAX: usize = 20 << 20;
/// Of those, what is left for other than such reads.
const STASH_BYTES_SPARE: usize = 4 << 20;
/// Answers may not be limited to fewer bytes: access lists, members and errors, which are never refused, have to fit.
pub const REPLY_BYTES_MAX_MIN: usize = 128 << 10;
/// An answer of so many bytes is large: Java's clients take fewer, unless they are told otherwise.
pub const LARGE_REPLY_BYTES: usize = FRAME_BYTES_MAX;
/// A request may not be limited to fewer bytes: handshakes and credentials have to fit.
pub const REQUEST_BYTES_MAX_MIN: usize = 1 << 10;
/// Nor to more: it becomes an entry, a record of the log, a message and a part of a snapshot, each of which has one
/// envelope. Numbers grow by a byte or two there, identities come to it, and entries share messages: half is for that.
pub const REQUEST_BYTES_MAX_MAX: usize = envelope::PAYLOAD_BYTES_MAX / 2;
/// Requests that the shell had read before it stopped; a connection with more is closed.
pub const PENDING_REQUESTS_HARD_MAX: usize = 4_000;
/// Requests that may come before the handshake is answered; a connection with more is closed.
pub const EARLY_REQUESTS_MAX: usize = 16;
/// Bytes of those requests, likewise: reading stops with the handshake, so that only what was read
/// together with it can come.
pub const EARLY_BYTES_MAX: usize = 2 << 20;
/// Bytes of unanswered requests of all connections at which reading stops everywhere.
pub const PENDING_BYTES_ALL_MAX: usize = 256 << 20;
/// A change of members in which nothing advances for so long is given up, or turned back: a new member is not there, or gets
/// nothing more of what it lacks.
pub const STANDSTILL_MS_MAX: u64 = 30_000;
/// New members get what the others have within this time, however steadily it goes, or the change is given up: nobody else's
/// can begin. As much as the largest snapshot takes from and to a slow disk.
pub const CATCH_UP_MS_MAX: u64 = 3_600_000;
/// Entries that a new member may lack and count as caught up: while others write it always lacks some.
pub const CAUGHT_UP_ENTRIES: u64 = 100;
/// Entries that a server may lack of what it heard to be committed, once it had what was when it first heard, and still be
/// ready: as many as are on their way where all others write at full speed. Who lacks more shows clients what is seconds old.
pub const READY_LAG_ENTRIES: u64 = 1_000;
/// A server that lost its vote has this time to hear of it before nothing is sent there any more.
pub const DEMOTED_WAIT_MS: u64 = 2_000;
/// Transfers of leadership that wait at one server; more are answered with `ThrottledOp`.
pub const TRANSFERS_MAX: usize = 16;
/// Commands in one log entry.
pub const BATCH_COMMANDS_MAX: usize = 2_000;
/// Bytes in one log entry, beyond its first command.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Bytes in one message of forwarded commands, beyond its first command.
pub const FORWARD_BYTES_MAX: usize = 1 << 20;
/// Commands that wait at the leader for a place in an entry. What is forwarded beyond is dropped;
/// its origin sends it again.
pub const PROPOSAL_QUEUE_MAX: usize = 200_000;
/// Bytes of those commands, likewise.
pub const PROPOSAL_QUEUE_BYTES_MAX: usize = 512 << 20;
/// Sessions of whose queued writes a leader keeps the numbers; repetitions of others are dropped only
/// at apply.
pub const QUEUED_SESSIONS_MAX: usize = 1_000_000;
/// Connections of whose queued create or attach a leader knows, likewise.
pub const QUEUED_HANDSHAKES_MAX: usize = 200_000;
/// Bytes in the answer of a multiRead after which its further reads are refused with -127: one
/// frame of small reads can ask for far more than fits into memory.
pub const MULTI_READ_BYTES_MAX: usize = 8 << 20;
/// Sessions in one report of touched ones.
pub const TOUCHED_PER_MESSAGE_MAX: usize = 10_000;
/// Bytes of names beyond which the answer to a list of children is large: a write behind it is sent only when
/// it is answered. As much as the largest node.
pub const READ_BYTES_MAX: usize = 1 << 20;
/// Names in one page of a list of children; also at most `READ_BYTES_MAX` bytes, but at least one name.
pub const PAGE_NAMES_MAX: usize = 10_000;
/// Changes looked through for what the persistent watches of a client missed; one that was away for more of
/// them is told to look for itself.
pub const MISSED_CHANGES_MAX: usize = 10_000;
/// Paths up to which a setWatches is one read among others; one of more is done in parts...
pub const SET_WATCHES_AT_ONCE_MAX: usize = 1_000;
/// ...of so many paths in one step, for all connections together: 10,000 of 100 bytes took 30 to 45 ms. Persistent
/// watches are not parted, so that what they missed is told in order: there may be as many as one request may name.
pub const SET_WATCHES_PER_STEP_MAX: usize = 5_000;
/// Weight above which a request ends its connection while `PENDING_BYTES_ALL_MAX` wait already: what only sets of watches can
/// have, and requests where they may be larger than by default.
pub const SET_WATCHES_HELD_BYTES: usize = 16 << 20;
/// A path counts there once more for so many bytes: 10,000 of 1,000 bytes took 90 to 120 ms.
pub const SET_WATCHES_BYTES_PER_COUNT: usize = 400;
/// Unanswered reads behind which a write is sent at once: they are answered before it is applied,
/// room or not. Where nodes may have more bytes than by default, there may be fewer.
pub const READS_BEFORE_WRITE_MAX: usize = 16;
/// Bytes of answers given to one connection in one step, beyond the last of them; the rest waits for
/// the next step, and for room.
pub const ANSWER_BYTES_PER_STEP: usize = 1 << 20;
/// Bytes of subscription events given to one connection in one step, beyond the last of them.
pub const SUBSCRIPTION_BYTES_PER_STEP: usize = 1 << 20;
/// Containers and TTL nodes that a leader looks at in one step: as many as take a few milliseconds.
pub const LOOKED_AT_PER_STEP_MAX: usize = 10_000;
/// Containers and TTL nodes that are removed at one look for them; the rest at the next.
pub const REMOVED_PER_CHECK_MAX: usize = 10_000;
/// Sessions of a server without a quorum, which are no others' business; the oldest is forgotten.
pub const LOCAL_SESSIONS_MAX: usize = 10_000;
/// Sessions whose socket was lost that one server keeps reporting.
pub const LOSSES_MAX: usize = 1_000_000;
/// Connections that were lost during their handshake and are remembered until that is decided.
pub const LOST_HANDSHAKES_MAX: usize = 10_000;
/// Bytes of each text of a record for the audit log; a longer one is cut.
pub const AUDIT_TEXT_BYTES_MAX: usize = 4 << 10;
/// Identities of one connection: they travel with each of its writes.
pub const IDENTITIES_MAX: usize = 16;
/// Bytes of the credentials for one of them.
pub const IDENTITY_BYTES_MAX: usize = 1024;

/// What depends on how large requests, and so nodes, may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeBounds {
    /// Unanswered reads behind which a write is sent at once.
    pub(super) reads_before_write: usize,
    /// Bytes of answers that wait for events.
    pub(super) stash_bytes: usize,
}

impl NodeBounds {
    /// Those reads are answered by the same number of bytes however large nodes are, as long as one fits.
    pub(super) fn of(request_bytes_max: usize) -> Self {
        let all = READS_BEFORE_WRITE_MAX.saturating_mul(FRAME_BYTES_MAX);
        let reads = all.checked_div(request_bytes_max).unwrap_or(READS_BEFORE_WRITE_MAX);
        let reads_before_write = reads.clamp(1, READS_BEFORE_WRITE_MAX);
        let answers = reads_before_write.saturating_mul(request_bytes_max);
        let stash_bytes = answers.saturating_add(STASH_BYTES_SPARE).max(STASH_BYTES_MAX);
        Self { reads_before_write, stash_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_nodes_are_read_fewer_at_a_time_before_a_write() {
        let bounds = |bytes| {
            let NodeBounds { reads_before_write, stash_bytes } = NodeBounds::of(bytes);
            assert!(reads_before_write * bytes < stash_bytes);
            (reads_before_write, stash_bytes >> 20)
        };
        assert_eq!(bounds(REQUEST_BYTES_MAX_MIN), (16, 20));
        assert_eq!(bounds(FRAME_BYTES_MAX), (16, 20));
        assert_eq!(bounds(4 << 20), (3, 20));
        assert_eq!(bounds(REQUEST_BYTES_MAX_MAX), (1, 36));
    }
}
