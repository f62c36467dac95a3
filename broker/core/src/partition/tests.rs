//! The replica's rules (safety.md B5, C3, D1, D2, D4, D5), each against literal effects.

use std::collections::BTreeMap;
use std::sync::Arc;

use client_protocol::ErrorCode;

use super::*;
use crate::ids::{
    BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, Millis, Offset, PartitionEpoch,
    PartitionId, TopicId, TopicPartition, Zxid,
};
use crate::image::{PartitionState, StoredState};

fn id(n: i32) -> BrokerId {
    BrokerId::new(n)
}

fn o(offset: i64) -> Offset {
    Offset::new(offset)
}

fn e(epoch: i32) -> LeaderEpoch {
    LeaderEpoch::new(epoch)
}

fn ms(n: u64) -> Millis {
    Millis::new(n)
}

const KEY: TopicPartition =
    TopicPartition { topic: TopicId::from_bytes([1; 16]), partition: PartitionId::new(0) };
const LAG_MS: u64 = 10_000;
const RETRY_MS: u64 = 500;
const STARTED: i64 = 50;

/// One replica under test, broker 1, with its effects.
struct Replica {
    partition: Partition,
    effects: Vec<Effect>,
}

fn replica(durability: Durability, epochs: &[(i32, i64)], end: i64, durable_end: i64) -> Replica {
    let epochs: Vec<_> = epochs.iter().map(|&(epoch, start)| (e(epoch), o(start))).collect();
    let loaded = Loaded {
        positions: LogPositions {
            start: o(0),
            end: o(end),
            durable_end: o(durable_end),
            generation: 1,
            epochs: EpochHistory::new(&epochs),
        },
        high_watermark: o(0),
        cut_below_mark: false,
    };
    let settings = Settings {
        durability,
        min_insync_replicas: 2,
        lag_time_max_ms: LAG_MS,
        alter_retry_ms: RETRY_MS,
    };
    let partition = Partition::new(id(1), KEY, Zxid::new(STARTED), loaded, settings);
    Replica { partition, effects: Vec::new() }
}

impl Replica {
    fn take(&mut self) -> Vec<Effect> {
        self.partition.check();
        std::mem::take(&mut self.effects)
    }

    fn brokers(&mut self, lives: &[(i32, i64)], now: u64) -> Vec<Effect> {
        let lives: BTreeMap<_, _> =
            lives.iter().map(|&(n, epoch)| (id(n), BrokerEpoch::new(epoch))).collect();
        self.partition.apply_brokers(&Arc::new(lives), ms(now), &mut self.effects);
        self.take()
    }

    /// A state written after the start.
    fn state(
        &mut self,
        version: i32,
        leader: i32,
        epoch: i32,
        isr: &[i32],
        now: u64,
    ) -> Vec<Effect> {
        self.state_at(STARTED + 1 + i64::from(version), version, (leader, epoch), isr, now)
    }

    fn state_at(
        &mut self,
        written: i64,
        version: i32,
        (leader, epoch): (i32, i32),
        isr: &[i32],
        now: u64,
    ) -> Vec<Effect> {
        let stored = StoredState {
            state: PartitionState {
                leader: (leader > 0).then(|| id(leader)),
                leader_epoch: e(epoch),
                controller_epoch: ControllerEpoch::new(1),
                isr: isr.iter().map(|&n| id(n)).collect(),
                recovering: false,
            },
            partition_epoch: PartitionEpoch::new(version),
            written: Zxid::new(written),
        };
        let replicas = [id(1), id(2), id(3)];
        let update = StateUpdate { stored: &stored, replicas: &replicas };
        self.partition.apply_state(update, ms(now), &mut self.effects);
        self.take()
    }

    fn adopted(&mut self, epoch: i32, now: u64) -> Vec<Effect> {
        self.partition.epoch_adopted(e(epoch), ms(now), &mut self.effects);
        self.take()
    }

