//! The tree against ZooKeeper's rules, literally, and against a naive model.

use bytes::Bytes;
use coordinator_protocol::{
    Acl, CreateMode, CreateRequest, CreateTtlRequest, ErrorCode, SessionId, SetAclRequest, Stat,
    Zxid,
};

use super::{Change, ChangeKind, NodeNumbers, Stamp, Transaction, Tree};

mod model;

const OWNER: SessionId = SessionId::new(0x0100_0000_0000_0001);

fn stamp(zxid: i64) -> Stamp {
    Stamp { zxid: Zxid::new(zxid), wall_ms: 1000 + zxid }
}

fn request(path: &str, data: &'static str, flags: i32) -> CreateRequest {
    let data = Some(Bytes::from_static(data.as_bytes()));
    CreateRequest { path: path.to_owned(), data, acl: Acl::open(), flags }
}

fn create(tree: &mut Tree, zxid: i64, path: &str, flags: i32) -> Result<String, ErrorCode> {
    let mut transaction = Transaction::new(tree, stamp(zxid));
    let (path, _) = transaction.create(OWNER, &request(path, "x", flags))?;
    tree.check();
    Ok(path.to_string())
}

fn delete(tree: &mut Tree, zxid: i64, path: &str, version: i32) -> Result<(), ErrorCode> {
    Transaction::new(tree, stamp(zxid)).delete(path, version)?;
    tree.check();
    Ok(())
}

fn set(tree: &mut Tree, zxid: i64, path: &str, version: i32) -> Result<i32, ErrorCode> {
    let data = Some(Bytes::from_static(b"longer"));
    let stat = Transaction::new(tree, stamp(zxid)).set_data(path, data, version)?;
    tree.check();
    Ok(stat.version)
}

fn stat(tree: &Tree, path: &str) -> Stat {
    tree.get(path).expect("exists").stat()
}

fn renumber(tree: &mut Tree, path: &str, change: impl FnOnce(&mut NodeNumbers)) {
    let node = tree.nodes.get(path).expect("exists").to_node();
    let node = node.as_ref();
    let mut numbers = node.numbers();
    change(&mut numbers);
    tree.replace(node.with_numbers(&numbers).as_ref());
}

fn names(tree: &Tree, path: &str) -> Vec<String> {
    tree.children(path).expect("exists").map(str::to_owned).collect()
}

#[test]
fn new_tree_holds_the_system_nodes() {
    let tree = Tree::new();
    tree.check();
    let paths: Vec<String> = tree.subtree("/").map(|node| node.path().to_owned()).collect();
    assert_eq!(paths, ["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"]);
    // As a new ZooKeeper shows them: children that were never created count as deleted.
    let root = Stat { cversion: -1, num_children: 1, ..Stat::default() };
    assert_eq!(stat(&tree, "/"), root);
    let zookeeper = Stat { cversion: -2, num_children: 2, ..Stat::default() };
    assert_eq!(stat(&tree, "/zookeeper"), zookeeper);
    assert_eq!(stat(&tree, "/zookeeper/quota"), Stat::default());
    assert_eq!(stat(&tree, "/zookeeper/config"), Stat { aversion: -1, ..Stat::default() });
}

#[test]
fn stat_counts_like_zookeepers() {
    let mut tree = Tree::new();
    create(&mut tree, 1, "/a", 0).unwrap();
    create(&mut tree, 2, "/a/b", 0).unwrap();
    create(&mut tree, 3, "/a/c", 1).unwrap();
    set(&mut tree, 4, "/a", -1).unwrap();
    delete(&mut tree, 5, "/a/b", 0).unwrap();
    let expected = Stat {
        czxid: Zxid::new(1),
        mzxid: Zxid::new(4),
        ctime_ms: 1001,
        mtime_ms: 1004,
        version: 1,
        cversion: 3,
        aversion: 0,
        ephemeral_owner: SessionId::NONE,
        data_length: 6,
        num_children: 1,
        pzxid: Zxid::new(5),
    };
    assert_eq!(stat(&tree, "/a"), expected);
    let expected = Stat {
        czxid: Zxid::new(3),
        mzxid: Zxid::new(3),
        ctime_ms: 1003,
        mtime_ms: 1003,
        ephemeral_owner: OWNER,
        data_length: 1,
        pzxid: Zxid::new(3),
        ..Stat::default()
    };
    assert_eq!(stat(&tree, "/a/c"), expected);
    assert_eq!(stat(&tree, "/").cversion, 0);
    assert_eq!(stat(&tree, "/").pzxid, Zxid::new(1));
}

