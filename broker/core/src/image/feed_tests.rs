//! The feed: snapshots, changes, repeats, what cannot be read.

use super::*;
use crate::ids::{ControllerEpoch, LeaderEpoch, TopicId};

fn item(kind: ItemKind, path: &str, data: &[u8], czxid: i64, mzxid: i64, version: i32) -> Item {
    let stat = Stat { czxid: Zxid::new(czxid), mzxid: Zxid::new(mzxid), version };
    Item { kind, path: path.to_owned(), data: data.to_vec(), stat }
}

const BROKER: &[u8] = br#"{"features":{},"listener_security_protocol_map":{"PLAINTEXT":"PLAINTEXT"},"endpoints":["PLAINTEXT://h:1"],"jmx_port":-1,"port":1,"host":"h","version":5,"timestamp":"1"}"#;
const TOPIC: &[u8] = br#"{"partitions":{"0":[1]},"topic_id":"2AoYbHmeRFmrj6Tnl-VdtQ","adding_replicas":{},"removing_replicas":{},"version":3}"#;
const STATE: &[u8] = br#"{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":[1]}"#;

fn z(zxid: i64) -> Zxid {
    Zxid::new(zxid)
}

fn loaded() -> ImageFeed {
    let mut feed = ImageFeed::default();
    assert_eq!(feed.apply(FeedEvent::SnapshotBegin { zxid: z(10) }), None);
    let items = vec![
        item(ItemKind::Present, "/brokers/ids/1", BROKER, 5, 5, 1),
        item(ItemKind::Present, "/brokers/topics/t", TOPIC, 6, 6, 0),
        item(ItemKind::Present, "/brokers/topics/t/partitions/0/state", STATE, 6, 6, 0),
        item(ItemKind::Present, "/controller_epoch", b"3", 2, 9, 4),
    ];
    assert_eq!(feed.apply(FeedEvent::SnapshotChunk { items }), None);
    assert_eq!(feed.resume_from(), None);
    let applied = feed.apply(FeedEvent::SnapshotEnd { zxid: z(10) }).expect("whole");
    applied.image.check();
    assert_eq!(feed.resume_from(), Some(z(10)));
    feed
}

fn topic_id() -> TopicId {
    "2AoYbHmeRFmrj6Tnl-VdtQ".parse().expect("id")
}

#[test]
fn snapshot_shows_when_it_is_whole() {
    let feed = loaded();
    let image = feed.image();
    let partition = PartitionId::new(0);
    assert_eq!(image.leader("t", partition).expect("leader").id, BrokerId::new(1));
    assert_eq!(image.controller_epoch(), Some((ControllerEpoch::new(3), 4)));
    let key = crate::ids::TopicPartition { topic: topic_id(), partition };
    assert_eq!(image.partition(key).expect("there").1.state.leader_epoch, LeaderEpoch::new(0));
}

#[test]
fn a_leadership_older_than_the_brokers_life_does_not_show() {
    let mut feed = loaded();
    let items = vec![
        item(ItemKind::Deleted, "/brokers/ids/1", b"", 0, 0, 0),
        item(ItemKind::Created, "/brokers/ids/1", b"", 11, 11, 0),
        item(ItemKind::Changed, "/brokers/ids/1", BROKER, 11, 11, 1),
    ];
    let applied = feed.apply(FeedEvent::Changes { zxid: z(11), items }).expect("new");
    assert_eq!(
        applied.changes,
        vec![
            Change::BrokerGone { broker: BrokerId::new(1), epoch: BrokerEpoch::new(5) },
            Change::BrokerRegistered { broker: BrokerId::new(1), epoch: BrokerEpoch::new(11) },
        ]
    );
    assert_eq!(applied.image.leader("t", PartitionId::new(0)), None);
}

#[test]
fn repeated_and_early_events_change_nothing() {
    let mut feed = ImageFeed::default();
    let gone = vec![item(ItemKind::Deleted, "/brokers/topics/t", b"", 0, 0, 0)];
    assert_eq!(feed.apply(FeedEvent::Changes { zxid: z(7), items: gone.clone() }), None);
    let mut feed = loaded();
    let before = feed.image().clone();
    assert_eq!(feed.apply(FeedEvent::Changes { zxid: z(10), items: gone }), None);
    assert_eq!(feed.image(), &before);
    let applied = feed.apply(FeedEvent::Bookmark { zxid: z(12) }).expect("later");
    assert_eq!((applied.changes, feed.image().complete_to()), (vec![], z(12)));
}

