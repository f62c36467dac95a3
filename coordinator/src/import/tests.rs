//! Files as ZooKeeper writes them, made here byte by byte; the end-to-end tests import those of a real one.

use std::fs;
use std::path::{Path, PathBuf};

use coordinator_core::state::State;
use coordinator_disk::RealDisk;
use coordinator_protocol::{Acl, Record, SessionId, Writer, Zxid};

use super::*;

const SESSION: i64 = 0x1000_0000_0001;

fn bytes(parts: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    parts(&mut writer);
    writer.finish().to_vec()
}

fn data(text: &str) -> Option<bytes::Bytes> {
    Some(bytes::Bytes::copy_from_slice(text.as_bytes()))
}

/// The stored numbers of a node that was created by `zxid` and has had `children`.
fn stat(writer: &mut Writer, zxid: i64, children: i32, owner: i64) {
    for number in [zxid, zxid, 1_000, 2_000] {
        number.encode(writer);
    }
    for number in [0, children, 0] {
        number.encode(writer);
    }
    owner.encode(writer);
    zxid.encode(writer);
}

/// `/`, `/zookeeper`, `/a` with a list of its own, `/a/e` of a session.
fn snapshot() -> Vec<u8> {
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
        for (path, text, acl, numbers) in [
            ("", "", -1_i64, (0, 2, 0)),
            ("/zookeeper", "", -1, (0, 0, 0)),
            ("/a", "first", 7, (3, 1, 0)),
            ("/a/e", "mine", -1, (4, 0, SESSION)),
        ] {
            path.to_owned().encode(w);
            data(text).encode(w);
            acl.encode(w);
            let (zxid, children, owner) = numbers;
            stat(w, zxid, children, owner);
        }
        "/".to_owned().encode(w);
    }));
    let checksum = i64::from(adler2::adler32_slice(&all));
    all.extend(bytes(|w| {
        checksum.encode(w);
        "/".to_owned().encode(w);
    }));
    all
}

fn transaction(zxid: i64, kind: i32, record: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let body = bytes(|w| {
        SESSION.encode(w);
        1_i32.encode(w);
        zxid.encode(w);
        9_000_i64.encode(w);
        kind.encode(w);
        record(w);
    });
    let mut all = bytes(|w| {
        i64::from(adler2::adler32_slice(&body)).encode(w);
        Some(bytes::Bytes::from(body)).encode(w);
    });
    all.push(b'B');
    all
}

fn create(zxid: i64, path: &str, children: i32) -> Vec<u8> {
    transaction(zxid, 1, |w| {
        path.to_owned().encode(w);
        data("new").encode(w);
        Acl::open().encode(w);
        false.encode(w);
        children.encode(w);
    })
}

fn log(transactions: &[Vec<u8>]) -> Vec<u8> {
    let mut all = b"ZKLG".to_vec();
    all.extend(bytes(|w| {
        2_i32.encode(w);
        0_i64.encode(w);
    }));
    all.extend(transactions.concat());
    all.extend([0; 100]);
    all
}

/// A folder with these files in `version-2`.
fn folder(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Request) {
    let folder = tempfile::tempdir().expect("a folder");
    let below = folder.path().join("version-2");
    fs::create_dir(&below).expect("created");
    for (name, content) in files {
        fs::write(below.join(name), content).expect("written");
    }
    let data_dir = folder.path().to_owned();
    (folder, Request { data_dir, log_dir: None, allow_gaps: false, without_log: true })
}

fn import(files: &[(&str, &[u8])]) -> Result<Imported, ImportError> {
    let (_folder, request) = folder(files);
    read(&RealDisk, &request, &mut |_, _, _| {})
}

fn state(imported: &Imported) -> State {
    State::decode_snapshot(&imported.image.data).expect("verified")
}