#[test]
fn null_data_is_not_empty_data() {
    let mut tree = Tree::new();
    let mut transaction = Transaction::new(&mut tree, stamp(1));
    let null = CreateRequest { data: None, ..request("/null", "", 0) };
    transaction.create(OWNER, &null).unwrap();
    transaction.create(OWNER, &request("/empty", "", 0)).unwrap();
    assert_eq!(tree.get("/null").unwrap().data(), None);
    assert_eq!(tree.get("/empty").unwrap().data(), Some(Bytes::new()));
    assert_eq!(stat(&tree, "/null").data_length, 0);
}

#[test]
fn sequence_is_the_number_of_creates_under_the_parent() {
    let mut tree = Tree::new();
    assert_eq!(create(&mut tree, 1, "/s-", 2).unwrap(), "/s-0000000000");
    assert_eq!(create(&mut tree, 2, "/other", 0).unwrap(), "/other");
    delete(&mut tree, 3, "/other", -1).unwrap();
    assert_eq!(create(&mut tree, 4, "/s-", 3).unwrap(), "/s-0000000002");
    assert_eq!(create(&mut tree, 5, "/", 2).unwrap(), "/0000000003");
    assert_eq!(create(&mut tree, 6, "/q", 0).unwrap(), "/q");
    assert_eq!(create(&mut tree, 7, "/q/", 2).unwrap(), "/q/0000000000");
}

#[test]
fn sequence_overflows_into_negative_numbers() {
    let mut tree = Tree::new();
    create(&mut tree, 1, "/a", 0).unwrap();
    renumber(&mut tree, "/a", |numbers| numbers.cversion = i32::MAX);
    assert_eq!(create(&mut tree, 2, "/a/s", 2).unwrap(), "/a/s2147483647");
    assert_eq!(create(&mut tree, 3, "/a/s", 2).unwrap(), "/a/s-2147483648");
    assert_eq!(create(&mut tree, 4, "/a/s", 2).unwrap(), "/a/s-2147483647");
}

#[test]
fn version_wraps_and_leaves_out_minus_one() {
    let mut tree = Tree::new();
    create(&mut tree, 1, "/a", 0).unwrap();
    renumber(&mut tree, "/a", |numbers| numbers.version = i32::MAX);
    assert_eq!(set(&mut tree, 2, "/a", i32::MAX), Ok(i32::MIN));
    renumber(&mut tree, "/a", |numbers| numbers.version = -2);
    assert_eq!(set(&mut tree, 3, "/a", -2), Ok(0));
    assert_eq!(set(&mut tree, 4, "/a", 1), Err(ErrorCode::BadVersion));
}

#[test]
fn create_answers_the_first_rule_that_is_broken() {
    let mut tree = Tree::new();
    create(&mut tree, 1, "/e", 1).unwrap();
    create(&mut tree, 2, "/p", 0).unwrap();
    let mut check = |path: &str, flags: i32, expected: ErrorCode| {
        let before = tree.clone();
        assert_eq!(create(&mut tree, 3, path, flags), Err(expected), "{path:?} {flags}");
        assert_eq!(tree, before);
    };
    check("/x", 7, ErrorCode::BadArguments);
    check("/x", -1, ErrorCode::BadArguments);
    check("/x", 5, ErrorCode::BadArguments);
    check("/x", 6, ErrorCode::BadArguments);
    check("", 0, ErrorCode::BadArguments);
    check("x", 0, ErrorCode::BadArguments);
    check("/x\0", 0, ErrorCode::BadArguments);
    check("/x/y", 0, ErrorCode::NoNode);
    check("/x/", 0, ErrorCode::NoNode);
    check("/p/", 0, ErrorCode::BadArguments);
    check("/p/.", 0, ErrorCode::BadArguments);
    check("/p//", 2, ErrorCode::NoNode);
    check("/p", 0, ErrorCode::NodeExists);
    check("/", 0, ErrorCode::NodeExists);
    check("/e/x", 0, ErrorCode::NoChildrenForEphemerals);
    check("/zookeeper/config/x", 0, ErrorCode::NoAuth);
}

