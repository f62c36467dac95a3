//! What brokers have in files and in the coordinator's nodes.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_core::group::{GroupRecord, GroupValue, MemberValue, OffsetValue};
use broker_core::ids::{BrokerId, ControllerEpoch, LeaderEpoch, PartitionId, TopicId};
use broker_core::image::json::{
    decode_cluster_id, decode_config, decode_controller, decode_controller_epoch,
    encode_cluster_id, encode_config, encode_controller, encode_controller_epoch,
};
use broker_core::image::{BrokerRegistration, Identity, PartitionState, TopicNode};
use broker_log::{
    Admission, BatchMeta, Log, LogConfig, LogContext, Lookup, Marks, OpenOptions, ReadRequest,
};
use bytes::Bytes;
use client_protocol::records::assign_offsets;

use super::kafka::{batch_seeds, mended};
use crate::budget::{Budget, within};
use crate::memory_disk::MemoryDisk;
use crate::parts::{joined, split};
use crate::target::Target;

/// A member of a group is some 30 bytes in the log and 200 in memory.
const RECORD: Budget = Budget { fixed: 8 << 10, per_byte: 64 };
/// A broker's id in a list is two letters.
const NODE: Budget = Budget { fixed: 8 << 10, per_byte: 64 };
const FOLDER: &str = "/data";
const LOG: &str = "/data/orders-0";
/// What stands in a log's folder, in the order of an input's parts.
const FILES: [&str; 6] = [
    "00000000000000000000.log",
    "00000000000000000000.index",
    "00000000000000000000.timeindex",
    "00000000000000000000.snapshot",
    "00000000000000000000.sum",
    "leader-epochs",
];

pub const TARGETS: [Target; 3] = [
    Target {
        name: "broker-log",
        what: "a partition's folder: batches with sound checksums, indexes, producers, sums, epochs",
        run: log,
        seeds: logs,
    },
    Target {
        name: "broker-group-record",
        what: "a record of the consumers' offsets: its key and its value",
        run: group_record,
        seeds: group_records,
    },
    Target {
        name: "broker-node",
        what: "what a node of a broker's, a topic's or a partition's says",
        run: node,
        seeds: nodes,
    },
];

fn open(disk: &Arc<MemoryDisk>, clean: bool) -> Option<Log> {
    let marks = Marks::open(disk.clone(), Path::new(FOLDER), b"fuzz").expect("marks");
    let directory = PathBuf::from(LOG);
    let context = LogContext { disk: disk.clone(), marks: Arc::new(marks), directory };
    let config =
        LogConfig { segment_bytes: 1 << 20, index_interval_bytes: 64, ..LogConfig::default() };
    Log::open(context, &OpenOptions { config, clean, log_start: None }).ok().map(|(log, _)| log)
}

/// The files of a log that was closed, and of one that was not.
fn logs() -> Vec<Vec<u8>> {
    let disk = Arc::new(MemoryDisk::default());
    let mut log = open(&disk, false).expect("a new log");
    for mut bytes in batch_seeds().into_iter().take(5) {
        let mut meta = BatchMeta::parse(&bytes).expect("a batch");
        let Ok(Admission::Assigned { base_offset }) = log.admit_client(&mut meta, 0, 1_000) else {
            panic!("a batch is refused")
        };
        let base = client_protocol::Offset::new(base_offset);
        assign_offsets(&mut bytes, base, client_protocol::LeaderEpoch::new(0)).expect("a batch");
        log.write(&[IoSlice::new(&bytes)]).expect("written");
    }
    log.close().expect("closed");
    let files: Vec<Vec<u8>> =
        FILES.iter().map(|name| disk.find(&Path::new(LOG).join(name))).collect();
    assert!(!files[0].is_empty(), "no segment");
    vec![joined(files.iter().map(Vec::as_slice)), joined([&files[0][..]])]
}

/// Every batch of it, as fetches of few bytes give them; where reading comes to an end.
fn read_through(log: &Log) -> i64 {
    let view = log.view();
    let ends = view.ends();
    let mut offset = ends.log_start;
    while offset < ends.end {
        let request = ReadRequest { offset, limit: ends.end, bytes_max: 100, at_least_one: true };
        let Ok(Lookup::Slice(slice)) = view.lookup(&request) else { break };
        let mut bytes = vec![0; usize::try_from(slice.length).expect("a batch")];
        slice.file.read_exact_at(slice.position, &mut bytes).expect("within the file");
        let meta = BatchMeta::parse(&bytes).expect("a whole batch");
        assert!(meta.next_offset() > offset, "{} does not follow {offset}", meta.next_offset());
        offset = meta.next_offset();
    }
    offset
}

