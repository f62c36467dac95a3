//! Which watches this client holds, and who waits for them.
//!
//! Called by: `session`. Calls: nothing.
//! Invariant: a one-shot watch is in the table exactly while the server holds it for this session, or
//! will get it again by setWatches2 after the reconnect.
//! It does not know whether a connection stands.

use crate::watch::WatchEvent;
use coordinator_protocol::{AddWatchMode, EventType, SetWatchesRequest, WatcherEvent, Zxid};
use std::collections::BTreeMap;
use tokio::sync::mpsc;

type Sender = mpsc::Sender<WatchEvent>;

/// A setWatches2 request carries at most about this many bytes of paths, so that a client with many
/// watches does not exceed the server's frame limit.
const SET_WATCHES_BYTES_MAX: usize = 128 * 1024;

/// What a one-shot watch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OneShot {
    /// Left by getData, or by exists on a znode that is there.
    Data,
    /// Left by exists on a znode that is not there.
    Exist,
    /// Left by getChildren.
    Children,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    one_shot: BTreeMap<(OneShot, String), Vec<Sender>>,
    persistent: BTreeMap<(AddWatchMode, String), Vec<Sender>>,
}

impl Watches {
    pub(crate) fn add_one_shot(&mut self, kind: OneShot, path: String, sender: Sender) {
        self.one_shot.entry((kind, path)).or_default().push(sender);
    }

    pub(crate) fn add_persistent(&mut self, mode: AddWatchMode, path: String, sender: Sender) {
        self.persistent.entry((mode, path)).or_default().push(sender);
    }

    /// Hands an event of the server to all that wait for it.
    pub(crate) fn fire(&mut self, event: WatcherEvent, zxid: Zxid) {
        let zxid = (zxid > Zxid::ZERO).then_some(zxid);
        let fired = WatchEvent::Changed { event: event.event, path: event.path.clone(), zxid };
        for kind in one_shots_of(event.event) {
            let senders = self.one_shot.remove(&(*kind, event.path.clone()));
            for sender in senders.into_iter().flatten() {
                // Its receiver may be gone; a new channel has room for one event.
                let _ = sender.try_send(fired.clone());
            }
        }
        self.fire_persistent(AddWatchMode::Persistent, &event.path, &fired);
        if event.event != EventType::NodeChildrenChanged {
            for top in self_and_ancestors(&event.path) {
                self.fire_persistent(AddWatchMode::PersistentRecursive, top, &fired);
            }
        }
    }

    fn fire_persistent(&mut self, mode: AddWatchMode, path: &str, fired: &WatchEvent) {
        let key = (mode, path.to_owned());
        if let Some(senders) = self.persistent.get_mut(&key) {
            // One that is full or gone is dropped: its receiver sees the end of the watch.
            senders.retain(|sender| sender.try_send(fired.clone()).is_ok());
            if senders.is_empty() {
                self.persistent.remove(&key);
            }
        }
    }

    /// Tells the persistent ones that they may have missed something.
    pub(crate) fn reconnected(&mut self) {
        self.persistent.retain(|_, senders| {
            senders.retain(|sender| sender.try_send(WatchEvent::Reconnected).is_ok());
            !senders.is_empty()
        });
    }

    /// Ends all of them.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What sets all watches again that somebody still waits for, in requests of bounded size.
    pub(crate) fn rearm(&mut self, last_zxid: Zxid) -> Vec<SetWatchesRequest> {
        self.one_shot.retain(|_, senders| senders.iter().any(|sender| !sender.is_closed()));
        self.persistent.retain(|_, senders| senders.iter().any(|sender| !sender.is_closed()));
        let empty = SetWatchesRequest { relative_zxid: last_zxid, ..SetWatchesRequest::default() };
        let mut requests = Vec::new();
        let (mut request, mut bytes) = (empty.clone(), 0);
        let one_shot = self.one_shot.keys().map(|(kind, path)| (Some(*kind), None, path));
        let persistent = self.persistent.keys().map(|(mode, path)| (None, Some(*mode), path));
        for (kind, mode, path) in one_shot.chain(persistent) {
            if bytes > SET_WATCHES_BYTES_MAX {
                requests.push(std::mem::replace(&mut request, empty.clone()));
                bytes = 0;
            }
            bytes += path.len() + size_of::<i32>();
            list_of(&mut request, kind, mode).push(path.clone());
        }
        if bytes > 0 {
            requests.push(request);
        }
        requests
    }
}