    fn append(&mut self, epoch: i32, base: i64, end: i64, now: u64) -> Vec<Effect> {
        let appended = Appended {
            base_offset: o(base),
            end_offset: o(end),
            epochs: vec![(e(epoch), o(base))],
        };
        self.partition.appended(&appended, ms(now), &mut self.effects);
        self.take()
    }

    fn sync(&mut self, durable_end: i64, generation: u64, now: u64) -> Vec<Effect> {
        let synced = Synced { durable_end: o(durable_end), generation };
        self.partition.synced(synced, ms(now), &mut self.effects);
        self.take()
    }

    fn fetch(
        &mut self,
        replica: i32,
        (epoch, last_epoch): (i32, Option<i32>),
        (offset, durable_end): (i64, i64),
        now: u64,
    ) -> (Result<Readable, ErrorCode>, Vec<Effect>) {
        let fetch = FollowerFetch {
            replica: id(replica),
            broker_epoch: BrokerEpoch::new(i64::from(replica) * 10),
            leader_epoch: e(epoch),
            fetch_offset: o(offset),
            last_fetched_epoch: last_epoch.map(e),
            durable_end: o(durable_end),
        };
        let result = self.partition.follower_fetch(&fetch, ms(now), &mut self.effects);
        (result.map_err(|refused| refused.error), self.take())
    }

    /// A fetch of which only the progress matters, and which moves nothing.
    fn progress(&mut self, replica: i32, epochs: (i32, Option<i32>), ends: (i64, i64), now: u64) {
        let (result, effects) = self.fetch(replica, epochs, ends, now);
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(effects, vec![]);
    }

    fn alters(&self, effects: &[Effect]) -> Vec<(u64, Vec<i32>)> {
        effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Alter(request) => {
                    Some((request.attempt, request.isr.iter().map(|m| m.0.get()).collect()))
                }
                _ => None,
            })
            .collect()
    }
}

const LIVES: &[(i32, i64)] = &[(1, 10), (2, 20), (3, 30)];

/// Leads in epoch 5 from offset 0, ISR 1, 2, 3.
fn leader(durability: Durability) -> Replica {
    let mut replica = replica(durability, &[], 0, 0);
    replica.brokers(LIVES, 0);
    assert_eq!(
        replica.state(0, 1, 5, &[1, 2, 3], 0),
        vec![Effect::AdoptEpoch { leader_epoch: e(5) }]
    );
    assert_eq!(replica.adopted(5, 0), vec![]);
    replica
}

fn high_watermark(offset: i64) -> Effect {
    Effect::HighWatermark { high_watermark: o(offset) }
}

#[test]
fn high_watermark_is_the_least_durable_end_of_the_isr() {
    // D1.
    let mut r = leader(Durability::Disk);
    assert_eq!(r.append(5, 0, 10, 0), vec![Effect::EndMoved { end_offset: o(10) }]);
    assert_eq!(r.fetch(2, (5, Some(5)), (10, 8), 1).1, vec![]);
    assert_eq!(r.fetch(3, (5, Some(5)), (10, 6), 1).1, vec![], "the leader has not synced");
    assert_eq!(r.sync(10, 1, 2), vec![high_watermark(6)]);
    assert_eq!(r.fetch(3, (5, Some(5)), (10, 10), 3).1, vec![high_watermark(8)]);
    assert_eq!(r.fetch(2, (5, Some(5)), (10, 3), 3).1, vec![], "an older fetch came late");
    assert_eq!(r.partition.high_watermark(), o(8));
}

#[test]
fn memory_topics_count_end_offsets() {
    let mut r = leader(Durability::Memory);
    r.append(5, 0, 10, 0);
    r.progress(2, (5, Some(5)), (10, 0), 1);
    assert_eq!(r.fetch(3, (5, Some(5)), (7, 0), 1).1, vec![high_watermark(7)]);
}

