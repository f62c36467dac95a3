use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::batch::write_crc;
use super::*;
use crate::error_code::ErrorCode;
use crate::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};
use crate::{Message, Reader, decode_request_header, decode_response_header, messages};

const ATTRIBUTES_AT: usize = 21;

fn record(key: Option<&str>, value: &str) -> Record {
    Record {
        timestamp_ms: 1_700_000_000_000,
        key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Vec::new(),
    }
}

fn batch_of(records: &[Record], producer: Option<Producer>) -> Bytes {
    let mut builder = BatchBuilder::new(1 << 20);
    for record in records {
        assert!(builder.push(record));
    }
    builder.build(producer).unwrap()
}

fn three() -> Bytes {
    batch_of(&[record(Some("a"), "1"), record(None, "two"), record(Some("c"), "3")], None)
}

/// `batch` with a number written at a position and the checksum made right again.
fn patched<const N: usize>(batch: &[u8], at: usize, value: [u8; N]) -> Vec<u8> {
    let mut batch = batch.to_vec();
    batch[at..at + N].copy_from_slice(&value);
    write_crc(&mut batch).unwrap();
    batch
}

fn refusal(bytes: &[u8], rules: &ProduceRules) -> (BatchError, ErrorCode) {
    let error = validate_produced(bytes, rules).unwrap_err();
    (error, error.error_code())
}

#[test]
fn a_built_batch_is_valid_and_reads_back_with_duplicate_headers_in_order() {
    let header = |key: &str, value: Option<&'static str>| RecordHeader {
        key: key.to_owned(),
        value: value.map(|value| Bytes::from_static(value.as_bytes())),
    };
    let records = [
        Record {
            headers: vec![header("h", Some("1")), header("g", None), header("h", Some("2"))],
            ..record(Some("k"), "v")
        },
        Record { timestamp_ms: 5, key: None, value: None, headers: Vec::new() },
    ];
    let bytes = batch_of(&records, None);
    let header = validate_produced(&bytes, &ProduceRules::default()).unwrap();
    assert_eq!(header.size, bytes.len());
    assert_eq!((header.record_count, header.last_offset_delta), (2, 1));
    assert_eq!(
        (header.base_timestamp, header.max_timestamp),
        (1_700_000_000_000, 1_700_000_000_000)
    );
    assert_eq!((header.leader_epoch, header.producer_id), (None, None));
    let batch = Batch::first(&bytes).unwrap();
    let read: Vec<_> = batch.records().unwrap().map(|record| record.unwrap().to_record()).collect();
    assert_eq!(read, records);
}

#[test]
fn leader_assigns_offsets_without_touching_the_checksum() {
    let mut bytes = three().to_vec();
    assign_offsets(&mut bytes, Offset::new(1000), LeaderEpoch::new(7)).unwrap();
    let batch = Batch::first(&bytes).unwrap();
    batch.check_crc().unwrap();
    assert_eq!(batch.header.base_offset, Offset::new(1000));
    assert_eq!(batch.header.leader_epoch, Some(LeaderEpoch::new(7)));
    assert_eq!(batch.header.last_offset(), Some(Offset::new(1002)));
    assert_eq!(batch.header.end_offset(), Some(Offset::new(1003)));
    let offsets: Vec<_> = batch.records().unwrap().map(|r| r.unwrap().offset.get()).collect();
    assert_eq!(offsets, [1000, 1001, 1002]);
    let short = assign_offsets(&mut bytes[..60], Offset::ZERO, LeaderEpoch::new(0));
    assert_eq!(short, Err(BatchError::Truncated { needed: 61, available: 60 }));
}

#[test]
fn log_append_time_replaces_the_producers_timestamps() {
    let mut bytes = three().to_vec();
    set_log_append_time(&mut bytes, 42).unwrap();
    let batch = Batch::first(&bytes).unwrap();
    batch.check_crc().unwrap();
    assert!(batch.header.has_log_append_time());
    assert!(batch.records().unwrap().all(|record| record.unwrap().timestamp_ms == 42));
}

