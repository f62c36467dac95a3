//! Which subscriptions this client holds and how far each has come.
//!
//! Called by: `session`. Calls: `subscription::SubscriptionSink`.
//! Invariant: `complete_up_to` of a subscription is what its receiver was last promised, so it is where
//! the next server has to go on; inside a snapshot it is nothing, because the receiver has
//! forgotten what it had.
//! It does not know whether a connection stands.

use crate::error::Error;
use crate::subscription::{SubscriptionSink, Update};
use coordinator_protocol::{
    SubscribeRequest, SubscriptionEvent, SubscriptionEventKind as Kind, Zxid,
};
use std::collections::BTreeMap;

#[derive(Debug)]
struct Entry {
    path: String,
    sink: SubscriptionSink,
    complete_up_to: Zxid,
}

/// The table, by the number that the client gave.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    entries: BTreeMap<i32, Entry>,
}

impl Subscriptions {
    pub(crate) fn add(&mut self, number: i32, path: String, sink: SubscriptionSink) {
        self.entries.insert(number, Entry { path, sink, complete_up_to: Zxid::ZERO });
    }

    /// Takes an event of the server. `Some(number)` when nobody waits for that one any more: then
    /// the server may be told.
    pub(crate) fn take(&mut self, event: SubscriptionEvent) -> Option<i32> {
        let number = event.subscription;
        let Some(entry) = self.entries.get_mut(&number) else { return Some(number) };
        if entry.take(event) {
            return None;
        }
        self.entries.remove(&number);
        Some(number)
    }

    /// Ends one with an error of the server.
    pub(crate) fn end(&mut self, number: i32, error: Error) {
        if let Some(entry) = self.entries.remove(&number) {
            entry.sink.end(error);
        }
    }

    /// Ends all of them.
    pub(crate) fn end_all(&mut self, error: &Error) {
        for entry in std::mem::take(&mut self.entries).into_values() {
            entry.sink.end(error.clone());
        }
    }

    /// What goes on with all subscriptions that somebody still waits for, on a new connection.
    pub(crate) fn resume(&mut self) -> Vec<SubscribeRequest> {
        self.entries.retain(|_, entry| !entry.sink.is_closed());
        let resume = |(number, entry): (&i32, &Entry)| SubscribeRequest {
            subscription: *number,
            path: entry.path.clone(),
            from_zxid: entry.complete_up_to,
        };
        self.entries.iter().map(resume).collect()
    }
}

impl Entry {
    fn take(&mut self, event: SubscriptionEvent) -> bool {
        let SubscriptionEvent { kind, zxid, items, .. } = event;
        match kind {
            Kind::SnapshotBegin => {
                self.complete_up_to = Zxid::ZERO;
                self.sink.send(Update::SnapshotBegin)
            }
            Kind::SnapshotChunk => self.sink.send(Update::SnapshotChunk(items)),
            Kind::SnapshotEnd => {
                self.complete_up_to = zxid;
                self.sink.send(Update::SnapshotEnd(zxid))
            }
            // Told before, by the server of the connection before this one.
            Kind::Changes | Kind::Bookmark if zxid <= self.complete_up_to => true,
            Kind::Changes => {
                self.complete_up_to = zxid;
                self.sink.send(Update::Changes { zxid, items })
            }
            Kind::Bookmark => {
                self.complete_up_to = zxid;
                self.sink.send(Update::CompleteUpTo(zxid))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: Kind, zxid: i64) -> SubscriptionEvent {
        SubscriptionEvent { subscription: 1, kind, zxid: Zxid::new(zxid), items: Vec::new() }
    }

    fn resume_from(subscriptions: &mut Subscriptions) -> Vec<i64> {
        subscriptions.resume().iter().map(|request| request.from_zxid.get()).collect()
    }

    #[tokio::test]
    async fn resumes_after_the_last_promise_and_from_nothing_inside_a_snapshot() {
        let mut subscriptions = Subscriptions::default();
        let (sink, mut subscription) = SubscriptionSink::new(Default::default());
        subscriptions.add(1, "/a".to_owned(), sink);
        assert_eq!(resume_from(&mut subscriptions), [0]);
        let mut take = |kind, zxid| {
            assert_eq!(subscriptions.take(event(kind, zxid)), None);
            resume_from(&mut subscriptions)
        };
        assert_eq!(take(Kind::SnapshotBegin, 5), [0]);
        assert_eq!(take(Kind::SnapshotChunk, 5), [0]);
        assert_eq!(take(Kind::SnapshotEnd, 5), [5]);
        assert_eq!(take(Kind::Changes, 7), [7]);
        assert_eq!(take(Kind::Changes, 6), [7]);
        assert_eq!(take(Kind::Bookmark, 7), [7]);
        assert_eq!(take(Kind::Bookmark, 9), [9]);
        assert_eq!(take(Kind::SnapshotBegin, 12), [0]);
        subscriptions.end_all(&Error::SessionExpired);
        let mut seen = Vec::new();
        while let Ok(update) = subscription.next().await {
            seen.push(update);
        }
        let changes = |zxid| Update::Changes { zxid: Zxid::new(zxid), items: Vec::new() };
        assert_eq!(
            seen,
            [
                Update::SnapshotBegin,
                Update::SnapshotChunk(Vec::new()),
                Update::SnapshotEnd(Zxid::new(5)),
                changes(7),
                Update::CompleteUpTo(Zxid::new(9)),
                Update::SnapshotBegin,
            ]
        );
    }

    #[test]
    fn a_dropped_receiver_ends_the_subscription() {
        let mut subscriptions = Subscriptions::default();
        let (sink, subscription) = SubscriptionSink::new(Default::default());
        subscriptions.add(1, "/a".to_owned(), sink);
        drop(subscription);
        assert_eq!(subscriptions.take(event(Kind::Bookmark, 9)), Some(1));
        assert_eq!(subscriptions.resume(), []);
    }
}