#[test]
fn access_list_must_not_be_empty_and_is_stored_without_repetition() {
    let mut tree = Tree::new();
    let mut transaction = Transaction::new(&mut tree, stamp(1));
    let none = CreateRequest { acl: Vec::new(), ..request("/a", "", 0) };
    assert_eq!(transaction.create(OWNER, &none), Err(ErrorCode::InvalidAcl));
    let read = Acl { permissions: 1, scheme: "world".into(), id: "anyone".into() };
    let acl = vec![Acl::open()[0].clone(), read.clone(), Acl::open()[0].clone(), read.clone()];
    transaction.create(OWNER, &CreateRequest { acl, ..request("/a", "", 0) }).unwrap();
    assert_eq!(tree.get("/a").unwrap().acl()[..], [Acl::open()[0].clone(), read]);
}

#[test]
fn delete_answers_the_first_rule_that_is_broken() {
    let mut tree = Tree::new();
    create(&mut tree, 1, "/a", 0).unwrap();
    create(&mut tree, 2, "/a/b", 0).unwrap();
    let mut check = |path: &str, version: i32, expected: ErrorCode| {
        let before = tree.clone();
        assert_eq!(delete(&mut tree, 3, path, version), Err(expected), "{path:?} {version}");
        assert_eq!(tree, before);
    };
    check("", -1, ErrorCode::BadArguments);
    check("a", -1, ErrorCode::BadArguments);
    check("/a\0", -1, ErrorCode::BadArguments);
    for system in ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"] {
        check(system, -1, ErrorCode::BadArguments);
    }
    check("/x", -1, ErrorCode::NoNode);
    check("/a/", -1, ErrorCode::NoNode);
    check("/a", 1, ErrorCode::BadVersion);
    check("/a", 0, ErrorCode::NotEmpty);
}

#[test]
fn set_data_and_check_answer_the_first_rule_that_is_broken() {
    let mut tree = Tree::new();
    create(&mut tree, 1, "/a", 0).unwrap();
    let errors = [
        ("a", -1, ErrorCode::BadArguments),
        ("/a/", -1, ErrorCode::BadArguments),
        ("/x", -1, ErrorCode::NoNode),
        ("/a", 1, ErrorCode::BadVersion),
    ];
    for (path, version, expected) in errors {
        assert_eq!(set(&mut tree, 2, path, version), Err(expected), "{path:?}");
        let transaction = Transaction::new(&mut tree, stamp(2));
        assert_eq!(transaction.check(path, version), Err(expected), "{path:?}");
    }
    assert_eq!(set(&mut tree, 2, "/zookeeper/config", -1), Err(ErrorCode::NoAuth));
    assert_eq!(set(&mut tree, 2, "/", 0), Ok(1));
    assert_eq!(set(&mut tree, 3, "/a", 0), Ok(1));
    let transaction = Transaction::new(&mut tree, stamp(4));
    assert_eq!(transaction.check("/a", 1).map(|stat| stat.mzxid), Ok(Zxid::new(3)));
    assert_eq!(transaction.commit(), []);
}

#[test]
fn changes_come_in_order_with_data_and_stat() {
    let mut tree = Tree::new();
    create(&mut tree, 1, "/gone", 0).unwrap();
    let before = stat(&tree, "/gone");
    let mut transaction = Transaction::new(&mut tree, stamp(2));
    transaction.create(OWNER, &request("/new", "one", 0)).unwrap();
    transaction.set_data("/new", None, 0).unwrap();
    transaction.delete("/gone", -1).unwrap();
    let zxid = Zxid::new(2);
    let (ctime_ms, mtime_ms) = (1002, 1002);
    let new = Stat { czxid: zxid, mzxid: zxid, pzxid: zxid, ctime_ms, mtime_ms, ..Stat::default() };
    let change = |path: &str, kind, data, stat| Change {
        zxid,
        path: path.into(),
        kind,
        data,
        acl: Acl::open().into(),
        parent_acl: Acl::open().into(),
        stat,
    };
    let one = Some(Bytes::from_static(b"one"));
    let expected = [
        change("/new", ChangeKind::Created, one, Stat { data_length: 3, ..new }),
        change("/new", ChangeKind::DataChanged, None, Stat { version: 1, ..new }),
        change("/gone", ChangeKind::Deleted, None, before),
    ];
    assert_eq!(transaction.commit(), expected);
}

