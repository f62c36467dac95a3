//! Election: the one session that owns an ephemeral leads.
//!
//! Called by: users. Calls: `register`, [`Client`].
//! Invariant: [`Election::Won`] is said only by the session that owns the znode. That it still does can
//! only be checked by a write that depends on it.

use crate::client::Client;
use crate::error::Error;
use crate::recipes::register::{Registration, register};
use crate::watch::Watch;
use bytes::Bytes;
use coordinator_protocol::Stat;

/// How an election went.
#[derive(Debug)]
pub enum Election {
    /// This session leads.
    Won {
        /// The Stat of its znode; the czxid numbers the terms.
        stat: Stat,
        /// Fires when the znode changes or goes.
        watch: Watch,
    },
    /// Another one leads.
    Lost {
        /// What the leader wrote.
        data: Option<Bytes>,
        /// The Stat of its znode.
        stat: Stat,
        /// Fires when the znode changes or goes: then try again.
        watch: Watch,
    },
}

/// Tries once to become the leader at `path`.
///
/// # Errors
/// Those of [`register`].
pub async fn elect(client: &Client, path: &str, data: Option<Bytes>) -> Result<Election, Error> {
    let registration = register(client, path, data).await?;
    let (_, watch) = client.exists_and_watch(path).await?;
    Ok(match registration {
        Registration::Done(stat) => Election::Won { stat, watch },
        Registration::Taken { data, stat, .. } => Election::Lost { data, stat, watch },
    })
}