#[test]
fn znodes_keep_their_numbers_and_sessions_are_ended() {
    let imported = import(&[("snapshot.4", &snapshot())]).expect("imports");
    let state = state(&imported);
    let node = state.tree().get("/a").expect("there");
    assert_eq!(node.data().as_deref(), Some(&b"first"[..]));
    assert_eq!(node.acl()[0].permissions, 1);
    let stat = node.stat();
    assert_eq!((stat.czxid, stat.mzxid), (Zxid::new(3), Zxid::new(3)));
    assert_eq!((stat.ctime_ms, stat.mtime_ms, stat.num_children), (1_000, 2_000, 0));
    assert_eq!(stat.pzxid, Zxid::new(5), "the ephemeral went with its session");
    assert_eq!(stat.cversion, 2, "one child came and went");
    assert!(state.tree().get("/a/e").is_none());
    assert_eq!(state.tree().ephemerals_of(SessionId::new(SESSION)).count(), 0);
    let Report { znodes, sessions, ephemerals, zxid, .. } = imported.report;
    assert_eq!((znodes, sessions, ephemerals, zxid), (5, 1, 1, 4));
}

#[test]
fn log_is_applied_as_zookeeper_applies_it() {
    let log = log(&[
        create(4, "/is in the snapshot", 9),
        // What the snapshot holds in part already: no error, and the count is made good.
        create(5, "/a", 3),
        create(6, "/b", 4),
        transaction(7, 5, |w| {
            "/b".to_owned().encode(w);
            data("changed").encode(w);
            1_i32.encode(w);
        }),
        transaction(8, 14, |w| {
            2_i32.encode(w);
            2_i32.encode(w);
            data("\0\0\0\x02/a").encode(w);
            (-1_i32).encode(w);
            data("\0\0\0\x01").encode(w);
        }),
        transaction(9, 7, |w| {
            "/b".to_owned().encode(w);
            Vec::<Acl>::new().encode(w);
            1_i32.encode(w);
        }),
        transaction(10, -11, |w| vec!["/a/e".to_owned()].encode(w)),
        transaction(11, 2, |w| "/is gone already".to_owned().encode(w)),
    ]);
    let imported = import(&[("snapshot.4", &snapshot()), ("log.1", &log)]).expect("imports");
    assert_eq!(imported.report.transactions, 7);
    assert_eq!((imported.report.sessions, imported.report.ephemerals), (0, 0));
    let state = state(&imported);
    assert!(state.tree().get("/a").is_some(), "the multi failed");
    let node = state.tree().get("/b").expect("created");
    assert_eq!(node.data().as_deref(), Some(&b"changed"[..]));
    let stat = node.stat();
    assert_eq!((stat.czxid, stat.mzxid), (Zxid::new(6), Zxid::new(7)));
    assert_eq!((stat.version, stat.aversion, stat.mtime_ms), (1, 1, 9_000));
    let root = state.tree().get("/").expect("there").stat();
    assert_eq!(root.cversion, 2 * 4 - 3, "four creates, three children");
}

