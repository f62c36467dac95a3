//! What the deciding code asks of the ensemble, asked; and how a multi ended.
//!
//! Called by: `registration`, `office`, `writes`, `producer_ids`. Calls: the coordinator.
//! Invariant: a multi whose answer was lost ends in `Unknown` only once the ensemble has answered a
//! question that was asked after it: what the old connection sent is done by then, or never.

use std::time::Duration;

use broker_core::ids::{SessionId, Zxid};
use broker_core::store::{Ask, Node, Nodes, Op, WriteOutcome};
use bytes::Bytes;
use coordinator_client::protocol::{
    self, CreateMode, ErrorCode, MultiOp, MultiResult, SessionId as WireSession, Stat,
};
use coordinator_client::{Client, Error, MultiReply, PendingMulti};

/// Before a write is decided anew that the coordinators refused for want of room on their disks. Its session is worth
/// more than the write: without it the broker would be gone.
pub(super) const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);

/// What came of it.
pub(super) enum Answered {
    Found(Nodes, Zxid),
    Written(WriteOutcome),
}

/// Asks the ensemble.
///
/// # Errors
/// Those of the session; and a multi that was refused for another reason than that somebody else wrote before.
pub(super) async fn ask(client: &Client, ask: Ask) -> Result<Answered, Error> {
    match ask {
        Ask::Read(paths) => {
            let as_of = zxid(client.sync("/").await?);
            let mut nodes = Nodes::new();
            for path in paths {
                match client.get_data(&path).await {
                    Ok((data, stat)) => drop(nodes.insert(path, node(data, &stat))),
                    Err(error) if error.is(ErrorCode::NoNode) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(Answered::Found(nodes, as_of))
        }
        Ask::Write(ops) => {
            let started = client.start_multi(multi_ops(ops)).await;
            outcome(client, started, is_race).await.map(Answered::Written)
        }
    }
}

/// How a multi ends. `is_conflict`: which refusals are an outcome; others are errors.
///
/// # Errors
/// Those of the session, and refusals.
pub(super) async fn outcome(
    client: &Client,
    started: Result<PendingMulti, Error>,
    is_conflict: fn(ErrorCode) -> bool,
) -> Result<WriteOutcome, Error> {
    match started?.answer().await {
        Ok(reply) => Ok(WriteOutcome::Done { zxid: own_zxid(&reply) }),
        Err(Error::MultiRefused { code, index, zxid: refused }) if is_conflict(code) => {
            Ok(WriteOutcome::Conflict { at: index, zxid: zxid(refused) })
        }
        // For want of room on the coordinators' disks, whatever it was.
        Err(Error::Refused(ErrorCode::QuotaExceeded)) => {
            tokio::time::sleep(NO_ROOM_PAUSE).await;
            Ok(WriteOutcome::Unknown { zxid: zxid(client.sync("/").await?) })
        }
        Err(error) if error.is_retriable() => {
            Ok(WriteOutcome::Unknown { zxid: zxid(client.sync("/").await?) })
        }
        Err(error) => Err(error),
    }
}

/// The broker core's operations on the wire.
pub(super) fn multi_ops(ops: Vec<Op>) -> Vec<MultiOp> {
    ops.into_iter().map(multi_op).collect()
}

/// A session's number as the core has it.
pub(super) fn session_id(session: WireSession) -> SessionId {
    SessionId::new(session.get())
}

/// Somebody else wrote before.
fn is_race(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::NoNode | ErrorCode::NodeExists | ErrorCode::BadVersion)
}

/// The answer's own zxid may be later than the write's, which a node that was created knows.
fn own_zxid(reply: &MultiReply) -> Zxid {
    let created = reply.results.iter().find_map(|result| match result {
        MultiResult::Create2(_, stat) => Some(stat.czxid),
        _ => None,
    });
    zxid(created.unwrap_or(reply.zxid))
}

fn node(data: Option<Bytes>, stat: &Stat) -> Node {
    let owner = stat.ephemeral_owner;
    Node {
        data: data.map(Vec::from).unwrap_or_default(),
        version: stat.version,
        czxid: zxid(stat.czxid),
        mzxid: zxid(stat.mzxid),
        owner: (!owner.is_none()).then(|| session_id(owner)),
    }
}

fn zxid(zxid: protocol::Zxid) -> Zxid {
    Zxid::new(zxid.get())
}

fn multi_op(op: Op) -> MultiOp {
    match op {
        Op::Check { path, version } => MultiOp::check(path, Some(version)),
        Op::Create { path, data } => MultiOp::create(path, some(data), CreateMode::Persistent),
        Op::CreateEphemeral { path, data } => {
            MultiOp::create2(path, some(data), CreateMode::Ephemeral)
        }
        Op::SetData { path, data, version } => MultiOp::set_data(path, some(data), Some(version)),
        Op::Delete { path, version } => MultiOp::delete(path, version),
    }
}

/// Kafka writes null where there is nothing to say.
fn some(data: Vec<u8>) -> Option<Bytes> {
    (!data.is_empty()).then(|| data.into())
}
