//! Which partitions are hosted: images in, tasks out.

use std::collections::BTreeMap;

use super::*;
use crate::ids::{ControllerEpoch, LeaderEpoch, TopicId};
use crate::image::{
    BrokerRegistration, FeedEvent, ImageFeed, Item, ItemKind, PartitionState, Stat, TopicNode, path,
};

const ME: BrokerId = BrokerId::new(1);

fn key(topic: u8, partition: i32) -> TopicPartition {
    let topic = TopicId::from_bytes([topic; 16]);
    TopicPartition { topic, partition: PartitionId::new(partition) }
}

/// Znodes as a subscription tells them, one zxid at a time.
struct Scene {
    feed: ImageFeed,
    zxid: i64,
    hosting: Hosting,
}

impl Scene {
    fn new(found: &[TopicPartition]) -> Self {
        let mut feed = ImageFeed::default();
        feed.apply(FeedEvent::SnapshotBegin { zxid: Zxid::new(1) });
        feed.apply(FeedEvent::SnapshotEnd { zxid: Zxid::new(1) });
        Self { feed, zxid: 1, hosting: Hosting::new(ME, found.iter().copied()) }
    }

    /// Without data: deleted.
    fn write(&mut self, nodes: Vec<(String, Option<Vec<u8>>)>) -> Applied {
        self.zxid += 1;
        let zxid = Zxid::new(self.zxid);
        let stat = Stat { czxid: zxid, mzxid: zxid, version: 0 };
        let item = |(path, data): (String, Option<Vec<u8>>)| match data {
            Some(data) => Item { kind: ItemKind::Created, path, data, stat },
            None => Item { kind: ItemKind::Deleted, path, data: Vec::new(), stat },
        };
        let items = nodes.into_iter().map(item).collect();
        self.feed.apply(FeedEvent::Changes { zxid, items }).expect("news")
    }

    /// A topic of this name, with a partition for each row of replicas.
    fn topic(&mut self, name: &str, id: u8, replicas: &[&[i32]]) -> Applied {
        let ids = |row: &&[i32]| row.iter().map(|&id| BrokerId::new(id)).collect::<Vec<_>>();
        let partitions: BTreeMap<_, _> =
            (0..).map(PartitionId::new).zip(replicas.iter().map(ids)).collect();
        let mut nodes = Vec::new();
        let node = TopicNode { id: key(id, 0).topic, partitions: partitions.clone() };
        nodes.push((path::topic(name), Some(node.encode())));
        for (partition, isr) in partitions {
            let state = PartitionState {
                leader: isr.first().copied(),
                leader_epoch: LeaderEpoch::new(0),
                controller_epoch: ControllerEpoch::new(1),
                isr,
                recovering: false,
            };
            nodes.push((path::state(name, partition), Some(state.encode())));
        }
        self.write(nodes)
    }

    fn gone(&mut self, name: &str) -> Applied {
        let state = path::state(name, PartitionId::new(0));
        self.write(vec![(state, None), (path::topic(name), None)])
    }

    fn begin(&mut self) -> Vec<Task> {
        let mut tasks = Vec::new();
        self.hosting.begin(self.feed.image(), &mut tasks);
        tasks
    }

    fn apply(&mut self, applied: &Applied) -> Vec<Task> {
        let mut tasks = Vec::new();
        self.hosting.apply(applied, &mut tasks);
        tasks
    }

    fn drop_gone(&mut self, applied: &Applied) -> Vec<Task> {
        let mut tasks = Vec::new();
        self.hosting.drop_gone(applied, &mut tasks);
        tasks
    }
}

#[test]
fn partitions_that_are_assigned_here_are_hosted() {
    let mut scene = Scene::new(&[]);
    let applied = scene.topic("t", 7, &[&[1, 2], &[2, 3], &[3, 1]]);
    let (first, third) = (key(7, 0), key(7, 2));
    // The node and each state say so: what is hosted already only hears of its state again.
    let twice = [Task::State(first), Task::State(third)];
    let tasks = scene.apply(&applied);
    let created =
        [Task::Create(first), Task::State(first), Task::Create(third), Task::State(third)];
    assert_eq!(tasks, [created.as_slice(), &twice].concat());
    // One that is taken off the list stays, and hears of it.
    let applied = scene.topic("t", 7, &[&[2, 3]]);
    assert_eq!(scene.apply(&applied)[0], Task::State(first));
}