#[test]
fn bad_batches_are_refused_with_kafkas_codes() {
    let good = three();
    let rules = ProduceRules::default();
    let check = |bytes: &[u8], expected: ErrorCode| {
        let (error, code) = refusal(bytes, &rules);
        assert_eq!(code, expected, "{error}");
    };
    check(&[], ErrorCode::InvalidRecord);
    check(&good[..60], ErrorCode::CorruptMessage);
    check(&good[..good.len() - 1], ErrorCode::CorruptMessage);
    check(&[&good[..], &good[..]].concat(), ErrorCode::InvalidRecord);
    check(&[&good[..], b"x"].concat(), ErrorCode::InvalidRecord);
    for magic in [0i8, 1, 3, -1] {
        check(&patched(&good, 16, magic.to_be_bytes()), ErrorCode::InvalidRecord);
    }
    for length in [i32::MIN, -1, 0, 48, i32::MAX] {
        let mut bytes = good.to_vec();
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        check(&bytes, ErrorCode::CorruptMessage);
    }
    for codec in [5i16, 6, 7] {
        check(
            &patched(&good, ATTRIBUTES_AT, codec.to_be_bytes()),
            ErrorCode::UnsupportedCompressionType,
        );
    }
    // Control, a delete horizon, and transactional without a transactional id.
    check(&patched(&good, ATTRIBUTES_AT, 0x20i16.to_be_bytes()), ErrorCode::InvalidRecord);
    check(&patched(&good, ATTRIBUTES_AT, 0x40i16.to_be_bytes()), ErrorCode::InvalidRecord);
    check(&patched(&good, ATTRIBUTES_AT, 0x10i16.to_be_bytes()), ErrorCode::InvalidRecord);
    for count in [-1i32, 0, 2, 4, i32::MAX] {
        check(&patched(&good, 57, count.to_be_bytes()), ErrorCode::InvalidRecord);
    }
    for delta in [-1i32, 1, 3, i32::MAX] {
        check(&patched(&good, 23, delta.to_be_bytes()), ErrorCode::InvalidRecord);
    }
    // Fewer and more records than count and delta agree on.
    for (delta, count) in [(1i32, 2i32), (3, 4)] {
        let bytes = patched(&good, 23, delta.to_be_bytes());
        check(&patched(&bytes, 57, count.to_be_bytes()), ErrorCode::InvalidRecord);
    }
    // The first record with offset delta 1 instead of 0 (zigzag).
    assert_eq!(good[64], 0);
    check(&patched(&good, 64, [2]), ErrorCode::InvalidRecord);
    // A producer id without epoch and sequence, or below -1.
    check(&patched(&good, 43, 9i64.to_be_bytes()), ErrorCode::InvalidRecord);
    check(&patched(&good, 43, (-2i64).to_be_bytes()), ErrorCode::InvalidRecord);
}

#[test]
fn limits_are_inclusive() {
    let good = three();
    let size = good.len();
    let rules = |batch, segment| ProduceRules {
        batch_bytes_max: batch,
        segment_bytes_max: segment,
        ..ProduceRules::default()
    };
    assert!(validate_produced(&good, &rules(size, size)).is_ok());
    let (error, code) = refusal(&good, &rules(size - 1, size));
    assert_eq!(
        (error, code),
        (BatchError::TooLarge { size, max: size - 1 }, ErrorCode::MessageTooLarge)
    );
    assert_eq!(refusal(&good, &rules(size, size - 1)).1, ErrorCode::RecordListTooLarge);
    let window =
        |timestamps_ms| ProduceRules { timestamps_ms: Some(timestamps_ms), ..rules(size, size) };
    let now = 1_700_000_000_000;
    assert!(validate_produced(&good, &window(now..=now)).is_ok());
    assert_eq!(refusal(&good, &window(now + 1..=now + 9)).1, ErrorCode::InvalidTimestamp);
    let keys = ProduceRules { keys_required: true, ..rules(size, size) };
    assert_eq!(refusal(&good, &keys), (BatchError::NoKey { index: 1 }, ErrorCode::InvalidRecord));
}

#[test]
fn zstd_needs_version_7_and_transactions_their_id() {
    let zstd = patched(&three(), ATTRIBUTES_AT, 4i16.to_be_bytes());
    let rules = ProduceRules { zstd_allowed: false, ..ProduceRules::default() };
    assert_eq!(refusal(&zstd, &rules).1, ErrorCode::UnsupportedCompressionType);
    assert!(validate_produced(&zstd, &ProduceRules::default()).is_ok());
    let producer = Producer {
        id: ProducerId::new(9),
        epoch: ProducerEpoch::new(0),
        base_sequence: i32::MAX,
        is_transactional: true,
    };
    let bytes = batch_of(&[record(None, "1"), record(None, "2")], Some(producer));
    let rules = ProduceRules { transactional_allowed: true, ..ProduceRules::default() };
    let header = validate_produced(&bytes, &rules).unwrap();
    assert_eq!(header.producer_id, Some(ProducerId::new(9)));
    assert_eq!(header.last_sequence(), 0, "sequences wrap to 0");
    assert_eq!(refusal(&bytes, &ProduceRules::default()).0, BatchError::Transactional);
}