#[test]
fn a_torn_end_is_cut_in_any_log_and_damage_before_it_is_told() {
    let (first, second) = (create(5, "/b", 3), create(6, "/c", 4));
    let whole = log(&[first.clone(), second.clone()]);
    let snapshot = snapshot();
    let later = log(&[create(6, "/c", 4)]);
    for at in 16 + first.len()..16 + first.len() + second.len() {
        let mut torn = whole.clone();
        torn[at] ^= 0x40;
        let files = [("snapshot.4", &snapshot[..]), ("log.5", &torn[..])];
        let imported = import(&files).expect("the end may be torn");
        assert_eq!(imported.report.transactions, 1, "byte {at}");
        assert!(imported.report.torn_bytes <= second.len() as u64, "reserved zeros do not count");
        // When it came back, ZooKeeper gave that zxid again, in a new log.
        let files = [files[0], files[1], ("log.6", &later[..])];
        let imported = import(&files).expect("the next log goes on");
        assert_eq!(imported.report.transactions, 2, "byte {at}");
    }
    for at in 16..16 + first.len() {
        let mut rotten = whole.clone();
        rotten[at] ^= 0x40;
        match import(&[("snapshot.4", &snapshot), ("log.5", &rotten)]) {
            Err(ImportError::Damaged { path, .. }) => assert!(path.ends_with("log.5"), "{at}"),
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

#[test]
fn an_older_snapshot_stands_in_for_a_damaged_one() {
    let mut broken = snapshot();
    broken[60] ^= 1;
    let log = log(&[create(5, "/b", 3)]);
    let files = [("snapshot.4", &snapshot()[..]), ("snapshot.5", &broken), ("log.5", &log)];
    let imported = import(&files).expect("imports");
    assert!(imported.report.snapshot.is_some_and(|path| path.ends_with("snapshot.4")));
    assert_eq!(imported.report.skipped.len(), 1);
    assert!(matches!(import(&[("snapshot.5", &broken)]), Err(ImportError::NoSnapshot(_))));
    // By its name it knew of more than what is left.
    let files = [("snapshot.4", &snapshot()[..]), ("snapshot.9", &broken), ("log.5", &log)];
    assert!(matches!(import(&files), Err(ImportError::Gap(5, 10))));
}

#[test]
fn a_log_that_gives_nothing_tells_of_what_is_missing_before_it() {
    let empty = log(&[]);
    let files = [("snapshot.4", &snapshot()[..]), ("log.9", &empty[..])];
    assert!(matches!(import(&files), Err(ImportError::Gap(4, 9))));
    let files = [("snapshot.4", &snapshot()[..]), ("log.5", &empty[..])];
    assert_eq!(import(&files).expect("nothing is missing").report.transactions, 0);
}

#[test]
fn a_snapshot_without_any_log_is_taken_only_on_purpose() {
    let (folder, mut request) = folder(&[("snapshot.4", &snapshot())]);
    assert!(read(&RealDisk, &request, &mut |_, _, _| {}).is_ok());
    request.without_log = false;
    let refused = read(&RealDisk, &request, &mut |_, _, _| {}).expect_err("the log is missing");
    let said = refused.to_string();
    assert!(said.contains("--log-dir") && said.contains("--without-log"), "{said}");
    assert!(said.contains("snapshot.4") && said.contains("fuzzy"), "{said}");
    // One that ended before the snapshot was begun is a log.
    let logs = folder.path().join("version-2/log.1");
    fs::write(logs, log(&[create(4, "/in the snapshot", 1)])).expect("written");
    assert!(read(&RealDisk, &request, &mut |_, _, _| {}).is_ok());
}

#[test]
fn a_missing_log_is_told_unless_it_was_allowed() {
    let log = log(&[create(9, "/b", 3)]);
    let files = [("snapshot.4", &snapshot()[..]), ("log.9", &log[..])];
    assert!(matches!(import(&files), Err(ImportError::Gap(4, 9))));
    let (_folder, mut request) = folder(&files);
    request.allow_gaps = true;
    let imported = read(&RealDisk, &request, &mut |_, _, _| {}).expect("allowed");
    assert_eq!(imported.report.gaps, [(4, 9)]);
}

#[test]
fn a_new_leaders_first_transaction_follows_any_other() {
    assert!(follows(4, 5) && follows(4, 1 << 32) && follows(4, (1 << 32) + 1));
    assert!(!follows(4, 6) && !follows(4, (1 << 32) + 2) && !follows((1 << 32) + 4, 5));
}

#[test]
fn truncated_snapshots_and_logs_are_errors_and_never_panics() {
    let whole = snapshot();
    // Behind the checksum stands only the mark of the end.
    for end in 0..whole.len() - 5 {
        let outcome = import(&[("snapshot.4", &whole[..end])]);
        assert!(matches!(outcome, Err(ImportError::NoSnapshot(_))), "{end}");
    }
    let whole = log(&[create(1, "/b", 1)]);
    for end in 0..whole.len() {
        let imported = import(&[("log.1", &whole[..end])]).expect("a log may end anywhere");
        assert!(imported.report.transactions <= 1);
    }
}

#[test]
fn packed_snapshots_are_read() {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&snapshot()).expect("packs");
    let gzip = gzip.finish().expect("packs");
    let imported = import(&[("snapshot.4.gz", &gzip)]).expect("imports");
    let plain = import(&[("snapshot.4", &snapshot())]).expect("imports");
    assert_eq!(imported.image, plain.image, "the same files give the same state");
    let cut = &gzip[..gzip.len() / 2];
    assert!(matches!(import(&[("snapshot.4.gz", cut)]), Err(ImportError::NoSnapshot(_))));
}

#[test]
fn a_folder_in_use_is_not_touched() {
    let imported = import(&[("snapshot.4", &snapshot())]).expect("imports");
    let folder = tempfile::tempdir().expect("a folder");
    let owner = || Owner { cluster_id: "c".to_owned(), server_id: 1 };
    let may = || imported.check_target(Arc::new(RealDisk), folder.path(), owner());
    may().expect("empty");
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0, "nothing is written");
    imported.write(Arc::new(RealDisk), folder.path(), owner()).expect("empty");
    let said = may().expect_err("in use").to_string();
    assert_eq!(said.matches("in use already").count(), 1, "{said}");
    let again = imported.write(Arc::new(RealDisk), folder.path(), owner());
    assert!(matches!(again, Err(ImportError::Storage(StorageError::NotEmpty { .. }))));
    let (_, restored) =
        storage::open(Arc::new(RealDisk), folder.path(), owner()).expect("a member's folder");
    assert_eq!(restored.snapshot, Some(imported.image));
    assert_eq!((restored.hard_state.term, restored.hard_state.commit), (1, 1));
}

#[test]
fn an_import_that_was_killed_can_be_done_again() {
    use coordinator_core::consensus::{HardState, PersistWrite};
    let imported = import(&[("snapshot.4", &snapshot())]).expect("imports");
    let owner = || Owner { cluster_id: "c".to_owned(), server_id: 1 };
    for has_snapshot in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut opened, _) =
            storage::open(Arc::new(RealDisk), folder.path(), owner()).expect("empty");
        let hard_state = HardState { term: 1, vote: 0, commit: 1 };
        let promised =
            PersistWrite { hard_state: Some(hard_state), sync: true, ..PersistWrite::default() };
        if has_snapshot {
            // As far as the snapshot's rename, which is durable before the log says anything.
            opened.save(&imported.image).expect("saved");
        } else {
            opened.write(vec![promised]).expect("written");
        }
        drop(opened);
        if !has_snapshot {
            let (_, half) =
                storage::open(Arc::new(RealDisk), folder.path(), owner()).expect("readable");
            let id = coordinator_core::ServerId::new(1).expect("an id");
            let config = coordinator_core::server::Config::new(id, vec![id]);
            assert!(
                coordinator_core::server::Server::new(config, half).is_err(),
                "it is not whole"
            );
        }
        let may = imported.check_target(Arc::new(RealDisk), folder.path(), owner());
        may.expect("it may go on");
        imported.write(Arc::new(RealDisk), folder.path(), owner()).expect("goes on");
        let (_, restored) =
            storage::open(Arc::new(RealDisk), folder.path(), owner()).expect("a member's folder");
        assert_eq!(restored.snapshot.as_ref(), Some(&imported.image));
        assert_eq!(restored.hard_state, hard_state);
    }
}

