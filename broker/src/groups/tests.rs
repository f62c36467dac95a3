//! What a shard takes from the bytes of a log.

use broker_core::group::{GroupRecord, OffsetValue, Settings, Shard};
use broker_core::ids::TopicPartition;
use bytes::BytesMut;
use client_protocol::records::{BatchBuilder, Record, assign_offsets};
use client_protocol::{ErrorCode, LeaderEpoch, Offset, PartitionId, TopicId};

use super::load::{Damaged, LogPart, replay_batches};
use super::task::is_damage;

/// A batch of one commit of the group at `offset`.
fn batch(group: &str, offset: i64) -> BytesMut {
    let value = OffsetValue {
        offset,
        leader_epoch: 0,
        metadata: String::new(),
        commit_timestamp_ms: 0,
        expire_timestamp_ms: None,
    };
    let topic = "t".to_owned();
    let record =
        GroupRecord::Offset { group: group.to_owned(), topic, partition: 0, value: Some(value) };
    let encoded = record.encode().expect("short");
    let mut builder = BatchBuilder::new(usize::MAX);
    let (key, value) = (Some(encoded.key), encoded.value);
    assert!(builder.push(&Record { timestamp_ms: 0, key, value, headers: Vec::new() }));
    let mut bytes = BytesMut::from(builder.build(None).expect("a record"));
    assign_offsets(&mut bytes, Offset::new(offset), LeaderEpoch::new(0)).expect("a batch");
    bytes
}

/// Replays `bytes` from offset 5 on: where to go on, and how many groups there are.
fn replayed(bytes: &[u8]) -> (Result<Offset, ErrorCode>, usize) {
    let key = TopicPartition { topic: TopicId::ZERO, partition: PartitionId::new(0) };
    let mut shard = Shard::new(Settings::default());
    let (epoch, end) = (LeaderEpoch::new(0), Offset::new(9));
    let log = LogPart { key, epoch, end, is_known: false };
    let after = replay_batches(bytes, Offset::new(5), log, &mut shard);
    (after, shard.size().0)
}

#[test]
fn a_damaged_batch_ends_a_chunk_and_at_its_front_the_load() {
    let whole = batch("a", 5);
    let mut damaged = batch("b", 6);
    // The format's version.
    damaged[16] ^= 0x40;
    let corrupt = Err(ErrorCode::CorruptMessage);
    assert_eq!(replayed(&[&whole[..], &batch("b", 6)[..]].concat()), (Ok(Offset::new(7)), 2));
    assert_eq!(replayed(&[&whole[..], &damaged[..]].concat()), (Ok(Offset::new(6)), 1));
    assert_eq!(replayed(&damaged), (corrupt, 0));
    assert_eq!(replayed(&[&damaged[..], &whole[..]].concat()), (corrupt, 0));
    // Still a commit by its looks, but of something else.
    for at in [batch("b", 6).len() - 1, 60] {
        let mut damaged = batch("b", 6);
        damaged[at] ^= 1;
        assert_eq!(replayed(&[&whole[..], &damaged[..]].concat()), (Ok(Offset::new(6)), 1), "{at}");
        assert_eq!(replayed(&damaged), (corrupt, 0), "{at}");
    }
    assert_eq!(replayed(&whole[..whole.len() - 1]), (corrupt, 0), "a length that leads too far");
    assert_eq!(replayed(&[]), (Ok(Offset::new(5)), 0), "nothing more was committed in time");
}

#[test]
fn a_log_that_cannot_be_read_waits_for_its_repair() {
    assert!(is_damage(ErrorCode::CorruptMessage));
    assert!(is_damage(ErrorCode::KafkaStorageError), "a header that cannot be read is told so");
    assert!(!is_damage(ErrorCode::NotLeaderOrFollower));
}

#[test]
fn damage_is_news_until_it_was_told_and_again_after_a_repair() {
    let key = TopicPartition { topic: TopicId::ZERO, partition: PartitionId::new(0) };
    let damaged = Damaged::default();
    assert!(!damaged.is_known(key));
    damaged.note(key);
    damaged.note(key);
    assert!(damaged.is_known(key));
    damaged.forget(key);
    assert!(!damaged.is_known(key));
}
