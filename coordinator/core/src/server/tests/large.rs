//! Requests as large as settings may allow.

use bytes::Bytes;
use coordinator_protocol::{
    DeleteRequest, MultiOp, Request, Response, SetDataRequest, Xid, encode_request,
};

use super::ensemble::{Ensemble, member};
use super::{create, get_data};
use crate::server::{IDENTITIES_MAX, IDENTITY_BYTES_MAX, REQUEST_BYTES_MAX_MAX};
use crate::state::{Command, Entry, TreeOp, WriteOp};
use crate::tree::Identity;

/// Length prefix, header, the path `/a` and the numbers.
const SET_DATA_BYTES: usize = 4 + 8 + 6 + 4 + 4;

#[test]
fn largest_request_goes_through_a_follower_the_log_and_snapshots() {
    let mut ensemble = Ensemble::with(3, |config| {
        config.request_bytes_max = REQUEST_BYTES_MAX_MAX;
        config.snapshot_entries = 8;
        config.log_entries_kept = 0;
    });
    let leader = ensemble.await_leader();
    let others: Vec<_> = [1, 2, 3].map(member).into_iter().filter(|id| *id != leader).collect();
    let client = ensemble.connect(others[0], 30_000);
    ensemble.ask(client, create("/a", 0)).unwrap();
    ensemble.crash(others[1]);
    let data = Bytes::from(vec![7; REQUEST_BYTES_MAX_MAX + 4 - SET_DATA_BYTES]);
    let set = SetDataRequest { path: "/a".into(), data: Some(data.clone()), version: -1 };
    let set = Request::SetData(set);
    assert_eq!(encode_request(Xid::new(1), &set).len(), 4 + REQUEST_BYTES_MAX_MAX);
    ensemble.ask(client, set).unwrap();
    let read = ensemble.ask(client, get_data("/a", false));
    assert!(matches!(read, Ok(Response::DataStat(Some(found), _)) if found == data));
    for _ in 0..9 {
        ensemble.ask(client, create("/s", 2)).unwrap();
    }
    // One server reads it from its disk, the other gets it in a snapshot.
    ensemble.start(others[1]);
    ensemble.crash(others[0]);
    ensemble.start(others[0]);
    let applied = |e: &Ensemble, id| e.server(id).state().applied_index();
    ensemble
        .run_until("catch-up", |e| others.iter().all(|id| applied(e, *id) == applied(e, leader)));
    for id in [1, 2, 3].map(member) {
        let tree = ensemble.server(id).state().tree();
        assert!(tree.get("/a").and_then(|node| node.data()) == Some(data.clone()));
    }
    assert!(ensemble.halted.is_empty(), "{:?}", ensemble.halted);
}

#[test]
fn command_in_the_log_has_less_than_twice_the_bytes_of_its_request() {
    let identity = Identity { scheme: "digest".into(), id: "x".repeat(IDENTITY_BYTES_MAX) };
    let identities = vec![identity; IDENTITIES_MAX];
    let of_identities = Entry {
        wall_ms: i64::MAX,
        commands: vec![Command::Write {
            session: coordinator_protocol::SessionId::new(i64::MIN),
            generation: u64::MAX,
            sequence: u64::MAX,
            identities: identities.into(),
            op: WriteOp::Multi(Vec::new()),
        }],
    };
    let fixed = of_identities.encode().unwrap().len();
    let delete = DeleteRequest { path: "/".into(), version: i32::MIN };
    let set = SetDataRequest { path: "/".into(), data: None, version: i32::MIN };
    for op in [MultiOp::Delete(delete), MultiOp::SetData(set)] {
        let request = Request::Multi(vec![op.clone(); 20_000]);
        let wire = encode_request(Xid::new(1), &request).len();
        let Entry { wall_ms, mut commands } = of_identities.clone();
        if let [Command::Write { op: written, .. }] = commands.as_mut_slice() {
            *written = WriteOp::Multi(vec![TreeOp::from(op); 20_000]);
        }
        let stored = Entry { wall_ms, commands }.encode().unwrap().len();
        assert!(stored <= wire + fixed + 8, "{stored} of {wire}");
    }
    assert!(fixed + (1 << 20) < REQUEST_BYTES_MAX_MAX, "{fixed} and what shares its message");
}
