//! Producers and consumers.
//!
//! Called by: `world`. Calls: nothing but the batch builder. Invariant: each value is sent by one producer once, in order, and sent again,
//! byte for byte, until it is acknowledged; a consumer goes on from where it was.

use broker_core::ids::{LeaderEpoch, Offset, TopicPartition};
use bytes::Bytes;
use client_protocol::records::{
    BatchBuilder, Producer as BatchProducer, Record, RecordHeader, RecordRef,
};
use client_protocol::{ErrorCode, ProducerEpoch, ProducerId};

use crate::sim::ensemble::schedule::{MS, Time};
use crate::sim::random::Random;

/// A producer gives up waiting for an answer after this.
pub const PRODUCE_TIMEOUT: Time = 1_500 * MS;

/// Batches that each producer makes when everything is mended: all partitions take records again.
const AFTER_HEALING: u32 = 2;

/// Which key the record of a value has: where the topic is compacted, one value takes the place of another by it.
pub fn record_key(value: u64) -> u8 {
    u8::try_from(value % 6).expect("small")
}

/// Whether the record of a value is a tombstone, which has its value among the headers.
pub fn is_tombstone(value: u64) -> bool {
    value % 7 == 3
}

/// The record that a value is sent as, with a key or without.
pub fn record(value: u64, is_keyed: bool) -> Record {
    let bytes = Some(Bytes::copy_from_slice(&value.to_be_bytes()));
    let key = is_keyed.then(|| Bytes::copy_from_slice(&[record_key(value)]));
    if is_keyed && is_tombstone(value) {
        let headers = vec![RecordHeader { key: "value".into(), value: bytes }];
        return Record { timestamp_ms: 1, key, value: None, headers };
    }
    Record { timestamp_ms: 1, key, value: bytes, headers: Vec::new() }
}

/// The value that a record was sent for.
pub fn value_of(record: &RecordRef<'_>) -> u64 {
    let bytes = record.value.or_else(|| record.headers().next()?.1).expect("ours");
    let value = u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
    if let Some(key) = record.key {
        assert_eq!(key, [record_key(value)], "{value:x} has another's key");
        assert_eq!(record.value.is_none(), is_tombstone(value), "{value:x} lost its value");
    }
    value
}

/// A batch that is not answered.
#[derive(Debug, Clone)]
pub struct InFlight {
    pub number: u64,
    pub batch: Bytes,
    pub values: Vec<u64>,
    pub deadline: Time,
    /// When it was sent first.
    pub began: Time,
}

/// Who sends values to one partition.
#[derive(Debug)]
pub struct Producer {
    pub key: TopicPartition,
    pub acks: i16,
    pub idempotent: bool,
    is_keyed: bool,
    /// The greatest leader epoch that it heard of.
    pub leader_epoch: LeaderEpoch,
    id: i64,
    next_value: u64,
    next_sequence: i32,
    epoch: i16,
    pub in_flight: Option<InFlight>,
    /// Batches that it still makes when everything is mended.
    pub after_healing: u32,
}

impl Producer {
    pub fn new(
        index: usize,
        key: TopicPartition,
        (acks, idempotent, is_keyed): (i16, bool, bool),
    ) -> Self {
        let id = i64::try_from(index).expect("few") + 1;
        let next_value = id.unsigned_abs() << 32;
        Self {
            key,
            acks,
            idempotent,
            is_keyed,
            leader_epoch: LeaderEpoch::default(),
            id,
            next_value,
            next_sequence: 0,
            epoch: 0,
            in_flight: None,
            after_healing: AFTER_HEALING,
        }
    }

    /// Makes the next batch.
    pub fn make_batch(&mut self, began: Time, random: &mut Random) {
        let first = self.next_value;
        self.next_value += 1 + random.below(3);
        let values: Vec<u64> = (first..self.next_value).collect();
        let batch = self.build(&values);
        self.in_flight = Some(InFlight { number: 0, batch, values, deadline: 0, began });
    }

    /// Under an epoch of its own, with what is in flight as its first batch.
    pub fn begin_anew(&mut self) {
        self.epoch += 1;
        self.next_sequence = 0;
        if let Some(mut in_flight) = self.in_flight.take() {
            in_flight.batch = self.build(&in_flight.values);
            self.in_flight = Some(in_flight);
        }
    }

    fn build(&mut self, values: &[u64]) -> Bytes {
        let mut builder = BatchBuilder::new(1 << 20);
        for value in values {
            assert!(builder.push(&record(*value, self.is_keyed)), "small records fit");
        }
        let count = i32::try_from(values.len()).expect("few");
        let producer = self.idempotent.then(|| BatchProducer {
            id: ProducerId::new(self.id),
            epoch: ProducerEpoch::new(self.epoch),
            base_sequence: self.next_sequence,
            is_transactional: false,
        });
        self.next_sequence += count;
        builder.build(producer).expect("not empty")
    }
}

/// What a producer learnt from an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Learnt {
    /// Not about what is in flight.
    Nothing,
    /// These values, first sent at this time, stand from this offset on.
    Acknowledged(i64, Vec<u64>, Time),
    /// To be sent again.
    Again,
    /// The log does not know the producer's former batches any more.
    Forgotten,
}

impl Producer {
    pub fn answered(&mut self, number: u64, error: ErrorCode, base_offset: i64) -> Learnt {
        let Some(in_flight) = self.in_flight.take_if(|f| f.number == number) else {
            return Learnt::Nothing;
        };
        match error {
            ErrorCode::None => Learnt::Acknowledged(base_offset, in_flight.values, in_flight.began),
            ErrorCode::NotLeaderOrFollower
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::RequestTimedOut
            | ErrorCode::KafkaStorageError
            | ErrorCode::UnknownTopicOrPartition => {
                self.in_flight = Some(InFlight { deadline: 0, ..in_flight });
                Learnt::Again
            }
            ErrorCode::OutOfOrderSequenceNumber => {
                self.in_flight = Some(InFlight { deadline: 0, ..in_flight });
                Learnt::Forgotten
            }
            error => panic!("producer {} is told {error:?}", self.id),
        }
    }
}

/// Who reads one partition.
#[derive(Debug)]
pub struct Consumer {
    pub key: TopicPartition,
    pub position: Offset,
    pub number: u64,
}
