//! Registration: an ephemeral that says "I am here" for as long as the session lives.
//!
//! Called by: users. Calls: [`Client`].
//! Invariant: after an `Ok` the znode exists, belongs to this session and holds this data; a lost answer
//! is resolved by looking at who owns the znode.

use crate::client::Client;
use crate::error::Error;
use bytes::Bytes;
use coordinator_protocol::{CreateMode, ErrorCode, SessionId, Stat};

/// How often a lost answer or a znode that comes and goes is met with another attempt.
const ATTEMPTS_MAX: u32 = 16;

/// Whose the znode is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Ours; the Stat's czxid numbers this registration among all of the same path.
    Done(Stat),
    /// Somebody else's, whose session is still alive.
    Taken {
        /// Whose.
        owner: SessionId,
        /// What they wrote.
        data: Option<Bytes>,
        /// The Stat of their znode.
        stat: Stat,
    },
}

/// Creates the ephemeral at `path` with `data`, unless another session has it.
///
/// # Errors
/// Those of [`Client::create`] and [`Client::get_data`]; [`Error::Contended`] when the znode keeps
/// coming and going.
pub async fn register(
    client: &Client,
    path: &str,
    data: Option<Bytes>,
) -> Result<Registration, Error> {
    for _ in 0..ATTEMPTS_MAX {
        match client.create(path, data.clone(), CreateMode::Ephemeral).await {
            Ok((_, stat)) => return Ok(Registration::Done(stat)),
            // Of a lost create the znode tells whether it was done: if so it is ours.
            Err(Error::ConnectionLoss) => {}
            Err(error) if error.is(ErrorCode::NodeExists) => {}
            Err(error) => return Err(error),
        }
        let session = client.connected().await?;
        match client.get_data(path).await {
            Ok((found, stat)) if stat.ephemeral_owner == session && found == data => {
                return Ok(Registration::Done(stat));
            }
            Ok((found, stat)) => {
                return Ok(Registration::Taken { owner: stat.ephemeral_owner, data: found, stat });
            }
            Err(error) if error.is(ErrorCode::NoNode) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::Contended { attempts: ATTEMPTS_MAX })
}
