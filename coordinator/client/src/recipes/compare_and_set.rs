//! Compare and set: a new value made from the old one, written only if nobody wrote in between.
//!
//! Called by: users. Calls: [`Client`].
//! Invariant: the value that is written was made from the value that it replaces. After a lost answer
//! the znode is read again: what we wrote is recognised by being the next version with our bytes.

use crate::client::Client;
use crate::error::Error;
use bytes::Bytes;
use coordinator_protocol::{CreateMode, ErrorCode, Stat};

/// How often a write of somebody else is met with another attempt.
const ATTEMPTS_MAX: u32 = 64;

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareAndSet {
    /// This value was written by us.
    Written(Bytes),
    /// The decision was to leave what was there.
    Kept,
}

/// Replaces what is at `path` by what `decide` makes of it (`None`: there is no znode or no data), until
/// nobody interferes. `decide` returns `None` to leave it. Values must differ from one another, each
/// naming its writer, so that a lost answer can be resolved.
///
/// # Errors
/// Those of [`Client::get_data`], [`Client::set_data`] and [`Client::create`]; [`Error::Contended`].
pub async fn compare_and_set(
    client: &Client,
    path: &str,
    mut decide: impl FnMut(Option<&Bytes>) -> Option<Bytes>,
) -> Result<CompareAndSet, Error> {
    let mut lost: Option<(Bytes, i32)> = None;
    for _ in 0..ATTEMPTS_MAX {
        let (found, stat) = read(client, path).await?;
        if let Some((written, version)) = &lost
            && found.as_ref() == Some(written)
            && stat.is_some_and(|stat| stat.version == *version)
        {
            return Ok(CompareAndSet::Written(written.clone()));
        }
        let Some(value) = decide(found.as_ref()) else { return Ok(CompareAndSet::Kept) };
        match write(client, path, value.clone(), stat).await {
            Ok(()) => return Ok(CompareAndSet::Written(value)),
            Err(Error::ConnectionLoss) => {
                lost = Some((value, stat.map_or(0, |stat| stat.version.wrapping_add(1))));
            }
            Err(error) => match error.code() {
                Some(ErrorCode::BadVersion | ErrorCode::NodeExists | ErrorCode::NoNode) => {}
                _ => return Err(error),
            },
        }
    }
    Err(Error::Contended { attempts: ATTEMPTS_MAX })
}

async fn read(client: &Client, path: &str) -> Result<(Option<Bytes>, Option<Stat>), Error> {
    match client.get_data(path).await {
        Ok((data, stat)) => Ok((data, Some(stat))),
        Err(error) if error.is(ErrorCode::NoNode) => Ok((None, None)),
        Err(error) => Err(error),
    }
}

async fn write(client: &Client, path: &str, value: Bytes, stat: Option<Stat>) -> Result<(), Error> {
    match stat {
        Some(stat) => client.set_data(path, Some(value), Some(stat.version)).await.map(|_| ()),
        None => client.create(path, Some(value), CreateMode::Persistent).await.map(|_| ()),
    }
}