#[test]
fn high_watermark_stands_still_under_min_isr() {
    let mut r = leader(Durability::Disk);
    r.append(5, 0, 10, 0);
    r.sync(10, 1, 0);
    assert_eq!(r.state(1, 1, 5, &[1], 1), vec![]);
    assert_eq!(r.partition.high_watermark(), o(0));
    assert_eq!(r.partition.admit_produce(-1), Err(ErrorCode::NotEnoughReplicas));
    assert_eq!(r.partition.admit_produce(1), Ok(AppendPermit { leader_epoch: e(5) }));
}

#[test]
fn a_member_that_registered_anew_holds_the_high_watermark_until_it_fetches() {
    let mut r = leader(Durability::Disk);
    r.append(5, 0, 10, 0);
    r.progress(2, (5, Some(5)), (10, 10), 1);
    r.progress(3, (5, Some(5)), (10, 10), 1);
    r.brokers(&[(1, 10), (2, 99), (3, 30)], 2);
    assert_eq!(r.sync(10, 1, 2), vec![]);
    assert_eq!(r.fetch(2, (5, Some(5)), (10, 10), 3).0, Err(ErrorCode::StaleBrokerEpoch));
}

#[test]
fn fences_come_before_leadership() {
    let mut r = leader(Durability::Disk);
    assert_eq!(r.fetch(2, (4, None), (0, 0), 1).0, Err(ErrorCode::FencedLeaderEpoch));
    assert_eq!(r.fetch(2, (6, None), (0, 0), 1).0, Err(ErrorCode::UnknownLeaderEpoch));
    assert_eq!(r.fetch(9, (5, None), (0, 0), 1).0, Err(ErrorCode::NotLeaderOrFollower));
    r.state(1, 2, 6, &[2, 3], 1);
    assert_eq!(r.fetch(2, (5, None), (0, 0), 1).0, Err(ErrorCode::FencedLeaderEpoch));
    assert_eq!(r.fetch(2, (6, None), (0, 0), 1).0, Err(ErrorCode::NotLeaderOrFollower));
    assert_eq!(r.partition.admit_produce(1), Err(ErrorCode::NotLeaderOrFollower));
    assert_eq!(r.partition.admit_produce(2), Err(ErrorCode::InvalidRequiredAcks));
}

#[test]
fn leadership_waits_for_the_log() {
    let mut r = replica(Durability::Disk, &[(1, 0)], 4, 4);
    r.brokers(LIVES, 0);
    r.state(0, 1, 5, &[1, 2, 3], 0);
    assert_eq!(r.partition.admit_produce(1), Err(ErrorCode::NotLeaderOrFollower));
    // Appended while following, reported late: it counts before the epoch begins.
    assert_eq!(r.append(1, 4, 6, 0), vec![Effect::EndMoved { end_offset: o(6) }]);
    r.adopted(5, 0);
    assert_eq!(r.partition.latest_offset(None), Err(ErrorCode::OffsetNotAvailable));
    assert_eq!(r.partition.admit_produce(-1), Ok(AppendPermit { leader_epoch: e(5) }));
}

#[test]
fn an_epoch_from_before_the_start_is_never_led() {
    // B5.
    let mut r = replica(Durability::Disk, &[], 0, 0);
    r.brokers(LIVES, 0);
    let adopt = |epoch| vec![Effect::AdoptEpoch { leader_epoch: e(epoch) }];
    assert_eq!(r.state_at(STARTED - 3, 0, (1, 5), &[1, 2], 0), adopt(5));
    assert_eq!(r.partition.leading(), None);
    // The same epoch in a later write is still of a former life.
    assert_eq!(r.state_at(STARTED + 3, 1, (1, 5), &[1], 0), adopt(5));
    r.adopted(5, 0);
    assert_eq!(r.partition.leading(), None);
    assert_eq!(r.state_at(STARTED + 4, 2, (1, 6), &[1], 0), adopt(6));
    r.adopted(6, 0);
    assert_eq!(r.partition.leading(), Some(e(6)));
}

