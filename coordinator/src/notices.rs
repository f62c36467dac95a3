//! Says in the log what the core has noticed.
//!
//! Called by: the core's task, after each step. Calls: the log.
//! Invariant: the core says how often; here are words only.

use coordinator_core::server::{Notice, Noticed};
use tracing::{info, warn};

/// One line.
pub fn tell(noticed: Noticed) {
    let Noticed { notice, times } = noticed;
    match notice {
        Notice::LargeReply { operation, path, bytes, session, is_refused: false } => warn!(
            operation, path, bytes, %session, times,
            "an answer is larger than Java's clients take unless their jute.maxbuffer is raised: they lose their connection, \
             come back and ask again (maxResponseBytes answers with an error instead); one of so many since the last such line"
        ),
        Notice::SoftQuota { path, what, limit, usage } => warn!(
            path,
            what,
            limit,
            usage,
            times,
            "a write has passed the soft limit of a quota, or was done beyond it; one of so many since the last such line"
        ),
        Notice::SnapshotInstalled { from, bytes, index } => {
            let from = from.map_or("a leader that is gone".to_owned(), |id| id.to_string());
            info!(
                from,
                bytes,
                index,
                times,
                "this server was too far behind for the log and got a snapshot: its clients come again"
            );
        }
        Notice::UnlikeLimits { own: (own, bytes), others } => {
            let others: Vec<_> =
                others.iter().map(|(id, bytes)| format!("server {id}: {bytes}")).collect();
            warn!(
                own = format!("server {own}: {bytes}"),
                others = others.join(", "),
                "members do not have the same jute.maxbuffer: each closes its own clients by its own, so that a request is refused at one \
                 and done at another, and larger ones reach this server's log from there; set it alike in all files"
            );
        }
        Notice::SessionRefused { client, limit } => warn!(
            client,
            limit,
            times,
            "a client has as many sessions as it may have (maxSessionsPerClient), or all together have: one more is sent away, one of \
             so many since the last such line"
        ),
        Notice::WatchesRefused { client, session, watches, all } => warn!(
            client, %session, watches, all, times,
            "there are as many watches as may be (maxWatchesPerSession, maxWatchesPerClient, maxWatches): one more is refused with -125, \
             and who would set again more than twice as many is closed; one of so many since the last such line"
        ),
        Notice::LargeReply { operation, path, bytes, session, is_refused: true } => warn!(
            operation, path, bytes, %session, times,
            "an answer would be larger than maxResponseBytes, its client is told -127; one of so many since the last such line"
        ),
    }
}
