//! A subscription is a snapshot that is exactly the subtree at its zxid, and then every change of
//! it, in order and complete; a subscriber that was promised completeness up to a zxid has it.

use std::collections::BTreeMap;

use bytes::Bytes;
use coordinator_core::tree::{Change, ChangeKind};
use coordinator_protocol::{
    Item, ItemKind, Request, Stat, SubscriptionEvent, SubscriptionEventKind, Zxid,
};

use super::{Audited, Facts};
use crate::sim::ensemble::client::{Conversation, Heard};

/// One subscription of a connection, as its receiver must be able to follow it.
struct Follower {
    path: String,
    /// Everything up to here was told; `None` before the first snapshot's end.
    complete: Option<Zxid>,
    /// It was sent something that makes it complete: from then on nothing may overtake changes.
    live: bool,
    /// A snapshot that is under way.
    snapshot: Option<(Zxid, Vec<Item>)>,
}

pub(super) fn audit(facts: &Facts<'_>, talk: &Conversation, audited: &mut Audited) {
    let mut followers: BTreeMap<i32, Follower> = BTreeMap::new();
    for (frame, heard) in (1..).zip(&talk.heard) {
        match heard {
            Heard::Watch(..) => {}
            Heard::Event(event) => match followers.get_mut(&event.subscription) {
                Some(follower) => follower.take(event, facts, audited),
                None => panic!("an event of no subscription: {event:?}"),
            },
            Heard::Reply { request, outcome, zxid, .. } => {
                if talk.unordered.binary_search(&frame).is_err() {
                    followers.values().for_each(|follower| follower.check_reply(facts, *zxid));
                }
                match (&talk.sent[*request].request, outcome) {
                    (Request::Subscribe(subscribe), Ok(_)) => {
                        let resumed = subscribe.from_zxid;
                        let follower = Follower {
                            path: subscribe.path.clone(),
                            complete: (resumed > Zxid::ZERO).then_some(resumed),
                            live: false,
                            snapshot: None,
                        };
                        followers.insert(subscribe.subscription, follower);
                    }
                    (Request::Unsubscribe(subscription), Ok(_)) => {
                        followers.remove(subscription);
                    }
                    _ => {}
                }
            }
        }
    }
}

impl Follower {
    fn take(&mut self, event: &SubscriptionEvent, facts: &Facts<'_>, audited: &mut Audited) {
        let zxid = event.zxid;
        self.live = true;
        match event.kind {
            SubscriptionEventKind::SnapshotBegin => {
                assert!(self.complete <= Some(zxid), "a snapshot of the past");
                self.complete = None;
                self.snapshot = Some((zxid, Vec::new()));
            }
            SubscriptionEventKind::SnapshotChunk => {
                let (begun, items) = self.snapshot.as_mut().expect("a snapshot has begun");
                assert_eq!(*begun, zxid);
                items.extend(event.items.iter().cloned());
            }
            SubscriptionEventKind::SnapshotEnd => {
                let (begun, items) = self.snapshot.take().expect("a snapshot has begun");
                assert_eq!(begun, zxid);
                check_snapshot(facts, &self.path, zxid, items);
                self.complete = Some(zxid);
                audited.snapshots += 1;
            }
            SubscriptionEventKind::Changes => {
                let due = self.changes(facts, zxid);
                let first = due.first().expect("changes of something").zxid;
                assert_eq!(first, zxid, "a write was left out");
                let expected: Vec<Item> = due.into_iter().map(item).collect();
                assert_eq!(event.items, expected);
                self.complete = Some(zxid);
                audited.changes += expected.len() as u64;
            }
            SubscriptionEventKind::Bookmark => {
                let due = self.changes(facts, zxid);
                assert!(due.is_empty(), "a bookmark at {zxid} jumps over {due:?}");
                self.complete = self.complete.max(Some(zxid));
            }
        }
    }

    /// An answer that could reveal a change comes after the change (safety.md A8).
    fn check_reply(&self, facts: &Facts<'_>, zxid: Zxid) {
        if self.live && self.snapshot.is_none() {
            let due = self.changes(facts, zxid);
            assert!(due.is_empty(), "an answer at {zxid} overtook {due:?}");
        }
    }

    /// Changes of the subtree after what is complete, up to `until`.
    fn changes<'a>(&self, facts: &Facts<'a>, until: Zxid) -> Vec<&'a Change> {
        let complete = self.complete.expect("a snapshot comes first");
        let all = facts.changes_between(complete, until).iter().copied();
        let told = all.filter(|change| change.kind != ChangeKind::AclChanged);
        told.filter(|change| change.is_within(&self.path)).collect()
    }
}

fn item(change: &Change) -> Item {
    let kind = match change.kind {
        ChangeKind::Created => ItemKind::Created,
        ChangeKind::DataChanged => ItemKind::DataChanged,
        ChangeKind::Deleted => ItemKind::Deleted,
        ChangeKind::AclChanged => panic!("a new access list is told by a snapshot"),
    };
    let (path, data, stat) = (change.path.to_string(), change.data.clone(), change.stat);
    Item { kind, path, data, stat }
}

/// The subtree put together from the changes up to `zxid`. Of the Stat, what changes of children
/// do to their parent is left to the replay of reads.
fn check_snapshot(facts: &Facts<'_>, path: &str, zxid: Zxid, items: Vec<Item>) {
    let mut nodes: BTreeMap<String, (Option<Bytes>, Stat)> = BTreeMap::new();
    for change in facts.changes_between(Zxid::ZERO, zxid) {
        if !change.is_within(path) {
            continue;
        }
        match change.kind {
            ChangeKind::Created | ChangeKind::DataChanged => {
                nodes.insert(change.path.to_string(), (change.data.clone(), change.stat));
            }
            ChangeKind::Deleted => {
                nodes.remove(&*change.path);
            }
            ChangeKind::AclChanged => {}
        }
    }
    // What was there from the beginning, unless it has changed.
    let system =
        |path: &str| (path == "/" || path.starts_with("/zookeeper")) && !nodes.contains_key(path);
    let mut told: BTreeMap<String, (Option<Bytes>, Stat)> = BTreeMap::new();
    for item in items.into_iter().filter(|item| !system(&item.path)) {
        assert_eq!(item.kind, ItemKind::Present);
        let before = told.insert(item.path, (item.data, item.stat));
        assert!(before.is_none(), "a node twice in a snapshot");
    }
    assert!(told.keys().eq(nodes.keys()), "{path} at {zxid}: {told:?} instead of {nodes:?}");
    for (path, (data, stat)) in &nodes {
        let (told_data, told_stat) = &told[path];
        assert_eq!((data, stat.czxid, stat.mzxid), (told_data, told_stat.czxid, told_stat.mzxid));
    }
}