#[test]
fn a_partition_epoch_not_above_the_adopted_is_ignored() {
    // C3.
    let mut r = leader(Durability::Disk);
    r.state(3, 1, 5, &[1, 2], 0);
    assert_eq!(r.state(3, 2, 9, &[2], 0), vec![]);
    assert_eq!(r.state(2, 2, 9, &[2], 0), vec![]);
    assert_eq!((r.partition.leading(), r.partition.isr()), (Some(e(5)), &[id(1), id(2)][..]));
}

#[test]
fn a_follower_that_lags_too_long_is_proposed_out() {
    // D2: judged by the durable end.
    let mut r = leader(Durability::Disk);
    r.append(5, 0, 10, 0);
    r.progress(2, (5, Some(5)), (10, 10), 9_000);
    r.progress(3, (5, Some(5)), (10, 9), 9_000);
    r.partition.tick(ms(LAG_MS), &mut r.effects);
    assert_eq!(r.take(), vec![]);
    assert_eq!(r.partition.next_deadline(), Some(ms(LAG_MS + 1)));
    r.partition.tick(ms(LAG_MS + 1), &mut r.effects);
    assert_eq!(
        r.take(),
        vec![Effect::Alter(AlterRequest {
            partition: KEY,
            attempt: 1,
            leader_epoch: e(5),
            partition_epoch: PartitionEpoch::new(0),
            isr: vec![(id(1), BrokerEpoch::new(10)), (id(2), BrokerEpoch::new(20))],
        })]
    );
    // Until it is adopted the larger set counts.
    assert_eq!(r.sync(10, 1, LAG_MS + 2), vec![high_watermark(9)]);
    r.partition.alter_answered(1, Ok(()), ms(LAG_MS + 3));
    assert_eq!(r.state(1, 1, 5, &[1, 2], LAG_MS + 4), vec![high_watermark(10)]);
}

#[test]
fn a_member_that_lost_what_is_committed_is_proposed_out_at_once() {
    // D6: as leader it would cut the others.
    let mut r = leader(Durability::Disk);
    r.append(5, 0, 10, 0);
    r.sync(10, 1, 0);
    r.progress(2, (5, Some(5)), (10, 10), 1);
    assert_eq!(r.fetch(3, (5, Some(5)), (10, 10), 1).1, vec![high_watermark(10)]);
    let (_, effects) = r.fetch(3, (5, Some(5)), (4, 4), 2);
    assert_eq!(r.alters(&effects), vec![(1, vec![1, 2])]);
    r.partition.alter_answered(1, Ok(()), ms(3));
    r.state(1, 1, 5, &[1, 2], 3);
    let (_, effects) = r.fetch(3, (5, Some(5)), (9, 9), 4);
    assert_eq!(r.alters(&effects), vec![], "what it held once does not count");
    let (_, effects) = r.fetch(3, (5, Some(5)), (10, 10), 5);
    assert_eq!(r.alters(&effects), vec![(2, vec![1, 2, 3])]);
}

#[test]
fn a_follower_joins_at_the_high_watermark_and_the_epochs_start() {
    // D2. The leader knows a high watermark of 0 though 4 may have been committed before it.
    let mut r = replica(Durability::Disk, &[(1, 0)], 4, 4);
    r.brokers(LIVES, 0);
    r.state(0, 1, 5, &[1, 2], 0);
    r.adopted(5, 0);
    let (_, effects) = r.fetch(3, (5, Some(1)), (4, 3), 1);
    assert_eq!(r.alters(&effects), vec![]);
    let (_, effects) = r.fetch(3, (5, Some(1)), (4, 4), 2);
    assert_eq!(r.alters(&effects), vec![(1, vec![1, 2, 3])]);
}