#[test]
fn rollback_takes_everything_back() {
    let mut tree = Tree::new();
    create(&mut tree, 1, "/a", 0).unwrap();
    create(&mut tree, 2, "/a/e", 1).unwrap();
    let before = tree.clone();
    let mut transaction = Transaction::new(&mut tree, stamp(3));
    transaction.delete("/a/e", -1).unwrap();
    transaction.create(OWNER, &request("/a/s", "1", 3)).unwrap();
    transaction.set_data("/a", None, 0).unwrap();
    transaction.create(OWNER, &request("/a/e", "2", 0)).unwrap();
    transaction.create(OWNER, &request("/a/e/f", "3", 0)).unwrap();
    transaction.set_data("/a", Some(Bytes::new()), 1).unwrap();
    transaction.delete("/a/e/f", 0).unwrap();
    transaction.rollback();
    tree.check();
    assert_eq!(tree, before);
    assert_eq!(tree.bytes(), before.bytes());
}

#[test]
fn ephemerals_of_one_session_go_together() {
    let mut tree = Tree::new();
    let other = SessionId::new(9);
    let mut transaction = Transaction::new(&mut tree, stamp(1));
    for (owner, path) in [(OWNER, "/b"), (other, "/c"), (OWNER, "/a")] {
        transaction.create(owner, &request(path, "", 1)).unwrap();
    }
    assert_eq!(tree.ephemeral_owners().collect::<Vec<_>>(), [(other, 1), (OWNER, 2)]);
    let mut transaction = Transaction::new(&mut tree, stamp(2));
    transaction.delete_ephemerals(OWNER);
    let changes = transaction.commit();
    let deleted: Vec<_> = changes.iter().map(|change| (&*change.path, change.zxid)).collect();
    assert_eq!(deleted, [("/a", Zxid::new(2)), ("/b", Zxid::new(2))]);
    tree.check();
    assert_eq!(names(&tree, "/"), ["c", "zookeeper"]);
    assert_eq!((tree.ephemeral_count(), tree.node_count()), (1, 5));
    assert_eq!(stat(&tree, "/").pzxid, Zxid::new(2));
}

#[test]
fn walk_visits_parents_first_and_counts_descendants() {
    let mut tree = Tree::new();
    for (zxid, path) in (1..).zip(["/a", "/a-b", "/a/z", "/a/c", "/a/c/d", "/b"]) {
        create(&mut tree, zxid, path, 0).unwrap();
    }
    let paths: Vec<String> = tree.subtree("/a").map(|node| node.path().to_owned()).collect();
    assert_eq!(paths, ["/a", "/a/c", "/a/c/d", "/a/z"]);
    assert_eq!(names(&tree, "/"), ["a", "a-b", "b", "zookeeper"]);
    assert_eq!(tree.descendant_count("/a"), Some(3));
    assert_eq!(tree.descendant_count("/"), Some(9));
    assert_eq!(tree.descendant_count("/x"), None);
    assert_eq!(tree.subtree("/x").count(), 0);
    assert!(tree.children("/x").is_none());
}

#[test]
fn records_give_the_same_tree_and_refuse_what_is_none() {
    let mut tree = Tree::new();
    for (zxid, (path, flags)) in (1..).zip([("/a", 0), ("/a/b", 0), ("/a/e", 1), ("/s", 2)]) {
        create(&mut tree, zxid, path, flags).unwrap();
    }
    let records: Vec<_> = tree.freeze().records().collect();
    let last = Zxid::new(4);
    assert_eq!(Tree::from_records(records.clone(), last), Ok(tree));
    for missing in 0..records.len() {
        let mut some = records.clone();
        let removed = some.remove(missing);
        let leaf = matches!(removed.path(), "/a/b" | "/a/e" | "/s0000000001");
        assert_eq!(Tree::from_records(some, last).is_ok(), leaf, "without {}", removed.path());
    }
    let mut twice = records.clone();
    twice.push(records[2].clone());
    assert!(Tree::from_records(twice, last).is_err());
    assert!(Tree::from_records(records, Zxid::new(3)).is_err());
}