#[test]
fn a_full_builder_refuses_and_keeps_what_it_has() {
    let one = record(None, "0123456789");
    let mut builder = BatchBuilder::new(BATCH_HEADER_BYTES);
    assert!(BatchBuilder::new(100).build(None).is_none());
    assert!(builder.push(&one), "an empty batch takes any record");
    let size = builder.size();
    assert!(!builder.push(&one));
    assert_eq!((builder.size(), builder.count()), (size, 1));
    assert!(validate_produced(&builder.build(None).unwrap(), &ProduceRules::default()).is_ok());
}

#[test]
fn any_byte_changed_under_the_checksum_is_noticed() {
    let good = three();
    for at in ATTRIBUTES_AT..good.len() {
        let mut bytes = good.to_vec();
        bytes[at] ^= 0x01;
        assert!(
            matches!(refusal(&bytes, &ProduceRules::default()).0, BatchError::Crc { .. }),
            "{at}"
        );
    }
}

#[test]
fn any_byte_changed_with_a_right_checksum_is_read_or_refused() {
    let good = three();
    for at in 0..good.len() {
        for value in 0..=255u8 {
            let bytes = patched(&good, at, [value]);
            if validate_produced(&bytes, &ProduceRules::default()).is_ok() {
                let batch = Batch::first(&bytes).unwrap();
                if batch.header.compression() == Some(Compression::None) {
                    assert!(batch.records().unwrap().all(|record| record.is_ok()), "{at} {value}");
                }
            }
            let _read_or_refused: Vec<_> = Batches::new(&bytes).collect();
        }
    }
}

#[test]
fn batches_end_before_one_that_was_cut_short() {
    let one = three();
    let two = [&one[..], &one[..]].concat();
    for end in 0..=two.len() {
        let mut batches = Batches::new(&two[..end]);
        let whole = batches.by_ref().map(|batch| batch.unwrap().bytes.len()).sum::<usize>();
        assert_eq!(whole, end / one.len() * one.len());
        assert_eq!(batches.remainder().len(), end - whole);
    }
    let mut nonsense = two.clone();
    nonsense[one.len() + 16] = 1;
    let results: Vec<_> = Batches::new(&nonsense).map(|batch| batch.map(|_| ())).collect();
    assert_eq!(results, [Ok(()), Err(BatchError::Magic(1))]);
}

#[test]
fn followers_take_rising_offsets_and_epochs_only() {
    let at = |offset: i64, epoch: i32| {
        let mut bytes = three().to_vec();
        assign_offsets(&mut bytes, Offset::new(offset), LeaderEpoch::new(epoch)).unwrap();
        bytes
    };
    let fetched = [at(10, 1), at(13, 2)].concat();
    let end = Offset::new(10);
    let whole = validate_fetched(&fetched, end, Some(LeaderEpoch::new(1)));
    assert_eq!(whole, Ok((fetched.len(), Offset::new(16))));
    let cut = validate_fetched(&fetched[..fetched.len() - 1], end, None);
    assert_eq!(cut, Ok((fetched.len() / 2, Offset::new(13))));
    assert_eq!(validate_fetched(&[], end, None), Ok((0, end)));
    // What compaction took away leaves gaps.
    let gap = validate_fetched(&at(50, 1), end, None);
    assert!(gap.is_ok_and(|(_, end)| end == Offset::new(53)));
    let overlap = validate_fetched(&at(9, 1), end, None);
    assert!(matches!(overlap, Err(BatchError::OffsetGap { .. })));
    let falls = validate_fetched(&[at(10, 2), at(13, 1)].concat(), end, None);
    assert!(matches!(falls, Err(BatchError::EpochFalls { .. })));
    let mut damaged = fetched.clone();
    damaged[ATTRIBUTES_AT + 40] ^= 1;
    assert!(matches!(validate_fetched(&damaged, end, None), Err(BatchError::Crc { .. })));
}

fn recorded(key: i64, side: &str) -> Vec<(i16, Vec<u8>)> {
    let lines = include_str!("../../tests/golden/kafka.jsonl").lines();
    let exchanges = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let frames = exchanges.filter(|exchange| exchange["api_key"] == key).map(|exchange| {
        let hex = exchange[side].as_str().unwrap().to_owned();
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let version = i16::try_from(exchange["api_version"].as_i64().unwrap()).unwrap();
        (version, (0..hex.len()).step_by(2).map(byte).collect())
    });
    frames.collect()
}