#[test]
fn whoever_was_taken_out_joins_by_a_fetch_made_after_that() {
    // A broker that stops is taken out and fetches no more: proposed again, it would hold the high watermark.
    let mut r = leader(Durability::Disk);
    let (fetched, _) = r.fetch(3, (5, None), (0, 0), 1);
    assert!(fetched.is_ok());
    assert_eq!(r.state(1, 1, 5, &[1, 2], 2), vec![]);
    r.partition.tick(ms(3), &mut r.effects);
    assert_eq!(r.take(), vec![]);
    let (_, effects) = r.fetch(3, (5, None), (0, 0), 4);
    assert_eq!(r.alters(&effects), vec![(1, vec![1, 2, 3])]);
}

#[test]
fn an_unregistered_follower_does_not_join() {
    let mut r = leader(Durability::Disk);
    r.state(1, 1, 5, &[1, 2], 0);
    r.brokers(&[(1, 10), (2, 20)], 0);
    let (_, effects) = r.fetch(3, (5, None), (0, 0), 2);
    assert_eq!(r.alters(&effects), vec![]);
    let effects = r.brokers(LIVES, 3);
    assert_eq!(r.alters(&effects), vec![(1, vec![1, 2, 3])]);
}

#[test]
fn whoever_was_proposed_counts_until_the_partition_epoch_rises() {
    // C3: the answer was lost or refused, yet a late copy of the request may be granted.
    let mut r = leader(Durability::Disk);
    r.state(1, 1, 5, &[1, 2], 0);
    r.progress(2, (5, None), (0, 0), 1);
    let (_, effects) = r.fetch(3, (5, None), (0, 0), 1);
    assert_eq!(r.alters(&effects), vec![(1, vec![1, 2, 3])]);
    r.partition.alter_answered(1, Err(ErrorCode::IneligibleReplica), ms(2));
    r.append(5, 0, 10, 3);
    r.sync(10, 1, 3);
    assert_eq!(r.fetch(2, (5, Some(5)), (10, 10), 4).1, vec![], "3 may be in sync");
    // 3 is gone: the present ISR is asked for, to make the proposal void.
    r.brokers(&[(1, 10), (2, 20)], 5);
    r.partition.tick(ms(2 + RETRY_MS), &mut r.effects);
    let effects = r.take();
    assert_eq!(r.alters(&effects), vec![(2, vec![1, 2])]);
    assert_eq!(r.state(2, 1, 5, &[1, 2], 600), vec![high_watermark(10)]);
    assert_eq!(r.partition.next_deadline(), None);
}

#[test]
fn an_unanswered_request_is_sent_again() {
    let mut r = leader(Durability::Disk);
    r.state(1, 1, 5, &[1, 2], 0);
    let (_, effects) = r.fetch(3, (5, None), (0, 0), 1);
    assert_eq!(r.alters(&effects), vec![(1, vec![1, 2, 3])]);
    r.partition.tick(ms(RETRY_MS), &mut r.effects);
    assert_eq!(r.take(), vec![]);
    r.partition.tick(ms(RETRY_MS + 1), &mut r.effects);
    let effects = r.take();
    assert_eq!(r.alters(&effects), vec![(2, vec![1, 2, 3])]);
}

#[test]
fn consumers_read_below_the_high_watermark_only() {
    let mut r = leader(Durability::Disk);
    r.append(5, 0, 10, 0);
    r.sync(10, 1, 0);
    r.progress(2, (5, Some(5)), (10, 4), 1);
    assert_eq!(r.fetch(3, (5, Some(5)), (10, 4), 1).1, vec![high_watermark(4)]);
    let fetch = |offset, epoch: Option<i32>| ConsumerFetch {
        fetch_offset: o(offset),
        leader_epoch: epoch.map(e),
        last_fetched_epoch: None,
    };
    let limits = |offset| {
        r.partition.consumer_fetch(&fetch(offset, None)).map(|r| (r.from.get(), r.up_to.get()))
    };
    assert_eq!(limits(0), Ok((0, 4)));
    assert_eq!(limits(4), Ok((4, 4)));
    assert_eq!(limits(9), Ok((9, 9)), "beyond the high watermark, within the log: wait");
    assert_eq!(limits(11).map_err(|r| r.error), Err(ErrorCode::OffsetOutOfRange));
    let old = r.partition.consumer_fetch(&fetch(0, Some(4)));
    assert_eq!(old.map_err(|r| r.error), Err(ErrorCode::FencedLeaderEpoch));
    assert_eq!(r.partition.latest_offset(None), Ok(o(4)));
}

