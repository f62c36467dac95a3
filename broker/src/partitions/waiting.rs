//! Whom to tell what became of a produce, and whom to wake for a fetch.
//!
//! Called by: `produce`, `fetch`, `partition`. Calls: nothing but wakers.
//! Invariant: each batch of a produce is settled once, and the request is answered with the last.
//! Who waits, and until when, is the purgatory's to know.

use std::sync::{Arc, Mutex, PoisonError};

use client_protocol::ErrorCode;
use tokio::sync::{Notify, oneshot};

use super::produce::{ProduceOutcome, Refused};

/// Where the outcomes of one produce request are gathered.
pub(super) struct Reply {
    inner: Mutex<Gathered>,
}

struct Gathered {
    outcomes: Vec<ProduceOutcome>,
    left: usize,
    sender: Option<oneshot::Sender<Vec<ProduceOutcome>>>,
}

impl Reply {
    /// For a request of `count` batches.
    pub fn new(count: usize) -> (Arc<Self>, oneshot::Receiver<Vec<ProduceOutcome>>) {
        let (sender, receiver) = oneshot::channel();
        let unsettled = Err(Refused { error: ErrorCode::UnknownServerError, reason: None });
        let inner =
            Gathered { outcomes: vec![unsettled; count], left: count, sender: Some(sender) };
        (Arc::new(Self { inner: Mutex::new(inner) }), receiver)
    }

    /// Settles one batch; the last one sends the answer.
    fn settle(&self, index: usize, outcome: ProduceOutcome) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = inner.outcomes.get_mut(index) {
            *place = outcome;
        }
        inner.left = inner.left.saturating_sub(1);
        if inner.left == 0 {
            let outcomes = std::mem::take(&mut inner.outcomes);
            if let Some(sender) = inner.sender.take() {
                // The connection may be gone: then nobody wants the answer.
                let _ = sender.send(outcomes);
            }
        }
    }
}

/// One batch of a produce request, and whom to tell about it.
#[derive(Clone)]
pub(super) struct Ticket {
    reply: Arc<Reply>,
    index: usize,
}

impl Ticket {
    pub fn new(reply: &Arc<Reply>, index: usize) -> Self {
        Self { reply: Arc::clone(reply), index }
    }

    pub fn settle(self, outcome: ProduceOutcome) {
        self.reply.settle(self.index, outcome);
    }

    pub fn refuse(self, error: ErrorCode) {
        self.settle(Err(Refused { error, reason: None }));
    }
}

/// A fetch that waits, shared by the partitions that it waits on.
#[derive(Clone)]
pub(super) struct Waker(Arc<Notify>);

impl Waker {
    pub fn new() -> Self {
        Self(Arc::new(Notify::new()))
    }

    /// Whether both stand for the same fetch.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub fn wake(&self) {
        self.0.notify_one();
    }

    pub async fn woken(&self) {
        self.0.notified().await;
    }
}