#[test]
fn access_lists_that_one_transaction_adds_are_bounded() {
    let list = |number: usize| {
        let id = format!("{number:0>1000}");
        vec![Acl { permissions: 31, scheme: "digest".into(), id: format!("user:{id}") }]
    };
    let create = |transaction: &mut Transaction<'_>, number: usize, acl: Vec<Acl>| {
        let path = format!("/{number}");
        let request = CreateRequest { path, data: None, acl, flags: 0 };
        transaction.create(OWNER, &request).map(|_| ())
    };
    let mut tree = Tree::new();
    let mut transaction = Transaction::new(&mut tree, stamp(1));
    let bytes = 6 + 5 + 1_000 + super::transaction::ACL_ENTRY_BYTES;
    let fit = super::ADDED_ACL_BYTES_MAX / bytes;
    for number in 0..fit {
        assert_eq!(create(&mut transaction, number, list(number)), Ok(()), "{number}");
    }
    assert_eq!(create(&mut transaction, fit, list(fit - 1)), Ok(()), "the one before once more");
    assert_eq!(create(&mut transaction, fit + 1, list(0)), Err(ErrorCode::InvalidAcl));
    transaction.rollback();
    assert_eq!(tree, Tree::new());
    let mut transaction = Transaction::new(&mut tree, stamp(2));
    for number in 0..2 * fit {
        assert_eq!(create(&mut transaction, number, list(0)), Ok(()), "{number}");
    }
}

/// A multi has tens of thousands of creates in a megabyte, and a session as many ephemerals: what they cost must not grow
/// with what their parent holds.
#[test]
fn children_that_come_and_go_copy_nothing_of_what_their_parent_holds() {
    let mut tree = Tree::new();
    let data = Some(Bytes::from(vec![7; 1 << 20]));
    let parent = CreateRequest { data, ..request("/p", "", 0) };
    Transaction::new(&mut tree, stamp(1)).create(OWNER, &parent).unwrap();
    let at = |tree: &Tree| tree.get("/p").unwrap().data().unwrap().as_ptr();
    let before = at(&tree);
    let untouched = tree.clone();
    let mut transaction = Transaction::new(&mut tree, stamp(2));
    for number in 0..20_000 {
        transaction.create(OWNER, &request(&format!("/p/{number}"), "", 1)).unwrap();
    }
    transaction.rollback();
    assert_eq!(tree, untouched);
    assert_eq!(at(&tree), before);
    let mut transaction = Transaction::new(&mut tree, stamp(3));
    for number in 0..20_000 {
        transaction.create(OWNER, &request(&format!("/p/{number}"), "", 1)).unwrap();
    }
    assert_eq!(transaction.commit().len(), 20_000);
    let mut transaction = Transaction::new(&mut tree, stamp(4));
    transaction.delete_ephemerals(OWNER);
    assert_eq!(transaction.commit().len(), 20_000);
    tree.check();
    let acl = Acl::open();
    let listed = SetAclRequest { path: "/p".into(), acl, version: -1 };
    Transaction::new(&mut tree, stamp(5)).set_acl(&listed).unwrap();
    assert_eq!(at(&tree), before);
    assert_eq!(stat(&tree, "/p").data_length, 1 << 20);
}

#[test]
fn frozen_tree_stays_as_it_was() {
    let mut tree = Tree::new();
    create(&mut tree, 1, "/a", 0).unwrap();
    for number in 0..600 {
        create(&mut tree, 2 + number, &format!("/a/{number:03}"), 0).unwrap();
    }
    let copy = Tree::from_records(tree.freeze().records(), Zxid::new(1_000)).unwrap();
    let frozen = tree.freeze();
    set(&mut tree, 700, "/a", -1).unwrap();
    delete(&mut tree, 701, "/a/300", -1).unwrap();
    create(&mut tree, 702, "/a/new", 0).unwrap();
    assert_ne!(tree, copy);
    assert_eq!(frozen, copy.freeze());
    assert_eq!(frozen.bytes(), copy.bytes());
    let again = Tree::from_records(frozen.records(), Zxid::new(1_000)).unwrap();
    again.check();
    assert_eq!(again, copy);
    tree.check();
}