#[test]
fn a_diverging_follower_is_told_where_its_epoch_ends_and_counts_for_nothing() {
    let mut r = replica(Durability::Disk, &[(1, 0), (3, 6)], 8, 8);
    r.brokers(LIVES, 0);
    r.state(0, 1, 5, &[1, 2], 0);
    r.adopted(5, 0);
    let (readable, effects) = r.fetch(2, (5, Some(2)), (9, 9), 1);
    let end = EpochEnd { leader_epoch: e(1), end_offset: o(6) };
    assert_eq!(readable.expect("diverging").diverging, Some(end));
    assert_eq!(effects, vec![]);
    let (readable, _) = r.fetch(2, (5, Some(3)), (8, 8), 1);
    assert_eq!(readable.expect("prefix").diverging, None);
    assert_eq!(r.partition.high_watermark(), o(8));
}

/// Follows broker 2 in epoch 5 with a log of its own.
fn follower(epochs: &[(i32, i64)], end: i64) -> Replica {
    let mut r = replica(Durability::Disk, epochs, end, end);
    r.brokers(LIVES, 0);
    assert_eq!(r.state(0, 2, 5, &[1, 2, 3], 0), vec![Effect::AdoptEpoch { leader_epoch: e(5) }]);
    assert_eq!(r.partition.fetch_position(), None, "not before the log adopted the epoch");
    assert_eq!(r.adopted(5, 0), vec![Effect::FetchFrom { leader: id(2), leader_epoch: e(5) }]);
    r
}

fn answer(offset: i64) -> FetchAnswer {
    FetchAnswer {
        leader_epoch: e(5),
        fetch_offset: o(offset),
        error: ErrorCode::None,
        diverging: None,
        high_watermark: Some(o(100)),
        log_start: Some(o(0)),
        has_records: true,
    }
}

/// All of it is durable, and the generation the second.
fn cut(start: i64, end: i64) -> Truncated {
    Truncated {
        start: o(start),
        end_offset: o(end),
        durable_end: o(end),
        generation: 2,
        cut_below_mark: false,
    }
}

#[test]
fn a_cut_that_met_damage_is_reported() {
    let mut r = follower(&[(1, 0)], 9);
    let truncated = Truncated { cut_below_mark: true, ..cut(0, 4) };
    r.partition.truncated(truncated, &mut r.effects);
    assert!(r.partition.report().cut_below_mark);
    r.partition.truncated(Truncated { generation: 3, ..cut(0, 4) }, &mut r.effects);
    assert!(r.partition.report().cut_below_mark, "it lasts until the replica is in sync anew");
}

#[test]
fn a_follower_appends_what_continues_its_log_and_reports_it() {
    let mut r = follower(&[(1, 0)], 4);
    let position = r.partition.fetch_position().expect("fetches");
    assert_eq!(
        (position.fetch_offset, position.last_fetched_epoch, position.durable_end),
        (o(4), Some(e(1)), o(4))
    );
    r.partition.fetch_answered(&answer(4), &mut r.effects);
    let append = Effect::AppendFetched { leader_epoch: e(5), base_offset: o(4) };
    assert_eq!(r.take(), vec![append, high_watermark(4)]);
    // The same answer again, and one for another place, are dropped.
    r.partition.fetch_answered(&answer(4), &mut r.effects);
    r.partition.fetch_answered(&answer(6), &mut r.effects);
    assert_eq!(r.take(), vec![]);
    assert_eq!(r.append(5, 4, 6, 0), vec![Effect::ReportProgress, high_watermark(6)]);
    assert_eq!(r.sync(6, 1, 0), vec![Effect::ReportProgress]);
}

