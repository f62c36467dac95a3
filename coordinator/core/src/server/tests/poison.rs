//! Poison entries: whatever a client has written, every server applies it, and so it does after a start.
//!
//! ZooKeeper logged a bad write under /zookeeper/quota, died of applying it, and died of it again at each start
//! (CVE-2026-100300).

use bytes::Bytes;
use coordinator_protocol::{
    Acl, CheckRequest, CreateRequest, CreateTtlRequest, DeleteRequest, MultiOp, Request,
    SetAclRequest, SetDataRequest,
};

use super::ensemble::{Ensemble, member};
use super::random::Dice;
use crate::state::State;

const SEEDS: u64 = 6;
const ROUNDS: usize = 6;
const REQUESTS: usize = 120;

const PATHS: [&str; 22] = [
    "/",
    "/zookeeper",
    "/zookeeper/config",
    "/zookeeper/quota",
    "/zookeeper/quota/zookeeper_limits",
    "/zookeeper/quota/zookeeper_stats",
    "/zookeeper/quota/a",
    "/zookeeper/quota/a/zookeeper_limits",
    "/zookeeper/quota/a/zookeeper_stats",
    "/zookeeper/quota/a/b",
    "/zookeeper/quota/a/b/zookeeper_limits",
    "/zookeeper/quota/zookeeper/quota/zookeeper_limits",
    "/zookeeper/other",
    "/a",
    "/a/b",
    "/a/b/c",
    "",
    "a",
    "//",
    "/a/",
    "/a/../b",
    "/a\0",
];

const VALUES: [&[u8]; 13] = [
    b"",
    b"x",
    b"count=1,bytes=1",
    b"count=-1,bytes=-1=;byteHardLimit=5;countHardLimit=2",
    b"count=99999999999999999999,bytes=1",
    b"count=-9223372036854775808,bytes=9223372036854775807",
    b"byteHardLimit=-9223372036854775809;countHardLimit=",
    b"byteHardLimit=18446744073709551616;countHardLimit=18446744073709551615",
    b"count=1,count=2,=,;=;bytes",
    b"\xff\xfe\x00count=1",
    b"=;=;=;,,,",
    b"server.1=host:2888:3888:participant\nversion=100000000",
    &[0x80; 2_000],
];

const NUMBERS: [i32; 6] = [-1, 0, 1, -2, i32::MAX, i32::MIN];

fn one_of<T: Copy>(dice: &mut Dice, of: &[T]) -> T {
    of[usize::try_from(dice.roll(of.len() as u64)).unwrap()]
}

fn path(dice: &mut Dice) -> String {
    let (_, chain) = PATHS.split_at(6);
    // Half of the time what has to be there before quotas are read.
    let path = if dice.roll(2) == 0 { one_of(dice, &chain[..5]) } else { one_of(dice, &PATHS) };
    path.to_owned()
}

fn data(dice: &mut Dice) -> Option<Bytes> {
    (dice.roll(6) > 0).then(|| Bytes::from_static(one_of(dice, &VALUES)))
}

fn version(dice: &mut Dice) -> i32 {
    if dice.roll(3) > 0 { -1 } else { one_of(dice, &NUMBERS) }
}

fn acl(dice: &mut Dice) -> Vec<Acl> {
    let odd = |scheme: &str, id: &str, permissions| Acl {
        permissions,
        scheme: scheme.to_owned(),
        id: id.to_owned(),
    };
    match dice.roll(40) {
        0 => vec![],
        1 => vec![odd("digest", "no-colon", 31)],
        2 => vec![odd("ip", "1.2.3.4/99", i32::MIN)],
        3 => vec![odd("", "", -1), odd("auth", "", 31)],
        _ => Acl::open(),
    }
}

fn create(dice: &mut Dice) -> CreateRequest {
    let flags = if dice.roll(2) == 0 { 0 } else { i32::try_from(dice.roll(9)).unwrap() - 1 };
    CreateRequest { path: path(dice), data: data(dice), acl: acl(dice), flags }
}