fn limit(tree: &mut Tree, zxid: i64, path: &str, limits: &'static str) {
    for part in path.match_indices('/').skip(1).map(|(at, _)| &path[..at]).chain([path]) {
        let _ = create(tree, zxid, &format!("/zookeeper/quota{part}"), 0);
    }
    let path = format!("/zookeeper/quota{path}/zookeeper_limits");
    let _ = create(tree, zxid + 1, &path, 0);
    let data = Some(Bytes::from_static(limits.as_bytes()));
    Transaction::new(tree, stamp(zxid + 2)).set_data(&path, data, -1).unwrap();
    tree.check();
}

#[test]
fn hard_quotas_are_kept_to_and_freed_again() {
    let mut tree = Tree::new();
    create(&mut tree, 1, "/a", 0).unwrap();
    create(&mut tree, 2, "/a/b", 0).unwrap();
    limit(&mut tree, 10, "/a", "count=1,bytes=-1=;countHardLimit=4;byteHardLimit=9");
    assert_eq!(create(&mut tree, 20, "/a/c", 0), Ok("/a/c".into()));
    assert_eq!(create(&mut tree, 21, "/a/c/d", 0), Ok("/a/c/d".into()));
    assert_eq!(create(&mut tree, 22, "/a/e", 0), Err(ErrorCode::QuotaExceeded));
    assert_eq!(create(&mut tree, 22, "/b", 0), Ok("/b".into()), "elsewhere");
    assert_eq!(set(&mut tree, 23, "/a/b", -1), Ok(1), "five bytes more: nine");
    assert_eq!(set(&mut tree, 24, "/a/c", -1), Err(ErrorCode::QuotaExceeded));
    assert_eq!(set(&mut tree, 24, "/a/b", -1), Ok(2), "as long as before");
    delete(&mut tree, 25, "/a/b", -1).unwrap();
    assert_eq!(set(&mut tree, 26, "/a/c", -1), Ok(1));
    limit(&mut tree, 30, "/a", "countHardLimit=-1");
    assert_eq!(create(&mut tree, 40, "/a/e", 0), Ok("/a/e".into()));
    limit(&mut tree, 41, "/a", "countHardLimit=0");
    assert_eq!(create(&mut tree, 50, "/a/f", 0), Err(ErrorCode::QuotaExceeded));
    assert_eq!(set(&mut tree, 51, "/a/c", -1), Ok(2), "no node more");
    let again = Tree::from_records(tree.freeze().records(), Zxid::new(1_000)).unwrap();
    again.check();
    let stats = "/zookeeper/quota/a/zookeeper_stats";
    assert_eq!(tree.quota_usage(stats).map(|usage| (usage.count, usage.bytes)), Some((4, 9)));
    assert_eq!(again.quota_usage(stats), tree.quota_usage(stats));
    delete(&mut tree, 60, "/zookeeper/quota/a/zookeeper_limits", -1).unwrap();
    assert_eq!(create(&mut tree, 61, "/a/f", 0), Ok("/a/f".into()));
}

#[test]
fn quota_of_a_transaction_that_is_taken_back_counts_nothing() {
    let mut tree = Tree::new();
    create(&mut tree, 1, "/a", 0).unwrap();
    limit(&mut tree, 10, "/a", "countHardLimit=2");
    let before = tree.clone();
    let mut transaction = Transaction::new(&mut tree, stamp(20));
    transaction.create(OWNER, &request("/a/b", "x", 0)).unwrap();
    transaction.set_data("/a/b", None, -1).unwrap();
    let full = transaction.create(OWNER, &request("/a/c", "x", 0)).map(|_| ());
    assert_eq!(full, Err(ErrorCode::QuotaExceeded), "it sees what came before");
    transaction.delete("/a/b", -1).unwrap();
    transaction.create(OWNER, &request("/a/c", "x", 0)).unwrap();
    transaction.delete("/zookeeper/quota/a/zookeeper_limits", -1).unwrap();
    transaction.rollback();
    tree.check();
    assert_eq!(tree, before);
    assert_eq!(create(&mut tree, 30, "/a/c", 0), Ok("/a/c".into()));
    assert_eq!(create(&mut tree, 31, "/a/d", 0), Err(ErrorCode::QuotaExceeded));
}