#[test]
fn a_follower_cuts_by_epoch_and_not_at_the_high_watermark() {
    let mut r = follower(&[(1, 0), (3, 4)], 9);
    let diverging = Some(EpochEnd { leader_epoch: e(2), end_offset: o(7) });
    let told = FetchAnswer { diverging, has_records: false, ..answer(9) };
    r.partition.fetch_answered(&told, &mut r.effects);
    // Own epoch 1 ends at 4, before the leader's epoch 2 does.
    assert_eq!(r.take(), vec![Effect::Truncate { leader_epoch: e(5), to: o(4) }]);
    assert_eq!(r.partition.fetch_position(), None);
    r.partition.truncated(cut(0, 4), &mut r.effects);
    assert_eq!(r.take(), vec![]);
    let position = r.partition.fetch_position().expect("fetches");
    assert_eq!((position.fetch_offset, position.last_fetched_epoch), (o(4), Some(e(1))));
}

#[test]
fn a_sync_from_before_a_truncation_does_not_count() {
    // D5.
    let mut r = follower(&[(1, 0)], 9);
    r.partition.truncated(cut(0, 4), &mut r.effects);
    r.append(5, 4, 9, 0);
    r.take();
    assert_eq!(r.sync(9, 1, 0), vec![]);
    assert_eq!(r.partition.positions().durable_end, o(4));
    assert_eq!(r.sync(9, 2, 0), vec![Effect::ReportProgress]);
}

#[test]
fn a_follower_out_of_range_begins_where_the_leader_begins() {
    let mut r = follower(&[(1, 0)], 4);
    let out = FetchAnswer {
        error: ErrorCode::OffsetOutOfRange,
        log_start: Some(o(20)),
        has_records: false,
        ..answer(4)
    };
    r.partition.fetch_answered(&out, &mut r.effects);
    assert_eq!(r.take(), vec![Effect::RestartAt { leader_epoch: e(5), start: o(20) }]);
    r.partition.truncated(cut(20, 20), &mut r.effects);
    assert_eq!(r.take(), vec![high_watermark(20)]);
    let position = r.partition.fetch_position().expect("fetches");
    // It holds no record there, of whatever epoch.
    assert_eq!((position.fetch_offset, position.last_fetched_epoch), (o(20), None));
}

#[test]
fn who_began_anew_is_served_though_the_epoch_of_its_former_records_is_gone() {
    let mut ahead = replica(Durability::Disk, &[(1, 0), (4, 20)], 30, 30);
    ahead.brokers(LIVES, 0);
    ahead.state(0, 1, 5, &[1], 0);
    ahead.adopted(5, 0);
    ahead.partition.log_start_moved(o(20), &mut ahead.effects);
    assert_eq!(ahead.take(), vec![high_watermark(20)]);
    let (refused, _) = ahead.fetch(2, (5, Some(1)), (4, 4), 0);
    assert_eq!(refused, Err(ErrorCode::OffsetOutOfRange));
    let mut behind = follower(&[(1, 0)], 4);
    behind.partition.truncated(cut(20, 20), &mut behind.effects);
    assert_eq!(behind.take(), vec![high_watermark(20)]);
    let position = behind.partition.fetch_position().expect("fetches");
    let last_epoch = position.last_fetched_epoch.map(LeaderEpoch::get);
    let ends = (position.fetch_offset.get(), position.durable_end.get());
    let (served, _) = ahead.fetch(2, (5, last_epoch), ends, 1);
    assert_eq!(served.map(|r| (r.from, r.up_to, r.diverging)), Ok((o(20), o(30), None)));
}