fn log(input: &[u8]) -> bool {
    let disk = Arc::new(MemoryDisk::default());
    for (name, part) in FILES.iter().zip(split(input)) {
        let content = if name.ends_with(".log") { mended(part) } else { part.to_vec() };
        disk.put(&Path::new(LOG).join(name), &content);
    }
    let Some(mut log) = open(&disk, false) else { return false };
    log.check();
    let read = read_through(&log);
    let (end, damage) = (log.end_offset(), log.damage());
    assert!(damage.is_some() || read == end, "read to {read} of {end}");
    let _ = log.view().find_by_timestamp(1_003);
    let _ = log.view().epochs();
    if log.sync().is_err() || damage.is_some() || log.close().is_err() {
        return false;
    }
    for clean in [true, false] {
        let again = open(&disk, clean).expect("a log that was closed");
        again.check();
        assert_eq!((again.end_offset(), again.damage().is_some()), (end, false), "clean: {clean}");
        assert_eq!(read_through(&again), end);
    }
    true
}

fn group_records() -> Vec<Vec<u8>> {
    let member = MemberValue {
        member_id: "m-1".to_owned(),
        instance_id: Some("i".to_owned()),
        subscription: Bytes::from_static(b"s"),
        assignment: Bytes::from_static(b"a"),
        ..MemberValue::default()
    };
    let value = GroupValue {
        protocol_type: "consumer".to_owned(),
        generation: 3,
        protocol: Some("range".to_owned()),
        leader: Some("m-1".to_owned()),
        state_timestamp_ms: 5,
        members: vec![member],
    };
    let offset = OffsetValue {
        offset: 9,
        leader_epoch: 1,
        metadata: "note".to_owned(),
        commit_timestamp_ms: 7,
        expire_timestamp_ms: Some(8),
    };
    let (group, topic) = ("g".to_owned(), "t".to_owned());
    [
        GroupRecord::Group { group: group.clone(), value: Some(value) },
        GroupRecord::Offset { group, topic, partition: 3, value: Some(offset) },
    ]
    .iter()
    .map(|record| {
        let record = record.encode().expect("short texts");
        joined([&record.key[..], record.value.as_deref().unwrap_or_default()])
    })
    .collect()
}

fn group_record(input: &[u8]) -> bool {
    let parts = split(input);
    let key = parts.first().copied().unwrap_or_default();
    let decode = || GroupRecord::decode(key, parts.get(1).copied());
    let Ok(record) = within(input.len(), RECORD, decode) else { return false };
    // Texts of newer versions may be longer than the older form has room for.
    let Some(again) = record.encode() else { return false };
    assert_eq!(GroupRecord::decode(&again.key, again.value.as_deref()), Ok(record));
    true
}

fn nodes() -> Vec<Vec<u8>> {
    let state = PartitionState {
        leader: Some(BrokerId::new(1)),
        leader_epoch: LeaderEpoch::new(2),
        controller_epoch: ControllerEpoch::new(3),
        isr: vec![BrokerId::new(1), BrokerId::new(2)],
        recovering: true,
    };
    let partitions = [(PartitionId::new(0), vec![BrokerId::new(1)])].into();
    let id = TopicId::from_bytes([7; 16]);
    vec![
        state.encode(),
        TopicNode { id, partitions }.encode(),
        encode_controller(BrokerId::new(1), 5),
        encode_controller_epoch(ControllerEpoch::new(4)),
        encode_cluster_id("abc"),
        encode_config(&[("retention.ms".to_owned(), "5".to_owned())].into()),
        br#"{"listener_security_protocol_map":{"PLAINTEXT":"PLAINTEXT"},"endpoints":["PLAINTEXT://127.0.0.1:9092"],"jmx_port":-1,"features":{},"host":"127.0.0.1","timestamp":"5","port":9092,"version":5}"#.to_vec(),
    ]
}

/// What is read and written again is the same once more.
fn node(input: &[u8]) -> bool {
    fn again<T, E>(
        input: &[u8],
        decode: impl Fn(&[u8]) -> Result<T, E>,
        encode: impl Fn(&T) -> Vec<u8>,
    ) -> bool {
        let Ok(node) = within(input.len(), NODE, || decode(input)) else { return false };
        let once = encode(&node);
        let Ok(read) = decode(&once) else { panic!("its own writing is not read") };
        assert_eq!(encode(&read), once);
        true
    }
    let taken = [
        again(input, PartitionState::decode, PartitionState::encode),
        again(input, TopicNode::decode, TopicNode::encode),
        again(input, BrokerRegistration::decode, BrokerRegistration::encode),
        again(input, Identity::decode, Identity::encode),
        again(input, decode_controller, |broker| encode_controller(*broker, 5)),
        again(input, decode_controller_epoch, |epoch| encode_controller_epoch(*epoch)),
        again(input, decode_cluster_id, |id| encode_cluster_id(id)),
        again(input, decode_config, encode_config),
    ];
    taken.contains(&true)
}
