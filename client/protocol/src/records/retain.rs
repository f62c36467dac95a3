//! Builds a batch anew from some of its records, as Kafka's cleaner leaves it.
//!
//! *Called by* the log's cleaner. *Calls* `build`, `batch`.
//!
//! Invariant: base offset, last offset, leader epoch, producer and sequence stay what they were, so that the batch
//! takes the same place in the log and says the same of its producer; every record keeps its offset and timestamp.

use bytes::{BufMut, Bytes, BytesMut};

use super::batch::{
    BATCH_HEADER_BYTES, BATCH_PREFIX_BYTES, BatchHeader, Compression, DELETE_HORIZON_BIT,
    LOG_APPEND_TIME_BIT, MAGIC, TRANSACTIONAL_BIT, write_crc,
};
use super::build::{put_length, put_nullable, put_varlong};
use super::record::RecordRef;
use crate::ids::{LeaderEpoch, ProducerEpoch, ProducerId};
use crate::pack::UNPACKED_BYTES_MAX;

/// The batch with `header`, holding `records` of it only, which may be none. `delete_horizon_ms` is from when on the
/// cleaner may drop the tombstones among them. `pack` is given the records' bytes and how they were packed, and gives
/// back how they are and their bytes.
///
/// `None` when the batch cannot be written: its records would be more than anybody unpacks
/// ([`UNPACKED_BYTES_MAX`]), it would be larger than a length can say, or their times lie further apart than a
/// difference can say. What is written is read back as it is.
#[must_use]
pub fn retain_records<'a>(
    header: &BatchHeader,
    records: impl Iterator<Item = RecordRef<'a>>,
    delete_horizon_ms: Option<i64>,
    pack: impl FnOnce(Compression, Bytes) -> (Compression, Bytes),
) -> Option<Bytes> {
    let (mut base_timestamp, mut newest) = (delete_horizon_ms, None);
    let mut count = 0_i32;
    let mut payload = BytesMut::new();
    let mut record_bytes = BytesMut::new();
    for record in records {
        let base_timestamp = *base_timestamp.get_or_insert(record.timestamp_ms);
        newest = newest.max(Some(record.timestamp_ms));
        count = count.checked_add(1)?;
        record_bytes.clear();
        record_bytes.put_i8(0);
        put_varlong(&mut record_bytes, record.timestamp_ms.checked_sub(base_timestamp)?);
        put_varlong(&mut record_bytes, i64::from(record.offset_delta));
        put_nullable(&mut record_bytes, record.key);
        put_nullable(&mut record_bytes, record.value);
        put_varlong(&mut record_bytes, i64::from(record.header_count));
        record_bytes.put_slice(record.headers);
        put_length(&mut payload, record_bytes.len());
        payload.put_slice(&record_bytes);
        if payload.len() > UNPACKED_BYTES_MAX {
            return None;
        }
    }
    let Some(newest) = newest else {
        // What is left says what the producer did and where the batch stood; it has no record to date from.
        let times = (header.max_timestamp, header.max_timestamp);
        return assemble(header, (Compression::None, &Bytes::new()), times, (0, false));
    };
    let max_timestamp = if header.has_log_append_time() { header.max_timestamp } else { newest };
    let (compression, packed) = pack(header.compression()?, payload.freeze());
    let times = (base_timestamp?, max_timestamp);
    assemble(header, (compression, &packed), times, (count, delete_horizon_ms.is_some()))
}