#[test]
fn batches_of_real_producers_are_valid() {
    let mut batches = 0;
    for (version, frame) in recorded(0, "request") {
        let mut reader = Reader::new(&frame);
        decode_request_header(&mut reader).unwrap();
        let request = messages::ProduceRequest::decode(&mut reader, version).unwrap();
        let rules = ProduceRules {
            transactional_allowed: request.transactional_id.is_some(),
            ..ProduceRules::default()
        };
        for partition in request.topics.iter().flat_map(|topic| &topic.partitions) {
            let range = partition.records.as_ref().unwrap().in_frame().unwrap();
            let mut records = range.of(&frame).unwrap().to_vec();
            validate_produced(&records, &rules).unwrap();
            assign_offsets(&mut records, Offset::new(5), LeaderEpoch::new(1)).unwrap();
            validate_fetched(&records, Offset::new(5), None).unwrap();
            batches += 1;
        }
    }
    assert!(batches >= 9, "{batches}");
}

#[test]
fn batches_of_a_real_broker_are_read() {
    let mut records = 0;
    for (version, frame) in recorded(1, "response") {
        let mut reader = Reader::new(&frame);
        decode_response_header(&mut reader, crate::ApiKey::Fetch, version).unwrap();
        let response = messages::FetchResponse::decode(&mut reader, version).unwrap();
        for partition in response.responses.iter().flat_map(|topic| &topic.partitions) {
            let Some(range) = partition.records.as_ref().and_then(crate::Records::in_frame) else {
                continue;
            };
            for batch in Batches::new(range.of(&frame).unwrap()) {
                let batch = batch.unwrap();
                batch.check_crc().unwrap();
                if let Ok(iter) = batch.records() {
                    records += iter.inspect(|record| assert!(record.is_ok())).count();
                }
            }
        }
    }
    assert!(records > 0);
}

/// Records whose header keys differ, because the other codec keeps only one of each.
fn any_record() -> impl Strategy<Value = Record> {
    let bytes =
        || prop::option::of(prop::collection::vec(any::<u8>(), 0..100).prop_map(Bytes::from));
    let headers = prop::collection::btree_map(".{0,5}", bytes(), 0..4);
    (0..1i64 << 50, bytes(), bytes(), headers).prop_map(|(timestamp_ms, key, value, headers)| {
        Record {
            timestamp_ms,
            key,
            value,
            headers: headers.into_iter().map(|(key, value)| RecordHeader { key, value }).collect(),
        }
    })
}

proptest! {
    #[test]
    fn another_codec_reads_the_same_records(records in prop::collection::vec(any_record(), 1..20)) {
        let mut bytes = batch_of(&records, None);
        let batch = Batch::first(&bytes).unwrap();
        let read: Vec<_> = batch.records().unwrap().map(|r| r.unwrap().to_record()).collect();
        prop_assert_eq!(&read, &records);

        let theirs = kafka_protocol::records::RecordBatchDecoder::decode(&mut bytes).unwrap().records;
        prop_assert_eq!(theirs.len(), records.len());
        for (theirs, ours) in theirs.iter().zip(&records) {
            prop_assert_eq!((theirs.timestamp, &theirs.key, &theirs.value), (ours.timestamp_ms, &ours.key, &ours.value));
            let headers = theirs.headers.iter().map(|(key, value)| (key.as_str(), value));
            let expected = ours.headers.iter().map(|header| (header.key.as_str(), &header.value));
            prop_assert!(headers.eq(expected));
        }
        let mut written = BytesMut::new();
        let options = kafka_protocol::records::RecordEncodeOptions {
            version: 2,
            compression: kafka_protocol::records::Compression::None,
        };
        kafka_protocol::records::RecordBatchEncoder::encode(&mut written, &theirs, &options).unwrap();
        let again = Batch::first(&written).unwrap();
        again.check_crc().unwrap();
        let again: Vec<_> = again.records().unwrap().map(|r| r.unwrap().to_record()).collect();
        prop_assert_eq!(&again, &records);
    }

    #[test]
    fn arbitrary_bytes_are_read_as_batches_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _read_or_refused: Vec<_> = Batches::new(&bytes).collect();
        prop_assert!(validate_produced(&bytes, &ProduceRules::default()).is_err());
    }

    #[test]
    fn arbitrary_records_are_read_or_refused(payload in prop::collection::vec(any::<u8>(), 0..200), count in 0i32..300) {
        let mut bytes = three().to_vec();
        bytes.truncate(BATCH_HEADER_BYTES);
        bytes.extend_from_slice(&payload);
        let length = i32::try_from(bytes.len() - 12).unwrap();
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let bytes = patched(&bytes, 57, count.to_be_bytes());
        let bytes = patched(&bytes, 23, (count - 1).to_be_bytes());
        let batch = Batch::first(&bytes).unwrap();
        prop_assert!(batch.records().unwrap().count() <= payload.len() + 1);
        let _valid_or_refused = validate_produced(&bytes, &ProduceRules::default());
    }
}
