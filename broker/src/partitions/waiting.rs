//! Requests that wait on partitions: produces for the high watermark, fetches for bytes.
//!
//! Called by: `produce`, `fetch`, `partition`. Calls: nothing but wakers.
//! Invariant: each batch of a produce is settled once, and the request is answered with the last;
//! waking a fetch too early costs a look, never a wrong answer. Knows no log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use broker_core::ids::Millis;
use client_protocol::{BrokerId, ErrorCode};
use tokio::sync::{Notify, oneshot};

use super::produce::{ProduceOutcome, Produced, Refused};

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
    pub fn settle(&self, index: usize, outcome: ProduceOutcome) {
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

/// A batch that is in the log and waits until it is committed.
pub(super) struct WaitingProduce {
    /// The high watermark that is needed.
    pub needed: i64,
    pub deadline: Millis,
    pub produced: Produced,
    pub ticket: Ticket,
}

/// The produces that wait on one partition, by rising offset.
#[derive(Default)]
pub(super) struct WaitingProduces {
    queue: VecDeque<WaitingProduce>,
}

impl WaitingProduces {
    pub fn push(&mut self, waiting: WaitingProduce) {
        // A duplicate waits for an offset below those behind which it comes.
        let at = self.queue.partition_point(|other| other.needed <= waiting.needed);
        self.queue.insert(at, waiting);
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Answers what the high watermark covers.
    pub fn committed(&mut self, high_watermark: i64) {
        while self.queue.front().is_some_and(|first| first.needed <= high_watermark) {
            if let Some(waiting) = self.queue.pop_front() {
                waiting.ticket.settle(Ok(waiting.produced));
            }
        }
    }

    /// Answers all with an error.
    pub fn refuse_all(&mut self, error: ErrorCode) {
        for waiting in self.queue.drain(..) {
            waiting.ticket.refuse(error);
        }
    }

    /// Answers what is over its deadline.
    pub fn expire(&mut self, now: Millis) {
        if self.queue.iter().all(|waiting| waiting.deadline > now) {
            return;
        }
        let (over, left): (VecDeque<_>, _) =
            std::mem::take(&mut self.queue).into_iter().partition(|w| w.deadline <= now);
        self.queue = left;
        for waiting in over {
            waiting.ticket.refuse(ErrorCode::RequestTimedOut);
        }
    }
}

/// A fetch that waits.
pub(super) struct FetchWaiter {
    /// The follower that fetches; `None` for a consumer.
    pub replica: Option<BrokerId>,
    pub woken: Notify,
}

/// The fetches that wait on one partition.
#[derive(Default)]
pub(super) struct WaitingFetches {
    waiters: Vec<(Arc<FetchWaiter>, i64)>,
}

impl WaitingFetches {
    /// Waits until what `waiter` may read ends above `above`.
    pub fn push(&mut self, waiter: &Arc<FetchWaiter>, above: i64) {
        self.waiters.push((Arc::clone(waiter), above));
    }

    /// How many wait.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    pub fn remove(&mut self, waiter: &Arc<FetchWaiter>) {
        self.waiters.retain(|(other, _)| !Arc::ptr_eq(other, waiter));
    }

    /// The high watermark moved: consumers may read on.
    pub fn high_watermark(&mut self, limit: i64) {
        self.wake(|waiter, above| waiter.replica.is_none() && limit > above);
    }

    /// The log grew: followers may read on.
    pub fn end_moved(&mut self, limit: i64) {
        self.wake(|waiter, above| waiter.replica.is_some() && limit > above);
    }

    /// A newer fetch of the same follower came: the older one is answered at once.
    pub fn superseded(&mut self, replica: BrokerId) {
        self.wake(|waiter, _| waiter.replica == Some(replica));
    }

    /// Something happened that all must hear.
    pub fn wake_all(&mut self) {
        self.wake(|_, _| true);
    }

    fn wake(&mut self, due: impl Fn(&FetchWaiter, i64) -> bool) {
        self.waiters.retain(|(waiter, above)| {
            let due = due(waiter, *above);
            if due {
                waiter.woken.notify_one();
            }
            !due
        });
    }
}