fn assemble(
    header: &BatchHeader,
    (compression, payload): (Compression, &Bytes),
    (base_timestamp, max_timestamp): (i64, i64),
    (count, has_delete_horizon): (i32, bool),
) -> Option<Bytes> {
    let size = BATCH_HEADER_BYTES.checked_add(payload.len())?;
    let length = i32::try_from(size.checked_sub(BATCH_PREFIX_BYTES)?).ok()?;
    let kept = header.attributes & (LOG_APPEND_TIME_BIT | TRANSACTIONAL_BIT);
    let horizon = if has_delete_horizon { DELETE_HORIZON_BIT } else { 0 };
    let mut batch = BytesMut::with_capacity(size);
    batch.put_i64(header.base_offset.get());
    batch.put_i32(length);
    batch.put_i32(header.leader_epoch.map_or(-1, LeaderEpoch::get));
    batch.put_i8(MAGIC);
    batch.put_u32(0);
    batch.put_i16(kept | horizon | compression.code());
    batch.put_i32(header.last_offset_delta);
    batch.put_i64(base_timestamp);
    batch.put_i64(max_timestamp);
    batch.put_i64(header.producer_id.map_or(-1, ProducerId::get));
    batch.put_i16(header.producer_epoch.map_or(-1, ProducerEpoch::get));
    batch.put_i32(header.base_sequence);
    batch.put_i32(count);
    batch.put_slice(payload);
    write_crc(&mut batch)?;
    Some(batch.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Offset;
    use crate::records::{Batch, BatchBuilder, Producer, Record, RecordHeader, assign_offsets};

    fn unpacked(_: Compression, bytes: Bytes) -> (Compression, Bytes) {
        (Compression::None, bytes)
    }

    /// Three records at offsets 40 to 42: a, a tombstone of b, and c with headers.
    fn batch() -> Bytes {
        let mut builder = BatchBuilder::new(1 << 16);
        let header = RecordHeader { key: "h".to_owned(), value: Some(Bytes::from_static(b"1")) };
        let record = |key: &'static str, value: Option<&'static str>, timestamp_ms| Record {
            timestamp_ms,
            key: Some(Bytes::from_static(key.as_bytes())),
            value: value.map(|value| Bytes::from_static(value.as_bytes())),
            headers: vec![header.clone(), header.clone()],
        };
        for record in
            [record("a", Some("1"), 500), record("b", None, 700), record("c", Some(""), 600)]
        {
            assert!(builder.push(&record));
        }
        let producer = Producer {
            id: ProducerId::new(9),
            epoch: ProducerEpoch::new(2),
            base_sequence: 70,
            is_transactional: false,
        };
        let mut bytes = BytesMut::from(&builder.build(Some(producer)).unwrap()[..]);
        assign_offsets(&mut bytes, Offset::new(40), LeaderEpoch::new(6)).unwrap();
        bytes.freeze()
    }

    fn retained(keys: &[&[u8]], horizon: Option<i64>) -> (Bytes, Vec<Record>) {
        let bytes = batch();
        let batch = Batch::first(&bytes).unwrap();
        let all: Vec<_> = batch.records().unwrap().map(Result::unwrap).collect();
        let wanted: Vec<_> =
            all.iter().filter(|record| keys.contains(&record.key.unwrap())).copied().collect();
        let expected = wanted.iter().map(RecordRef::to_record).collect();
        (retain_records(&batch.header, wanted.into_iter(), horizon, unpacked).unwrap(), expected)
    }

    #[test]
    fn place_and_producer_stay_and_records_keep_offsets_and_times() {
        for horizon in [None, Some(86_400_000)] {
            let (bytes, expected) = retained(&[b"b", b"c"], horizon);
            let (was, is) = (batch(), Batch::first(&bytes).unwrap());
            let was = Batch::first(&was).unwrap().header;
            is.check_crc().unwrap();
            let place = |h: &BatchHeader| (h.base_offset, h.last_offset(), h.leader_epoch);
            assert_eq!(place(&is.header), place(&was));
            let producer = |h: &BatchHeader| (h.producer_id, h.producer_epoch, h.last_sequence());
            assert_eq!(producer(&is.header), producer(&was));
            assert_eq!((is.header.record_count, is.header.max_timestamp), (2, 700));
            assert_eq!(is.header.has_delete_horizon(), horizon.is_some());
            assert_eq!(is.header.base_timestamp, horizon.unwrap_or(700));
            let records: Vec<_> = is.records().unwrap().map(Result::unwrap).collect();
            let offsets: Vec<_> = records.iter().map(|record| record.offset.get()).collect();
            assert_eq!(offsets, [41, 42]);
            assert_eq!(records.iter().map(RecordRef::to_record).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_batch_without_records_still_says_what_the_producer_did() {
        let (bytes, _) = retained(&[], None);
        assert_eq!(bytes.len(), BATCH_HEADER_BYTES);
        let is = Batch::first(&bytes).unwrap();
        is.check_crc().unwrap();
        assert_eq!((is.header.record_count, is.header.last_sequence()), (0, 72));
        assert_eq!(is.header.end_offset(), Some(Offset::new(43)));
        assert_eq!(is.records().unwrap().count(), 0);
    }

    #[test]
    fn the_time_of_the_append_stays_that_of_all_records() {
        let mut bytes = batch().to_vec();
        crate::records::set_log_append_time(&mut bytes, 9_000).unwrap();
        let batch = Batch::first(&bytes).unwrap();
        let first: Vec<_> = batch.records().unwrap().map(Result::unwrap).take(1).collect();
        let bytes = retain_records(&batch.header, first.into_iter(), None, unpacked).unwrap();
        let is = Batch::first(&bytes).unwrap();
        assert!(is.header.has_log_append_time());
        assert_eq!(is.header.max_timestamp, 9_000);
        assert_eq!(is.records().unwrap().next().unwrap().unwrap().timestamp_ms, 9_000);
    }

    #[test]
    fn more_than_anybody_would_unpack_is_not_written() {
        let bytes = batch();
        let batch = Batch::first(&bytes).unwrap();
        let value = vec![0; UNPACKED_BYTES_MAX / 2];
        let mut record = batch.records().unwrap().next().unwrap().unwrap();
        record.value = Some(&value);
        let retained = |count| {
            let records = std::iter::repeat_n(record, count);
            retain_records(&batch.header, records, None, unpacked).map(|bytes| bytes.len())
        };
        assert!(retained(1).is_some());
        assert_eq!(retained(2), None);
    }

    #[test]
    fn times_too_far_apart_for_a_reader_are_not_written() {
        let bytes = batch();
        let batch = Batch::first(&bytes).unwrap();
        let record = batch.records().unwrap().next().unwrap().unwrap();
        let retained = |timestamp_ms: i64, horizon| {
            let records = std::iter::once(RecordRef { timestamp_ms, ..record });
            let bytes = retain_records(&batch.header, records, Some(horizon), unpacked)?;
            let is = Batch::first(&bytes).unwrap();
            is.records().unwrap().next().unwrap().ok().map(|read| read.timestamp_ms)
        };
        assert_eq!(retained(i64::MIN, -1), Some(i64::MIN));
        assert_eq!(retained(i64::MIN, 1), None);
        assert_eq!(retained(i64::MAX, -1), None);
    }
}