#[test]
fn a_follower_adopts_the_leaders_log_start_up_to_its_high_watermark() {
    let mut r = follower(&[(1, 0)], 4);
    let told = FetchAnswer {
        log_start: Some(o(3)),
        high_watermark: Some(o(2)),
        has_records: false,
        ..answer(4)
    };
    r.partition.fetch_answered(&told, &mut r.effects);
    assert_eq!(r.take(), vec![high_watermark(2), Effect::DropBelow { start: o(2) }]);
}

#[test]
fn a_lost_lead_and_a_new_leader_are_told() {
    let mut r = leader(Durability::Disk);
    let adopt = Effect::AdoptEpoch { leader_epoch: e(6) };
    assert_eq!(r.state(1, 2, 6, &[2, 3], 0), vec![Effect::LeadershipLost, adopt]);
    r.adopted(6, 0);
    let adopt = Effect::AdoptEpoch { leader_epoch: e(7) };
    assert_eq!(r.state(2, 0, 7, &[2], 0), vec![Effect::StopFetching, adopt]);
    assert_eq!((r.partition.leading(), r.partition.following()), (None, None));
}

#[test]
fn an_answer_of_a_former_leadership_changes_nothing() {
    let mut r = follower(&[(1, 0)], 4);
    r.state(1, 3, 6, &[1, 3], 0);
    r.adopted(6, 0);
    r.partition.fetch_answered(&answer(4), &mut r.effects);
    assert_eq!(r.take(), vec![]);
}

/// A follower that had to cut below its mark, and has yet to catch up.
fn cut_follower() -> Replica {
    let loaded = Loaded {
        positions: LogPositions {
            start: o(0),
            end: o(4),
            durable_end: o(4),
            generation: 1,
            epochs: EpochHistory::new(&[(e(1), o(0))]),
        },
        high_watermark: o(9),
        cut_below_mark: true,
    };
    let mut r = follower(&[], 0);
    let settings = r.partition.settings;
    r.partition = Partition::new(id(1), KEY, Zxid::new(STARTED), loaded, settings);
    r
}

#[test]
fn a_cut_replica_says_so_until_it_is_in_sync_again() {
    // D6.
    let mut r = cut_follower();
    assert_eq!(r.partition.high_watermark(), o(4));
    let adopt = Effect::AdoptEpoch { leader_epoch: e(5) };
    assert_eq!(r.state_at(STARTED - 1, 0, (2, 5), &[1, 2], 0), vec![adopt]);
    assert!(r.partition.report().cut_below_mark);
    assert_eq!(r.state(1, 2, 5, &[2], 0), vec![]);
    assert_eq!(r.state(2, 2, 5, &[2, 1], 0), vec![Effect::CutRepaired]);
    assert!(!r.partition.report().cut_below_mark);
}

#[test]
fn a_cut_replica_among_those_who_are_gone_goes_on_saying_so() {
    // Its session ended and its process did not: the state that names it was written without asking it (D6).
    let mut r = cut_follower();
    let adopt = |epoch| Effect::AdoptEpoch { leader_epoch: e(epoch) };
    assert_eq!(r.state(1, 0, 5, &[1], 0), vec![adopt(5)]);
    assert!(r.partition.report().cut_below_mark);
    assert_eq!(r.state(2, 2, 6, &[2], 0), vec![adopt(6)]);
    assert!(r.partition.report().cut_below_mark);
    assert_eq!(r.state(3, 2, 6, &[2, 1], 0), vec![Effect::CutRepaired]);
    assert!(!r.partition.report().cut_below_mark);
}

#[test]
fn a_log_start_above_the_high_watermark_raises_it() {
    let mut r = leader(Durability::Disk);
    r.append(5, 0, 10, 0);
    r.partition.log_start_moved(o(3), &mut r.effects);
    assert_eq!(r.take(), vec![high_watermark(3)]);
}