fn create_ttl(dice: &mut Dice) -> CreateTtlRequest {
    let CreateRequest { path, data, acl, .. } = create(dice);
    let ttl_ms = one_of(dice, &[0, 1, -1, i64::MIN, i64::MAX, 1 << 40]);
    CreateTtlRequest { path, data, acl, flags: one_of(dice, &[5, 6, 0, -1]), ttl_ms }
}

fn write(dice: &mut Dice) -> MultiOp {
    match dice.roll(9) {
        0 | 1 => MultiOp::Create(create(dice)),
        2 => MultiOp::Create2(create(dice)),
        3 => MultiOp::CreateContainer(create(dice)),
        4 => MultiOp::CreateTtl(create_ttl(dice)),
        5 => MultiOp::Delete(DeleteRequest { path: path(dice), version: version(dice) }),
        6 => MultiOp::Check(CheckRequest { path: path(dice), version: version(dice) }),
        _ => {
            let (path, data, version) = (path(dice), data(dice), version(dice));
            MultiOp::SetData(SetDataRequest { path, data, version })
        }
    }
}

fn request(dice: &mut Dice) -> Request {
    match dice.roll(30) {
        0..4 => Request::Multi((0..dice.roll(6)).map(|_| write(dice)).collect()),
        4 => {
            let (path, acl, version) = (path(dice), acl(dice), version(dice));
            Request::SetAcl(SetAclRequest { path, acl, version })
        }
        5 => Request::DeleteContainer(path(dice)),
        _ => match write(dice) {
            MultiOp::Create(create) => Request::Create(create),
            MultiOp::Create2(create) => Request::Create2(create),
            MultiOp::CreateContainer(create) => Request::CreateContainer(create),
            MultiOp::CreateTtl(create) => Request::CreateTtl(create),
            MultiOp::Delete(delete) => Request::Delete(delete),
            MultiOp::SetData(set) => Request::SetData(set),
            MultiOp::Check(check) => Request::Check(check),
        },
    }
}

/// Writes and starts in turn; how many writes were done, and how many of them set the limits of a quota.
fn write_and_start_again(seed: u64, snapshots: bool) -> (usize, usize) {
    let mut ensemble = Ensemble::with(1, |_| {});
    if snapshots {
        ensemble = Ensemble::with(1, |config| {
            config.snapshot_entries = 25;
            config.log_entries_kept = 3;
        });
    }
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut done = (0, 0);
    for _ in 0..ROUNDS {
        let only = ensemble.await_leader();
        let mut id = ensemble.connect(only, 30_000);
        for _ in 0..REQUESTS {
            if ensemble.clients[&id].is_closed() {
                id = ensemble.connect(only, 30_000);
            }
            let asked = request(&mut dice);
            let is_limit = matches!(&asked, Request::SetData(set) if set.path.ends_with("limits"));
            let xid = ensemble.send(id, asked);
            ensemble.run_ms(5);
            let is_done = matches!(ensemble.clients[&id].reply(xid), Some(Ok(_)));
            done.0 += usize::from(is_done);
            done.1 += usize::from(is_done && is_limit);
        }
        assert_eq!(ensemble.halted, vec![], "seed {seed}");
        let state = ensemble.server(only).state().clone();
        let decoded = State::decode_snapshot(&state.encode_snapshot()).expect("what it encodes");
        assert_eq!(decoded.tree(), state.tree(), "seed {seed}: a snapshot has another tree");
        ensemble.crash(member(1));
        ensemble.start(member(1));
        ensemble.await_leader();
        let again = ensemble.server(only).state();
        assert_eq!(again.tree(), state.tree(), "seed {seed}: the log has another tree");
        ensemble.server(only).check_tables();
    }
    done
}

#[test]
fn no_write_that_is_taken_ends_a_server_or_keeps_it_from_starting() {
    let done = (1..=SEEDS).map(|seed| write_and_start_again(seed, seed % 2 == 0));
    let (done, limits) = done.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert!(done > 500 && limits > 20, "only {done} writes were done, {limits} of limits");
}