#[test]
fn second_snapshot_yields_the_difference() {
    let mut feed = loaded();
    feed.apply(FeedEvent::SnapshotBegin { zxid: z(20) });
    let state = br#"{"controller_epoch":1,"leader":-1,"version":1,"leader_epoch":1,"isr":[1]}"#;
    let items = vec![
        item(ItemKind::Present, "/brokers/topics/t", TOPIC, 6, 6, 0),
        item(ItemKind::Present, "/brokers/topics/t/partitions/0/state", state, 6, 15, 1),
        item(ItemKind::Present, "/controller_epoch", b"3", 2, 9, 4),
    ];
    feed.apply(FeedEvent::SnapshotChunk { items });
    let applied = feed.apply(FeedEvent::SnapshotEnd { zxid: z(20) }).expect("whole");
    assert_eq!(
        applied.changes,
        vec![
            Change::BrokerGone { broker: BrokerId::new(1), epoch: BrokerEpoch::new(5) },
            Change::Partition { topic: "t".into(), partition: PartitionId::new(0) },
        ]
    );
    // One from an older server is not taken.
    feed.apply(FeedEvent::SnapshotBegin { zxid: z(15) });
    assert_eq!(feed.apply(FeedEvent::SnapshotEnd { zxid: z(15) }), None);
    assert!(feed.image().topic("t").is_some());
}

#[test]
fn unreadable_node_is_reported_and_the_former_value_kept() {
    let mut feed = loaded();
    let path = "/brokers/topics/t/partitions/0/state";
    let items = vec![item(ItemKind::Changed, path, b"{", 6, 11, 1)];
    let applied = feed.apply(FeedEvent::Changes { zxid: z(11), items }).expect("new");
    assert!(
        matches!(applied.changes.as_slice(), [Change::Unreadable { path: p, .. }] if p == path)
    );
    let kept = applied.image.state("t", PartitionId::new(0)).expect("kept");
    assert_eq!(kept.partition_epoch, PartitionEpoch::new(0));
}

#[test]
fn what_cannot_be_read_in_a_snapshot_is_not_gone() {
    let state = "/brokers/topics/t/partitions/0/state";
    let duplicate = item(ItemKind::Present, "/brokers/topics/a", TOPIC, 11, 11, 0);
    let whole = item(ItemKind::Present, "/brokers/topics/t", TOPIC, 5, 5, 0);
    let broken = item(ItemKind::Present, "/brokers/topics/t", b"{", 5, 11, 1);
    for items in [vec![broken], vec![duplicate, whole]] {
        let mut feed = loaded();
        let former = feed.image().clone();
        feed.apply(FeedEvent::SnapshotBegin { zxid: z(11) });
        let mut items = items;
        items.push(item(ItemKind::Present, state, b"{", 6, 11, 1));
        feed.apply(FeedEvent::SnapshotChunk { items });
        let applied = feed.apply(FeedEvent::SnapshotEnd { zxid: z(11) }).expect("newer");
        applied.image.check();
        let is_gone = |change: &Change| matches!(change, Change::TopicGone { .. });
        assert!(!applied.changes.iter().any(is_gone), "{:?}", applied.changes);
        assert_eq!(applied.image.topic("t"), former.topic("t"));
        assert_eq!(applied.image.topic_by_id(topic_id()), former.topic_by_id(topic_id()));
        let partition = PartitionId::new(0);
        assert_eq!(applied.image.state("t", partition), former.state("t", partition));
    }
}

#[test]
fn topic_created_again_has_another_id() {
    let mut feed = loaded();
    let other = String::from_utf8(TOPIC.to_vec()).expect("text").replace("2AoY", "3AoY");
    let items = vec![
        item(ItemKind::Deleted, "/brokers/topics/t/partitions/0/state", b"", 0, 0, 0),
        item(ItemKind::Deleted, "/brokers/topics/t", b"", 0, 0, 0),
        item(ItemKind::Created, "/brokers/topics/t", other.as_bytes(), 11, 11, 0),
    ];
    let applied = feed.apply(FeedEvent::Changes { zxid: z(11), items }).expect("new");
    applied.image.check();
    assert_eq!(applied.image.topic_by_id(topic_id()), None);
    assert!(applied.changes.contains(&Change::TopicGone { topic: "t".into(), id: topic_id() }));
    // Clones share: the former image still says what it said.
    assert!(feed.image().topic("t").is_some());
}

#[test]
fn two_topics_cannot_have_one_id() {
    let mut feed = loaded();
    let items = vec![item(ItemKind::Created, "/brokers/topics/u", TOPIC, 11, 11, 0)];
    let applied = feed.apply(FeedEvent::Changes { zxid: z(11), items }).expect("new");
    applied.image.check();
    assert!(matches!(applied.changes.as_slice(), [Change::Unreadable { .. }]));
}