#[test]
fn log_that_was_found_is_opened_by_nobody_and_begins_with_the_rest() {
    let mut scene = Scene::new(&[key(7, 0), key(9, 0)]);
    scene.topic("t", 7, &[&[1]]);
    let kept = Task::Unknown(key(9, 0));
    let state = Task::State(key(7, 0));
    assert_eq!(scene.begin(), [Task::Brokers, Task::Settings(key(7, 0)), state, kept]);
}

#[test]
fn topic_of_the_same_name_comes_after_the_former_went() {
    let mut scene = Scene::new(&[]);
    let applied = scene.topic("t", 7, &[&[1]]);
    scene.apply(&applied);
    let applied = scene.topic("t", 8, &[&[1]]);
    let tasks = scene.apply(&applied);
    assert_eq!(tasks[..2], [Task::Delete(key(7, 0)), Task::Create(key(8, 0))]);

    // Nobody told of the end: it was in no later image.
    scene.write(vec![(path::topic("t"), None)]);
    scene.topic("t", 9, &[&[1]]);
    let tasks = scene.begin();
    assert_eq!(tasks[..3], [Task::Brokers, Task::Delete(key(8, 0)), Task::Create(key(9, 0))]);
}

#[test]
fn only_what_is_gone_counts_before_the_beginning() {
    let mut scene = Scene::new(&[key(7, 0)]);
    let applied = scene.topic("t", 7, &[&[1]]);
    assert_eq!(scene.drop_gone(&applied), []);
    let applied = scene.topic("u", 8, &[&[1]]);
    assert_eq!(scene.drop_gone(&applied), []);
    let applied = scene.gone("t");
    assert_eq!(scene.drop_gone(&applied), [Task::Delete(key(7, 0))]);
    assert_eq!(scene.begin()[1..], [Task::Create(key(8, 0)), Task::State(key(8, 0))]);
}

#[test]
fn log_that_no_image_of_this_process_named_stays() {
    let mut scene = Scene::new(&[key(7, 0)]);
    assert_eq!(scene.begin(), [Task::Brokers, Task::Unknown(key(7, 0))]);
}

#[test]
fn brokers_that_come_or_go_are_told_to_all() {
    let mut scene = Scene::new(&[]);
    let registration = BrokerRegistration { endpoints: vec![], rack: None, timestamp_ms: 1 };
    let broker = path::broker(BrokerId::new(2));
    let applied = scene.write(vec![(broker.clone(), Some(registration.encode()))]);
    assert_eq!(scene.apply(&applied), [Task::Brokers]);
    let applied = scene.write(vec![(broker, None)]);
    assert_eq!(scene.apply(&applied), [Task::Brokers]);
}

#[test]
fn images_count_from_the_one_that_shows_the_registration() {
    let at = |zxid: i64| {
        let mut feed = ImageFeed::default();
        feed.apply(FeedEvent::SnapshotBegin { zxid: Zxid::new(zxid) });
        feed.apply(FeedEvent::SnapshotEnd { zxid: Zxid::new(zxid) }).expect("whole")
    };
    let epoch = BrokerEpoch::new(5);
    let mut telling = Telling::default();
    assert_eq!(telling.registered(epoch), None, "no image yet");
    assert_eq!(telling.image_applied(&at(4)), [Told::Gone]);
    assert_eq!(telling.image_applied(&at(5)), [Told::Gone, Told::Begin(epoch)]);
    assert_eq!(telling.image_applied(&at(6)), [Told::Changes]);

    let mut telling = Telling::default();
    assert_eq!(telling.image_applied(&at(6)), [Told::Gone]);
    assert_eq!(telling.registered(epoch), Some(Told::Begin(epoch)));
    assert_eq!(telling.registered(epoch), None, "it has begun");
    let later = BrokerEpoch::new(9);
    assert_eq!(telling.registered(later), None, "not shown yet");
    assert_eq!(telling.image_applied(&at(9)), [Told::Changes, Told::Begin(later)]);
}