#[test]
fn quotas_that_come_and_go_in_one_transaction_cost_no_walks() {
    let mut tree = Tree::new();
    create(&mut tree, 1, "/big", 0).unwrap();
    create(&mut tree, 2, "/zookeeper/quota/big", 0).unwrap();
    let mut transaction = Transaction::new(&mut tree, stamp(3));
    for number in 0..50_000 {
        transaction.create(OWNER, &request(&format!("/big/{number}"), "x", 0)).unwrap();
    }
    let limits = "/zookeeper/quota/big/zookeeper_limits";
    let mut transaction = Transaction::new(&mut tree, stamp(4));
    // By a walk for each this would be 600 million nodes: this test would not end for minutes.
    for _ in 0..6_000 {
        transaction.create(OWNER, &request(limits, "countHardLimit=50001", 0)).unwrap();
        let full = transaction.create(OWNER, &request("/big/more", "x", 0)).map(|_| ());
        assert_eq!(full, Err(ErrorCode::QuotaExceeded));
        transaction.delete(limits, -1).unwrap();
    }
    transaction.rollback();
    assert_eq!(tree.descendant_count("/big"), Some(50_000));
    tree.check();
}

#[test]
fn quota_is_kept_to_at_the_deepest_path_that_may_have_one_and_refused_below() {
    let mut tree = Tree::new();
    let deepest = "/a".repeat(super::quota::LIMITED_COMPONENTS_MAX);
    let below = format!("{deepest}/b");
    for path in [&*below, &format!("{below}/c")] {
        for part in path.match_indices('/').skip(1).map(|(at, _)| &path[..at]).chain([path]) {
            let _ = create(&mut tree, 1, part, 0);
        }
    }
    limit(&mut tree, 10, &deepest, "countHardLimit=3");
    assert_eq!(create(&mut tree, 20, &format!("{below}/d"), 0), Err(ErrorCode::QuotaExceeded));
    create(&mut tree, 20, &format!("/zookeeper/quota{below}"), 0).unwrap();
    let refused = create(&mut tree, 21, &format!("/zookeeper/quota{below}/zookeeper_limits"), 0);
    assert_eq!(refused, Err(ErrorCode::BadArguments));
    assert_eq!(tree.descendant_count(&deepest), Some(2));
    assert_eq!(tree.descendant_count(&below), Some(1));
    tree.check();
}

#[test]
fn look_for_what_is_due_ends_at_its_limits_and_goes_on_there() {
    let mut tree = Tree::new();
    let mut transaction = Transaction::new(&mut tree, stamp(1));
    for number in 0..10 {
        let (path, data, acl, ttl_ms) = (format!("/{number}"), None, Acl::open(), 1_000);
        let flags = CreateMode::PersistentTtl.code();
        // Every second one stays for longer.
        let ttl_ms = if number % 2 == 0 { ttl_ms } else { 1_000_000 };
        transaction.create_ttl(&CreateTtlRequest { path, data, acl, flags, ttl_ms }).unwrap();
    }
    let look = |after: Option<&str>, count_max, due_max| {
        let due = tree.due_to_go(100_000, after, super::Look { count_max, due_max });
        (
            due.paths.iter().map(|path| path.to_string()).collect::<Vec<_>>().join(" "),
            due.go_on_behind,
        )
    };
    assert_eq!(look(None, 11, 6), ("/0 /2 /4 /6 /8".into(), None));
    assert_eq!(look(None, 3, 6), ("/0 /2".into(), Some("/2".into())));
    assert_eq!(look(Some("/2"), 3, 6), ("/4".into(), Some("/5".into())));
    assert_eq!(look(Some("/5"), 3, 1), ("/6".into(), Some("/6".into())));
    assert_eq!(look(Some("/6"), 4, 6), ("/8".into(), None));
    assert_eq!(look(Some("/9"), 3, 6), (String::new(), None));
}
