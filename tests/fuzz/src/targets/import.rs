//! ZooKeeper's own files, as they are imported.

use std::path::{Path, PathBuf};

use coordinator::import::{self, Request};
use coordinator_protocol::{Acl, Record, Writer};

use crate::budget::{Budget, within};
use crate::memory_disk::MemoryDisk;
use crate::parts::{joined, split};
use crate::target::Target;

/// Buffers of a file that is read in large pieces, for each of the files; nodes of some 60 bytes take some hundred.
const BUDGET: Budget = Budget { fixed: 8 << 20, per_byte: 1 << 10 };
const SESSION: i64 = 0x1000_0000_0001;

pub const TARGETS: [Target; 3] = [
    Target {
        name: "import-snapshot",
        what: "a snapshot of ZooKeeper's, without the checksum at its end",
        run: snapshot,
        seeds: || vec![snapshot_bytes()],
    },
    Target {
        name: "import-log",
        what: "transactions of a log of ZooKeeper's",
        run: log,
        seeds: || vec![joined(transactions().iter().map(Vec::as_slice))],
    },
    Target {
        name: "import-files",
        what: "the bytes of a snapshot, of a packed one and of a log",
        run: files,
        seeds: || {
            let parts =
                [with_checksum(&snapshot_bytes()), SNAPPY.to_vec(), log_bytes(&transactions())];
            vec![joined(parts.iter().map(Vec::as_slice))]
        },
    },
];

/// The head of a packed snapshot.
const SNAPPY: &[u8] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\0\0\0\x06\x04\x0cZKSN";

fn bytes(parts: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    parts(&mut writer);
    writer.finish().to_vec()
}

fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    (b << 16) | a
}

fn data(text: &str) -> Option<bytes::Bytes> {
    Some(bytes::Bytes::copy_from_slice(text.as_bytes()))
}

fn snapshot_bytes() -> Vec<u8> {
    let mut all = b"ZKSN".to_vec();
    all.extend(bytes(|w| {
        2_i32.encode(w);
        (-1_i64).encode(w);
        1_i32.encode(w);
        SESSION.encode(w);
        30_000_i32.encode(w);
        1_i32.encode(w);
        7_i64.encode(w);
        vec![Acl { permissions: 1, scheme: "world".to_owned(), id: "anyone".to_owned() }].encode(w);
        for (path, text, acl, (zxid, children, owner)) in [
            ("", "", -1_i64, (0_i64, 2_i32, 0_i64)),
            ("/zookeeper", "", -1, (0, 0, 0)),
            ("/a", "first", 7, (3, 1, 0)),
            ("/a/e", "mine", -1, (4, 0, SESSION)),
        ] {
            path.to_owned().encode(w);
            data(text).encode(w);
            acl.encode(w);
            for number in [zxid, zxid, 1_000, 2_000] {
                number.encode(w);
            }
            for number in [0, children, 0] {
                number.encode(w);
            }
            owner.encode(w);
            zxid.encode(w);
        }
        "/".to_owned().encode(w);
    }));
    all
}

fn with_checksum(body: &[u8]) -> Vec<u8> {
    let end = bytes(|w| {
        i64::from(adler32(body)).encode(w);
        "/".to_owned().encode(w);
    });
    [body, &end].concat()
}

/// A create, a write, an access list, a multi of two, a delete, the end of a session.
fn transactions() -> Vec<Vec<u8>> {
    let transaction = |zxid: i64, kind: i32, record: &dyn Fn(&mut Writer)| {
        bytes(|w| {
            SESSION.encode(w);
            1_i32.encode(w);
            zxid.encode(w);
            9_000_i64.encode(w);
            kind.encode(w);
            record(w);
        })
    };
    let create = |w: &mut Writer| {
        "/b".to_owned().encode(w);
        data("new").encode(w);
        Acl::open().encode(w);
        false.encode(w);
        1_i32.encode(w);
    };
    let set = |w: &mut Writer| {
        "/b".to_owned().encode(w);
        data("newer").encode(w);
        1_i32.encode(w);
    };
    vec![
        transaction(1, -10, &|w| 30_000_i32.encode(w)),
        transaction(2, 1, &create),
        transaction(3, 5, &set),
        transaction(4, 7, &|w| {
            "/b".to_owned().encode(w);
            Acl::open().encode(w);
            1_i32.encode(w);
        }),
        transaction(5, 14, &|w| {
            1_i32.encode(w);
            5_i32.encode(w);
            Some(bytes::Bytes::from(bytes(set))).encode(w);
        }),
        transaction(6, 2, &|w| "/b".to_owned().encode(w)),
        transaction(7, -11, &|_| {}),
    ]
}

fn log_bytes<T: AsRef<[u8]>>(records: &[T]) -> Vec<u8> {
    let mut all = b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0".to_vec();
    for record in records {
        let record = record.as_ref();
        all.extend(bytes(|w| {
            i64::from(adler32(record)).encode(w);
            Some(bytes::Bytes::copy_from_slice(record)).encode(w);
        }));
        all.push(b'B');
    }
    all
}

/// Whatever is read is read so again.
fn read(files: &[(&str, &[u8])]) -> bool {
    let disk = MemoryDisk::default();
    for (name, content) in files {
        disk.put(&Path::new("/zookeeper/version-2").join(name), content);
    }
    let length = files.iter().map(|(_, content)| content.len()).sum();
    let data_dir = PathBuf::from("/zookeeper");
    let request = Request { data_dir, log_dir: None, allow_gaps: true, without_log: true };
    let import =
        || import::read(&disk, &request, &mut |_, _, _| {}).map(|imported| imported.report);
    let once = within(length, BUDGET, import);
    let Ok(once) = once else { return false };
    assert_eq!(import().expect("as before"), once);
    true
}

fn snapshot(input: &[u8]) -> bool {
    read(&[("snapshot.4", &with_checksum(input))])
}

fn log(input: &[u8]) -> bool {
    read(&[("snapshot.0", &with_checksum(&snapshot_bytes())), ("log.1", &log_bytes(&split(input)))])
}

fn files(input: &[u8]) -> bool {
    let parts = split(input);
    let part = |number: usize| parts.get(number).copied().unwrap_or_default();
    read(&[("snapshot.4", part(0)), ("snapshot.5.snappy", part(1)), ("log.1", part(2))]);
    read(&[("snapshot.4", part(0)), ("log.1", part(2))])
}
