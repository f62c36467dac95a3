//! The controller's multis: sent in order, several under way, each ending in an outcome.
//!
//! Called by: `office`. Calls: the coordinator, `asking` for how one ended.
//! Invariant: they leave in the order in which they were given.

use broker_core::controller::message::WriteId;
use broker_core::store::{Op, WriteOutcome};
use coordinator_client::{Client, Error};
use tokio::task::JoinSet;

use super::asking;

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
        let started = self.client.start_multi(asking::multi_ops(ops)).await;
        let client = self.client.clone();
        // Whatever the ensemble has against it, it is not written.
        let refused = |_| true;
        self.under_way.spawn(async move { (id, asking::outcome(&client, started, refused).await) });
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