#[test]
fn nothing_to_import_says_where_it_looked() {
    let (_folder, request) = folder(&[("acceptedEpoch", b"1")]);
    let outcome = read(&RealDisk, &request, &mut |_, _, _| {});
    assert!(matches!(outcome, Err(ImportError::Nothing { path }) if path == request.data_dir));
    let missing = Request { data_dir: PathBuf::from("/no/such folder"), ..request };
    let outcome = read(&RealDisk, &missing, &mut |_, _, _| {});
    assert!(
        matches!(outcome, Err(ImportError::Io { path, .. }) if path == Path::new("/no/such folder"))
    );
}

#[test]
fn a_later_epoch_follows_only_where_the_log_before_it_is_there() {
    let epoch = |number: i64| number << 32;
    let (snapshot, later) = (snapshot(), log(&[create(epoch(5) + 1, "/b", 3)]));
    let (next, own) = (log(&[create(epoch(1) + 1, "/b", 3)]), log(&[]));
    let files = [("snapshot.4", &snapshot[..]), ("log.500000001", &later[..])];
    assert!(matches!(import(&files), Err(ImportError::Gap(4, 0x5_0000_0001))));
    let files = [("snapshot.4", &snapshot[..]), ("log.5", &own[..]), ("log.500000001", &later[..])];
    assert_eq!(import(&files).expect("it is there").report.transactions, 1);
    let files = [("snapshot.4", &snapshot[..]), ("log.100000001", &next[..])];
    assert_eq!(import(&files).expect("the very next epoch").report.transactions, 1);
}

