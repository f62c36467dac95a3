//! When `__consumer_offsets` is made, and with how many replicas.
//!
//! *Called by* whoever is asked for a group's coordinator while there is no such topic. *Calls* nothing. Invariant: it is made with the number
//! that was set, else with [`REPLICAS_DEFAULT`], or not at all: with fewer it would stay so for good, for nothing ever adds replicas to it.

use crate::image::Image;

/// Replicas where nothing was set.
pub const REPLICAS_DEFAULT: i16 = 3;

/// What to do about the missing topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OffsetsTopic {
    /// Make it with so many replicas.
    Create(i16),
    /// Not now; why, and what helps, for humans.
    Wait(String),
}

/// Decides; `wished` is `offsets.topic.replication.factor` if it was set.
#[must_use]
pub fn offsets_topic(image: &Image, wished: Option<i16>) -> OffsetsTopic {
    let live = i16::try_from(image.brokers().count()).unwrap_or(i16::MAX);
    let needed = wished.unwrap_or(REPLICAS_DEFAULT);
    if live >= needed {
        return OffsetsTopic::Create(needed);
    }
    OffsetsTopic::Wait(format!(
        "__consumer_offsets is to have {needed} replicas, and {live} brokers are registered: \
         start more brokers, or set offsets.topic.replication.factor"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{BrokerId, Zxid};
    use crate::image::{BrokerRegistration, FeedEvent, ImageFeed, Item, ItemKind, Stat, path};

    fn image(live: i32) -> Image {
        let mut feed = ImageFeed::default();
        feed.apply(FeedEvent::SnapshotBegin { zxid: Zxid::new(1) });
        let stat = Stat { czxid: Zxid::new(1), mzxid: Zxid::new(1), version: 0 };
        let item = |path, data| Item { kind: ItemKind::Present, path, data, stat };
        let registration =
            BrokerRegistration { endpoints: vec![], rack: None, timestamp_ms: 1_000 };
        let live = (0..live).map(|n| item(path::broker(BrokerId::new(n)), registration.encode()));
        feed.apply(FeedEvent::SnapshotChunk { items: live.collect() });
        feed.apply(FeedEvent::SnapshotEnd { zxid: Zxid::new(1) }).expect("whole").image
    }

    fn made(live: i32, wished: Option<i16>) -> Option<i16> {
        match offsets_topic(&image(live), wished) {
            OffsetsTopic::Create(replicas) => Some(replicas),
            OffsetsTopic::Wait(_) => None,
        }
    }

    #[test]
    fn three_brokers_are_waited_for_where_nothing_was_set() {
        assert_eq!(
            [0, 1, 2, 3, 4].map(|live| made(live, None)),
            [None, None, None, Some(3), Some(3)]
        );
    }

    #[test]
    fn a_number_that_was_set_is_obeyed() {
        assert_eq!([0, 1, 2].map(|live| made(live, Some(1))), [None, Some(1), Some(1)]);
        assert_eq!([1, 2, 3].map(|live| made(live, Some(2))), [None, Some(2), Some(2)]);
        assert_eq!([3, 4, 5].map(|live| made(live, Some(4))), [None, Some(4), Some(4)]);
    }

    #[test]
    fn whoever_waits_is_told_what_for() {
        for wished in [None, Some(2)] {
            let OffsetsTopic::Wait(why) = offsets_topic(&image(1), wished) else { panic!("made") };
            assert!(why.contains("offsets.topic.replication.factor"), "{why}");
        }
    }
}
