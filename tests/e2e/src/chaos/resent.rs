//! Records that a client wrote again under a raised producer epoch, as the logs themselves show it.
//!
//! Called by: the verdict. Calls: the reader of batches. Invariant: a value counts only when all its places are of one producer id, and the
//! epoch rises from each to the next; what a broker itself wrote twice stands under one epoch, and does not count.
//!
//! librdkafka answers OUT_OF_ORDER_SEQUENCE_NUMBER and batches that timed out in one partition by raising its epoch for all of them, and
//! then sends what was not answered yet under new sequences, also what stands in the log already. No broker can tell it from new records.

use std::collections::{BTreeMap, BTreeSet};

use ::tests::history::{Key, Value};
use anyhow::{Context, Result};
use client::protocol::records::Batches;
use client::protocol::{ProducerEpoch, ProducerId};

/// Who wrote a record.
type Writer = (ProducerId, ProducerEpoch);

/// The values of one partition, whose segments are `log`, that stand there more than once for that reason.
///
/// # Errors
/// When the log is not whole batches of values, each with a producer.
pub fn under_raised_epochs(key: Key, log: &[u8]) -> Result<BTreeSet<(Key, Value)>> {
    let mut writers: BTreeMap<Value, Vec<Writer>> = BTreeMap::new();
    for batch in Batches::new(log) {
        let batch = batch.map_err(|error| anyhow::anyhow!("partition {key}: {error}"))?;
        let writer = batch.header.producer_id.zip(batch.header.producer_epoch);
        let writer = writer.context("a batch without a producer")?;
        let records = batch.records().map_err(|error| anyhow::anyhow!("{error}"))?;
        for record in records {
            let record = record.map_err(|error| anyhow::anyhow!("{error}"))?;
            let value = record.value.context("a record without a value")?;
            writers.entry(std::str::from_utf8(value)?.parse()?).or_default().push(writer);
        }
    }
    let is_resent = |places: &Vec<Writer>| {
        places.len() > 1 && places.windows(2).all(|two| two[0].0 == two[1].0 && two[0].1 < two[1].1)
    };
    let resent = writers.into_iter().filter(|(_, places)| is_resent(places));
    Ok(resent.map(|(value, _)| (key, value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::protocol::records::{BatchBuilder, Producer, Record};

    fn batch(id: i64, epoch: i16, values: &[u64]) -> Vec<u8> {
        let mut builder = BatchBuilder::new(1 << 10);
        for value in values {
            let value = Some(bytes::Bytes::from(value.to_string()));
            assert!(builder.push(&Record { value, ..Record::default() }));
        }
        let (id, epoch) = (ProducerId::new(id), ProducerEpoch::new(epoch));
        let producer = Producer { id, epoch, base_sequence: 0, is_transactional: false };
        builder.build(Some(producer)).unwrap().to_vec()
    }

    fn found(batches: &[Vec<u8>]) -> Vec<Value> {
        let found = under_raised_epochs(3, &batches.concat()).unwrap();
        found.into_iter().map(|(_, value)| value).collect()
    }

    #[test]
    fn what_stands_again_under_a_raised_epoch_was_sent_again() {
        let log = [batch(7, 0, &[1, 2]), batch(7, 1, &[2, 3]), batch(7, 2, &[3])];
        assert_eq!(found(&log), [2, 3]);
    }

    #[test]
    fn what_stands_twice_under_one_epoch_or_under_a_lower_one_or_of_two_producers_counts() {
        let none: Vec<Value> = Vec::new();
        assert_eq!(found(&[batch(7, 0, &[1, 2]), batch(7, 0, &[2])]), none);
        assert_eq!(found(&[batch(7, 1, &[1]), batch(7, 0, &[1])]), none);
        assert_eq!(found(&[batch(7, 0, &[1]), batch(8, 1, &[1])]), none);
        let mixed = [batch(7, 0, &[1]), batch(7, 1, &[1]), batch(7, 1, &[1])];
        assert_eq!(found(&mixed), none, "the broker wrote one of them twice");
    }
}
