//! What a subscriber gets: the state of a subtree and then every change, in zxid order.
//!
//! Called by: users of [`crate::Client::subscribe`]. Calls: `session::subscriptions` fills it.
//! Invariant: after [`Update::SnapshotEnd`], [`Update::Changes`] or [`Update::CompleteUpTo`] with
//! zxid Z the receiver has seen everything up to Z, across reconnects too. A new
//! [`Update::SnapshotBegin`] may come at any time and means: forget what you have.

use crate::error::Error;
use crate::root::Root;
use coordinator_protocol::{Item, Zxid};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// How many items of one subscription may wait for their receiver. An update without items counts
/// as one.
pub(crate) const SUBSCRIPTION_ITEMS_MAX: usize = 1 << 20;

/// One step of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// A snapshot starts: forget what you have.
    SnapshotBegin,
    /// Some znodes of the snapshot.
    SnapshotChunk(Vec<Item>),
    /// The snapshot is complete as of this write.
    SnapshotEnd(Zxid),
    /// All changes of one write.
    Changes {
        /// The write.
        zxid: Zxid,
        /// What it changed, in order.
        items: Vec<Item>,
    },
    /// Nothing changed up to this write, inclusive.
    CompleteUpTo(Zxid),
}

impl Update {
    fn weight(&self) -> usize {
        match self {
            Self::SnapshotChunk(items) | Self::Changes { items, .. } => items.len().max(1),
            Self::SnapshotBegin | Self::SnapshotEnd(_) | Self::CompleteUpTo(_) => 1,
        }
    }
}

/// The receiving end of a subscription.
#[derive(Debug)]
pub struct Subscription {
    receiver: mpsc::UnboundedReceiver<Result<Update, Error>>,
    queued: Arc<AtomicUsize>,
    root: Root,
}

impl Subscription {
    /// The next update.
    ///
    /// Cancel-safe: an update that was not returned is returned by the next call.
    ///
    /// # Errors
    /// The subscription is over: [`Error::Overrun`] (subscribe anew), [`Error::SessionExpired`],
    /// [`Error::Closed`], or [`Error::Refused`] by the server that the session moved to.
    pub async fn next(&mut self) -> Result<Update, Error> {
        let mut update = self.receiver.recv().await.unwrap_or(Err(Error::Closed))?;
        self.queued.fetch_sub(update.weight(), Ordering::Relaxed);
        if let Update::SnapshotChunk(items) | Update::Changes { items, .. } = &mut update {
            items.iter_mut().for_each(|item| self.root.strip(&mut item.path));
        }
        Ok(update)
    }
}

/// The sending end.
#[derive(Debug)]
pub(crate) struct SubscriptionSink {
    sender: mpsc::UnboundedSender<Result<Update, Error>>,
    queued: Arc<AtomicUsize>,
    items_max: usize,
}

impl SubscriptionSink {
    pub(crate) fn new(root: Root) -> (Self, Subscription) {
        Self::with_limit(root, SUBSCRIPTION_ITEMS_MAX)
    }

    pub(crate) fn with_limit(root: Root, items_max: usize) -> (Self, Subscription) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(0));
        (
            Self { sender, queued: Arc::clone(&queued), items_max },
            Subscription { receiver, queued, root },
        )
    }

    /// Hands over one update; `false` when there is nobody to take it any more, or nobody fast
    /// enough: then the subscription is over.
    pub(crate) fn send(&self, update: Update) -> bool {
        let weight = update.weight();
        let queued = self.queued.fetch_add(weight, Ordering::Relaxed);
        if queued > self.items_max {
            self.end(Error::Overrun);
            return false;
        }
        self.sender.send(Ok(update)).is_ok()
    }

    /// Tells the receiver why there will be nothing more.
    pub(crate) fn end(&self, error: Error) {
        // A receiver that is gone needs no reason.
        let _ = self.sender.send(Err(error));
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn slow_receiver_is_told_that_it_lost_something() {
        let (sink, mut subscription) = SubscriptionSink::with_limit(Root::default(), 1);
        assert!(sink.send(Update::SnapshotBegin));
        assert!(sink.send(Update::SnapshotBegin));
        assert!(!sink.send(Update::SnapshotBegin));
        assert_eq!(subscription.next().await, Ok(Update::SnapshotBegin));
        assert_eq!(subscription.next().await, Ok(Update::SnapshotBegin));
        assert_eq!(subscription.next().await, Err(Error::Overrun));
    }
}
