//! The controller's multis: sent in order, several under way, each ending in an outcome.
//!
//! Called by: `office`. Calls: the coordinator.
//! Invariant: a multi whose answer was lost ends in `Unknown` only once the ensemble has answered a
//! question that was asked after it: what the old connection sent is done by then, or never.

use std::time::Duration;

use broker_core::controller::message::WriteId;
use broker_core::controller::{Op, WriteOutcome};
use broker_core::ids::Zxid;
use coordinator_client::protocol::{self, CreateMode, ErrorCode, MultiOp};
use coordinator_client::{Client, Error, PendingMulti};
use tokio::task::JoinSet;

/// Before a write is decided anew that the coordinators refused for want of room on their disks. Its session is worth
/// more than the write: without it the broker would be gone.
pub(super) const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);

/// How a multi ended: `Err` means that this broker can no longer tell, and has to leave the office.
pub(super) type Ended = (WriteId, Result<WriteOutcome, Error>);

/// Those under way.
pub(super) struct Writes {
    client: Client,
    under_way: JoinSet<Ended>,
}

impl Writes {
    pub(super) fn new(client: Client) -> Self {
        Self { client, under_way: JoinSet::new() }
    }

    /// Sends a multi behind those that were sent before.
    pub(super) async fn send(&mut self, id: WriteId, ops: Vec<Op>) {
        let ops = ops.into_iter().map(multi_op).collect();
        let started = self.client.start_multi(ops).await;
        let client = self.client.clone();
        self.under_way.spawn(async move { (id, outcome(&client, started).await) });
    }

    /// The next that ended; waits for ever while none is under way. Cancel-safe.
    pub(super) async fn next(&mut self) -> Ended {
        loop {
            match self.under_way.join_next().await {
                Some(Ok(ended)) => return ended,
                Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
                None => std::future::pending().await,
            }
        }
    }

    /// Forgets those under way: the office is lost, and with it their meaning.
    pub(super) fn forget(&mut self) {
        self.under_way = JoinSet::new();
    }
}

async fn outcome(
    client: &Client,
    started: Result<PendingMulti, Error>,
) -> Result<WriteOutcome, Error> {
    match started?.answer().await {
        Ok(reply) => Ok(WriteOutcome::Done { zxid: zxid(reply.zxid) }),
        Err(Error::MultiRefused { index, zxid: refused, .. }) => {
            Ok(WriteOutcome::Conflict { at: index, zxid: zxid(refused) })
        }
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

fn zxid(zxid: protocol::Zxid) -> Zxid {
    Zxid::new(zxid.get())
}

fn multi_op(op: Op) -> MultiOp {
    match op {
        Op::Check { path, version } => MultiOp::check(path, Some(version)),
        Op::Create { path, data } => MultiOp::create(path, some(data), CreateMode::Persistent),
        Op::SetData { path, data, version } => MultiOp::set_data(path, some(data), Some(version)),
        Op::Delete { path } => MultiOp::delete(path, None),
    }
}

/// Kafka writes null where there is nothing to say.
fn some(data: Vec<u8>) -> Option<bytes::Bytes> {
    (!data.is_empty()).then(|| data.into())
}