fn list_of(
    request: &mut SetWatchesRequest,
    kind: Option<OneShot>,
    mode: Option<AddWatchMode>,
) -> &mut Vec<String> {
    match (kind, mode) {
        (Some(OneShot::Data), _) => &mut request.data_watches,
        (Some(OneShot::Exist), _) => &mut request.exist_watches,
        (Some(OneShot::Children), _) => &mut request.child_watches,
        (None, Some(AddWatchMode::Persistent)) => &mut request.persistent_watches,
        (None, Some(AddWatchMode::PersistentRecursive) | None) => {
            &mut request.persistent_recursive_watches
        }
    }
}

/// Which one-shot watches an event uses up.
fn one_shots_of(event: EventType) -> &'static [OneShot] {
    match event {
        EventType::NodeCreated | EventType::NodeDataChanged => &[OneShot::Data, OneShot::Exist],
        EventType::NodeDeleted => &[OneShot::Data, OneShot::Exist, OneShot::Children],
        EventType::NodeChildrenChanged => &[OneShot::Children],
        EventType::None
        | EventType::DataWatchRemoved
        | EventType::ChildWatchRemoved
        | EventType::PersistentWatchRemoved => &[],
    }
}

/// `/a/b`, `/a`, `/`.
fn self_and_ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| parent_of(path))
}

fn parent_of(path: &str) -> Option<&str> {
    match path.rfind('/') {
        Some(0) if path.len() > 1 => Some("/"),
        Some(end) if end > 0 => path.get(..end),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Watch;

    async fn events(mut watch: Watch) -> Vec<EventType> {
        let mut events = Vec::new();
        while let Some(event) = watch.next().await {
            if let WatchEvent::Changed { event, .. } = event {
                events.push(event);
            }
        }
        events
    }

    #[test]
    fn ancestors_end_at_the_root() {
        let all: Vec<&str> = self_and_ancestors("/a/b").collect();
        assert_eq!(all, ["/a/b", "/a", "/"]);
        assert_eq!(self_and_ancestors("/").collect::<Vec<_>>(), ["/"]);
    }

    #[tokio::test]
    async fn one_shot_watch_fires_once_and_for_its_own_events() {
        let mut watches = Watches::default();
        let (sender, watch) = Watch::new(Default::default());
        watches.add_one_shot(OneShot::Children, "/a".to_owned(), sender);
        let fire = |watches: &mut Watches, event| {
            watches.fire(WatcherEvent::new(event, "/a"), Zxid::new(3));
        };
        fire(&mut watches, EventType::NodeDataChanged);
        fire(&mut watches, EventType::NodeChildrenChanged);
        fire(&mut watches, EventType::NodeChildrenChanged);
        assert_eq!(events(watch).await, [EventType::NodeChildrenChanged]);
    }

    #[tokio::test]
    async fn recursive_watch_hears_of_descendants_but_not_of_child_lists() {
        let mut watches = Watches::default();
        let (sender, watch) = Watch::new(Default::default());
        watches.add_persistent(AddWatchMode::PersistentRecursive, "/a".to_owned(), sender);
        watches.fire(WatcherEvent::new(EventType::NodeCreated, "/a/b/c"), Zxid::new(3));
        watches.fire(WatcherEvent::new(EventType::NodeChildrenChanged, "/a"), Zxid::new(3));
        watches.fire(WatcherEvent::new(EventType::NodeDeleted, "/ab"), Zxid::new(4));
        watches.clear();
        assert_eq!(events(watch).await, [EventType::NodeCreated]);
    }

    #[test]
    fn rearming_splits_into_requests_of_bounded_size() {
        let mut watches = Watches::default();
        let mut held = Vec::new();
        for number in 0..3000 {
            let (sender, watch) = Watch::new(Default::default());
            held.push(watch);
            watches.add_one_shot(OneShot::Data, format!("/{number:0>100}"), sender);
        }
        let (sender, dropped) = Watch::new(Default::default());
        drop(dropped);
        watches.add_one_shot(OneShot::Exist, "/dropped".to_owned(), sender);
        let requests = watches.rearm(Zxid::new(9));
        assert_eq!(requests.len(), 3);
        assert_eq!(requests.iter().map(|request| request.data_watches.len()).sum::<usize>(), 3000);
        assert!(requests.iter().all(|request| request.exist_watches.is_empty()));
        assert!(requests.iter().all(|request| request.relative_zxid == Zxid::new(9)));
    }
}