#[test]
fn zxids_that_nothing_can_follow_are_refused() {
    let mut all = snapshot();
    // The root's mzxid.
    let at = 16 + 4 + 12 + 4 + 8 + 4 + 4 + 9 + 10 + 4 + 4 + 8;
    all[at + 8..at + 16].copy_from_slice(&i64::MAX.to_be_bytes());
    let end = all.len() - 13;
    let sum = i64::from(adler2::adler32_slice(&all[..end]));
    all[end..end + 8].copy_from_slice(&sum.to_be_bytes());
    let outcome = import(&[("snapshot.4", &all)]);
    assert!(matches!(outcome, Err(ImportError::Contradiction(_))), "{outcome:?}");
}

#[test]
fn tree_may_be_as_deep_as_paths_may_and_a_deeper_one_is_named() {
    let path = |depth: usize| "/d".repeat(depth);
    let chain = |depth: usize| {
        let nodes = (1..=depth).map(|at| create(i64::try_from(at).unwrap() + 4, &path(at), 1));
        import(&[("snapshot.4", &snapshot()), ("log.5", &log(&nodes.collect::<Vec<_>>()))])
    };
    let deepest = chain(PATH_COMPONENTS_MAX).expect("as deep as may be");
    assert!(state(&deepest).tree().get(&path(PATH_COMPONENTS_MAX)).is_some());
    let refused = chain(PATH_COMPONENTS_MAX + 1).expect_err("deeper").to_string();
    assert!(refused.starts_with(&format!("{}... is deeper than 256", path(100))), "{refused}");
}

/// What a byte becomes.
const VALUES: [u8; 2] = [0x7f, 0xff];

#[test]
fn changed_bytes_under_a_sound_checksum_are_refused_or_give_a_sound_state() {
    let (sound, logged) = (snapshot(), log(&[create(5, "/b", 3)]));
    let end = sound.len() - 13;
    let (mut taken, mut refused) = (0, 0);
    let mut judge = |files: &[(&str, &[u8])]| match import(files) {
        Ok(imported) => {
            state(&imported).check();
            taken += 1;
        }
        Err(_) => refused += 1,
    };
    for (at, value) in (4..end).flat_map(|at| VALUES.map(|value| (at, value))) {
        let mut all = sound.clone();
        all[at] = value;
        let sum = i64::from(adler2::adler32_slice(&all[..end]));
        all[end..end + 8].copy_from_slice(&sum.to_be_bytes());
        judge(&[("snapshot.4", &all)]);
    }
    // Behind the file's header: the checksum, the length, and what they are of.
    let body = 16 + 8 + 4;
    let end = logged.len() - 100 - 1;
    for (at, value) in (body..end).flat_map(|at| VALUES.map(|value| (at, value))) {
        let mut all = logged.clone();
        all[at] = value;
        let sum = i64::from(adler2::adler32_slice(&all[body..end]));
        all[16..24].copy_from_slice(&sum.to_be_bytes());
        judge(&[("snapshot.4", &sound), ("log.5", &all)]);
    }
    assert!(taken > 200 && refused > 200, "{taken} were taken, {refused} refused");
}
