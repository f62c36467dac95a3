//! Standing for controller: one multi takes `/controller` and raises `/controller_epoch`.
//!
//! Called by: `office`. Calls: the coordinator.
//! Invariant: an election is told only by the session that holds `/controller`; its epoch was raised in
//! the same write, so no two controllers have the same.

use std::time::{SystemTime, UNIX_EPOCH};

use broker_core::controller::Election;
use broker_core::ids::{BrokerId, ControllerEpoch, Zxid};
use broker_core::image::{json, path};
use coordinator_client::protocol::{CreateMode, ErrorCode, MultiOp, MultiResult};
use coordinator_client::{Client, Error};

use super::writes::NO_ROOM_PAUSE;

/// How it went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// This session holds `/controller`.
    Won(Election),
    /// Another one does, or did, as of this zxid.
    Lost(Zxid),
}

/// Stands once.
///
/// # Errors
/// Those of the session; after [`Error::ConnectionLoss`] the outcome was looked up.
pub(super) async fn stand(client: &Client, broker: BrokerId) -> Result<Outcome, Error> {
    let session = client.connected().await?;
    let (data, stat) = client.get_data(path::CONTROLLER_EPOCH).await?;
    let last = json::decode_controller_epoch(&data.unwrap_or_default()).map_err(|error| {
        tracing::error!(path = path::CONTROLLER_EPOCH, "unreadable: {}", error.0);
        Error::UnexpectedAnswer
    })?;
    let epoch = ControllerEpoch::new(last.get().saturating_add(1));
    let node = json::encode_controller(broker, wall_ms());
    let ops = vec![
        MultiOp::create2(path::CONTROLLER, Some(node.into()), CreateMode::Ephemeral),
        MultiOp::set_data(
            path::CONTROLLER_EPOCH,
            Some(json::encode_controller_epoch(epoch).into()),
            Some(stat.version),
        ),
    ];
    match client.multi(ops).await {
        Ok(reply) => match reply.results.as_slice() {
            [MultiResult::Create2(_, held), MultiResult::SetData(raised)] => {
                let zxid = Zxid::new(held.czxid.get());
                Ok(Outcome::Won(Election { epoch, epoch_version: raised.version, zxid }))
            }
            _ => Err(Error::UnexpectedAnswer),
        },
        Err(Error::MultiRefused {
            code: ErrorCode::NodeExists | ErrorCode::BadVersion,
            zxid,
            ..
        }) => Ok(Outcome::Lost(Zxid::new(zxid.get()))),
        Err(Error::ConnectionLoss) => look_up(client, session).await,
        Err(Error::Refused(ErrorCode::QuotaExceeded)) => {
            tokio::time::sleep(NO_ROOM_PAUSE).await;
            Ok(Outcome::Lost(Zxid::new(client.sync("/").await?.get())))
        }
        Err(error) => Err(error),
    }
}

/// A lost answer: whoever holds `/controller` won, and raised the epoch to what it is.
async fn look_up(
    client: &Client,
    session: coordinator_client::protocol::SessionId,
) -> Result<Outcome, Error> {
    let zxid = client.sync("/").await?;
    let held = client.exists(path::CONTROLLER).await?;
    let Some(held) = held.filter(|held| held.ephemeral_owner == session) else {
        return Ok(Outcome::Lost(Zxid::new(zxid.get())));
    };
    let (data, stat) = client.get_data(path::CONTROLLER_EPOCH).await?;
    let epoch = json::decode_controller_epoch(&data.unwrap_or_default())
        .map_err(|_| Error::UnexpectedAnswer)?;
    let zxid = Zxid::new(held.czxid.get());
    Ok(Outcome::Won(Election { epoch, epoch_version: stat.version, zxid }))
}

/// Gives `/controller` up, if this session still holds it.
///
/// # Errors
/// Those of the session.
pub(super) async fn give_up(client: &Client) -> Result<(), Error> {
    let session = client.connected().await?;
    let held = client.exists(path::CONTROLLER).await?;
    let Some(held) = held.filter(|held| held.ephemeral_owner == session) else { return Ok(()) };
    match client.delete(path::CONTROLLER, Some(held.version)).await {
        Err(error) if error.is(ErrorCode::NoNode) => Ok(()),
        result => result,
    }
}

/// What humans read in `/controller` and `/brokers/ids/N`; nothing is decided by it.
pub(super) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
