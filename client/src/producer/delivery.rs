//! What became of a record.
//!
//! *Called by* applications, which wait for it, and `driver`, which tells. *Calls* nothing.
//!
//! One [`Settled`] serves all records of a batch, so that a record costs no allocation.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use client_core::producer::{Cause, Ticket, Undelivered, Written as BatchWritten};
use client_protocol::{Offset, PartitionId};
use tokio::sync::Notify;

use crate::error::ClientError;

/// A record that is where it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset; `None` with [`crate::Acks::None`], or when a former attempt was written so long ago that the broker
    /// no longer knows where.
    pub offset: Option<Offset>,
}

/// The end of a batch, once it has come.
#[derive(Debug, Default)]
pub(super) struct Settled {
    result: OnceLock<Result<BatchWritten, Undelivered>>,
    notify: Notify,
}

impl Settled {
    pub(super) fn settle(&self, result: Result<BatchWritten, Undelivered>) {
        // The core settles a batch once.
        let _first = self.result.set(result);
        self.notify.notify_waiters();
    }

    pub(super) async fn wait(&self) -> &Result<BatchWritten, Undelivered> {
        loop {
            let mut notified = std::pin::pin!(self.notify.notified());
            notified.as_mut().enable();
            if let Some(result) = self.result.get() {
                return result;
            }
            notified.await;
        }
    }
}

/// The promise of an answer about one record. Await it, or keep it and look later; dropping it takes nothing back.
#[derive(Clone, Debug)]
pub struct Delivery {
    batch: Arc<Settled>,
    index: u32,
    partition: PartitionId,
}

impl Delivery {
    pub(super) fn new(ticket: Ticket<Arc<Settled>>) -> Self {
        Self { batch: ticket.token, index: ticket.index, partition: ticket.partition }
    }

    /// Where the record goes.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// What became of it; `None` when that is open. Never waits.
    #[must_use]
    pub fn outcome(&self) -> Option<Result<Written, ClientError>> {
        self.batch.result.get().map(|result| self.of(result))
    }

    /// Waits for its end. With [`crate::Acks::All`] a record that is written stays written.
    ///
    /// # Errors
    /// [`ClientError::Undelivered`], which says whether the record may be there all the same.
    pub async fn wait(&self) -> Result<Written, ClientError> {
        self.of(self.batch.wait().await)
    }

    fn of(&self, result: &Result<BatchWritten, Undelivered>) -> Result<Written, ClientError> {
        match result {
            Ok(written) => {
                let offset = written.base_offset.and_then(|base| base.plus_count(self.index));
                Ok(Written { partition: self.partition, offset })
            }
            Err(undelivered) => Err(error(undelivered)),
        }
    }
}

impl IntoFuture for Delivery {
    type Output = Result<Written, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.wait().await })
    }
}

fn error(undelivered: &Undelivered) -> ClientError {
    let (code, reason) = match &undelivered.cause {
        Cause::Refused(code, None) => (Some(*code), code.to_string()),
        Cause::Refused(code, Some(detail)) => (Some(*code), format!("{code} ({detail})")),
        Cause::Expired { after_ms, last: None } => {
            (None, format!("not tried within {after_ms} ms"))
        }
        Cause::Expired { after_ms, last: Some(last) } => {
            (None, format!("not done within {after_ms} ms, last: {last}"))
        }
        Cause::Unusable(reason) => {
            (Some(client_protocol::ErrorCode::InvalidRequest), reason.clone())
        }
        Cause::ShutDown => (None, "the producer was dropped".to_owned()),
    };
    ClientError::Undelivered {
        partition: undelivered.partition.to_string(),
        reason,
        code,
        may_be_written: !undelivered.is_absent,
    }
}
