//! When `__consumer_offsets` is made, and with how many replicas.
//!
//! *Called by* whoever is asked for a group's coordinator while there is no such topic. *Calls* nothing. Invariant: with a
//! number that was set, it is that number or nothing. Without one it is [`REPLICAS_DEFAULT`], or fewer where the cluster has never had more
//! brokers: a broker that is away, or about to come for the first time, is waited for.

use crate::image::Image;

/// Replicas where nothing was set and there are enough brokers.
pub const REPLICAS_DEFAULT: i16 = 3;

/// How long no broker may have come before a small cluster is taken for whole, milliseconds: brokers that are started together come
/// within a few seconds.
pub const SETTLED_MS: i64 = 15_000;

/// What to do about the missing topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OffsetsTopic {
    /// Make it with so many replicas.
    Create(i16),
    /// Not now; why, and what helps, for humans.
    Wait(String),
}

/// Decides; `wished` is `offsets.topic.replication.factor` if it was set, `now_ms` are milliseconds since 1970 UTC.
#[must_use]
pub fn offsets_topic(image: &Image, wished: Option<i16>, now_ms: i64) -> OffsetsTopic {
    let live = i16::try_from(image.brokers().count()).unwrap_or(i16::MAX);
    let needed = wished.unwrap_or(REPLICAS_DEFAULT);
    if live >= needed {
        return OffsetsTopic::Create(needed);
    }
    let known = image.identities().count();
    let away = known.saturating_sub(usize::try_from(live).unwrap_or(0));
    let hint = "start more brokers, or set offsets.topic.replication.factor";
    let short = format!(
        "__consumer_offsets is to have {needed} replicas, and {live} brokers are registered"
    );
    if wished.is_some() {
        return OffsetsTopic::Wait(format!("{short}: {hint}"));
    }
    if away > 0 || live == 0 {
        return OffsetsTopic::Wait(format!("{short} while {away} are away: start them, or {hint}"));
    }
    let youngest = image.brokers().map(|broker| broker.registration.timestamp_ms).max();
    let settled_ms = now_ms.saturating_sub(youngest.unwrap_or(now_ms));
    if settled_ms < SETTLED_MS {
        let left = SETTLED_MS.saturating_sub(settled_ms).saturating_add(999) / 1_000;
        return OffsetsTopic::Wait(format!("{short}: with no more coming it is made in {left} s"));
    }
    OffsetsTopic::Create(live)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{BrokerId, DirectoryId, Incarnation, Zxid};
    use crate::image::{
        BrokerRegistration, FeedEvent, Identity, ImageFeed, Item, ItemKind, Stat, path,
    };

    /// Brokers that registered once, at 1,000 ms; those that are still there.
    fn image(known: &[i32], live: &[i32]) -> Image {
        let mut feed = ImageFeed::default();
        feed.apply(FeedEvent::SnapshotBegin { zxid: Zxid::new(1) });
        let stat = Stat { czxid: Zxid::new(1), mzxid: Zxid::new(1), version: 0 };
        let item = |path, data| Item { kind: ItemKind::Present, path, data, stat };
        let identity = Identity {
            incarnation: Incarnation::new(1),
            directories: vec![DirectoryId::new([1; 16])],
            lost: false,
            lost_zxid: Zxid::new(0),
            boot_changed: false,
            boot_changed_zxid: Zxid::new(0),
        };
        let registration =
            BrokerRegistration { endpoints: vec![], rack: None, timestamp_ms: 1_000 };
        let known =
            known.iter().map(|&n| item(path::identity(BrokerId::new(n)), identity.encode()));
        let live =
            live.iter().map(|&n| item(path::broker(BrokerId::new(n)), registration.encode()));
        feed.apply(FeedEvent::SnapshotChunk { items: known.chain(live).collect() });
        feed.apply(FeedEvent::SnapshotEnd { zxid: Zxid::new(1) }).expect("whole").image
    }

    fn check(known: &[i32], live: &[i32], wished: Option<i16>, now_ms: i64, made: Option<i16>) {
        let decided = match offsets_topic(&image(known, live), wished, now_ms) {
            OffsetsTopic::Create(replicas) => Some(replicas),
            OffsetsTopic::Wait(_) => None,
        };
        assert_eq!(decided, made, "{known:?} {live:?} {wished:?} {now_ms}");
    }

    #[test]
    fn enough_brokers_need_no_patience() {
        check(&[1, 2, 3, 4], &[1, 2, 3, 4], None, 1_000, Some(3));
        check(&[1, 2], &[1, 2], Some(2), 1_000, Some(2));
    }

    #[test]
    fn a_number_that_was_set_is_waited_for_whatever_time_it_takes() {
        check(&[1, 2], &[1, 2], Some(3), i64::MAX, None);
    }

    #[test]
    fn a_small_cluster_is_taken_for_whole_when_nobody_came_for_a_while() {
        check(&[1], &[1], None, 1_000 + SETTLED_MS - 1, None);
        check(&[1], &[1], None, 1_000 + SETTLED_MS, Some(1));
        check(&[1, 2], &[1, 2], None, 1_000 + SETTLED_MS, Some(2));
    }

    #[test]
    fn brokers_that_are_away_are_waited_for() {
        check(&[1, 2, 3], &[1, 2], None, i64::MAX, None);
        check(&[1], &[], None, i64::MAX, None);
    }

    #[test]
    fn whoever_waits_is_told_what_for() {
        let why = |wished, now_ms| match offsets_topic(&image(&[1], &[1]), wished, now_ms) {
            OffsetsTopic::Wait(why) => why,
            OffsetsTopic::Create(_) => panic!("made"),
        };
        assert!(why(Some(3), 0).contains("offsets.topic.replication.factor"));
        assert!(why(None, 2_000).contains("in 14 s"), "{}", why(None, 2_000));
    }
}
